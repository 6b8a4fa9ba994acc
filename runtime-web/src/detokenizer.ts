/** From tokens to text one at a time, in constant time per token. */

/** What a token stands for, as bytes of UTF-8. A character may be split over tokens. */
export interface TokenBytes {
  /** Bytes of a token; none for special tokens. */
  bytes(id: number): Uint8Array;
  /** Whether a space at the very beginning of the text is an artifact of the vocabulary. */
  readonly stripsLeadingSpace: boolean;
}

/** Text of a growing sequence of tokens. Bytes of an incomplete character wait for the rest of it. */
export class Detokenizer {
  readonly #tokens: TokenBytes;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #atStart = true;

  constructor(tokens: TokenBytes) {
    this.#tokens = tokens;
  }

  /** The text that the token completes; often all of its own, sometimes none. */
  push(id: number): string {
    return this.#begin(this.#decoder.decode(this.#tokens.bytes(id), { stream: true }));
  }

  /** What an incomplete character at the end becomes: U+FFFD. */
  flush(): string {
    return this.#begin(this.#decoder.decode());
  }

  #begin(text: string): string {
    if (!this.#atStart || text === "") return text;
    this.#atStart = false;
    return this.#tokens.stripsLeadingSpace && text.startsWith(" ") ? text.slice(1) : text;
  }
}
