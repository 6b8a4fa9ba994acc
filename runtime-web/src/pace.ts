/** Cuts prompts into chunks, so that no command holds the device for longer than graphics drivers allow. */

/** A chunk is to take about so long. No dispatch of it can then come near the seconds after which drivers reset a device. */
const CHUNK_MS = 1000;
/** First chunk on an adapter that computes on the CPU. */
const SOFTWARE_TOKENS = 32;
/** Chunks are multiples of this, which is at least what the kernels do at a time. */
const STEP_TOKENS = 8;

/** How many tokens the next chunk may have, learnt from how long chunks take. */
export class Pace {
  readonly #most: number;
  #tokens: number;

  /** `most` is what the compiled model can take at once. */
  constructor(most: number, isSoftware: boolean) {
    this.#most = most;
    this.#tokens = isSoftware ? Math.min(SOFTWARE_TOKENS, most) : most;
  }

  /** Tokens of the next chunk at most. */
  get tokens(): number {
    return this.#tokens;
  }

  /** A chunk took so long. It grows by a factor of two at most, since later tokens of a prompt take longer than its first. */
  took(tokens: number, ms: number): void {
    const factor = Math.min(2, CHUNK_MS / ms);
    // A short chunk says nothing about longer ones, unless it was slow.
    if (tokens < this.#tokens && factor > 1) return;
    const wanted = Math.floor((tokens * factor) / STEP_TOKENS) * STEP_TOKENS;
    this.#tokens = Math.min(this.#most, Math.max(STEP_TOKENS, wanted));
  }
}
