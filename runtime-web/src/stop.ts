/** Stop texts in a stream: nothing that may turn out to be part of one is let through early. */

/** Splits a stream of text at the stop text that is complete first. */
export class StopMatcher {
  readonly #stops: readonly string[];
  #held = "";

  /** Empty stop texts are not allowed. */
  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Takes the next piece; gives the text that is safe to show, and whether a stop text ended it. */
  push(piece: string): { readonly text: string; readonly stopped: boolean } {
    const text = this.#held + piece;
    const match = this.#firstMatch(text);
    if (match !== undefined) {
      this.#held = "";
      return { text: text.slice(0, match), stopped: true };
    }
    const shown = text.length - this.#heldLength(text);
    this.#held = text.slice(shown);
    return { text: text.slice(0, shown), stopped: false };
  }

  /** What was still held when the stream ended. */
  flush(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }

  /** Start of the stop text that ends first; of two that end together, the longer. */
  #firstMatch(text: string): number | undefined {
    let start: number | undefined;
    let end = Infinity;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0 || at + stop.length > end) continue;
      start = at + stop.length < end ? at : Math.min(at, start ?? at);
      end = at + stop.length;
    }
    return start;
  }

  /** Length of the longest end of the text that begins a stop text. */
  #heldLength(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
