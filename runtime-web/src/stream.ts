/** Pushed items as an async iterator, and promises settled from outside. */

/** A promise that is settled from outside. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }
}

/** Items that arrive by themselves and are read with `for await`. Leaving the loop calls `onReturn`. */
export class PushStream<T> implements AsyncIterableIterator<T, undefined> {
  readonly #onReturn: () => void;
  readonly #items: T[] = [];
  readonly #readers: { resolve: (result: IteratorResult<T, undefined>) => void; reject: (error: unknown) => void }[] = [];
  #end: { readonly error?: unknown } | undefined;

  constructor(onReturn: () => void) {
    this.#onReturn = onReturn;
  }

  push(item: T): void {
    if (this.#end !== undefined) return;
    const reader = this.#readers.shift();
    if (reader === undefined) this.#items.push(item);
    else reader.resolve({ done: false, value: item });
  }

  /** No more items will come. */
  close(): void {
    this.#finish({});
  }

  /** The reader gets the error after the items that are there. */
  fail(error: unknown): void {
    this.#finish({ error });
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    if (this.#items.length > 0) return { done: false, value: this.#items.shift() as T };
    const end = this.#end;
    if (end === undefined) return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
    this.#end = {}; // An error is thrown once.
    if ("error" in end) throw end.error;
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#items.length = 0;
    if (this.#end === undefined) {
      this.close();
      this.#onReturn();
    }
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #finish(end: { readonly error?: unknown }): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    const [first, ...others] = this.#readers.splice(0);
    if (first === undefined) return;
    if ("error" in end) first.reject(end.error);
    else first.resolve({ done: true, value: undefined });
    this.#end = {};
    for (const reader of others) reader.resolve({ done: true, value: undefined });
  }
}
