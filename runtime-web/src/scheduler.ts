/** One job at a time, in the order of arrival. */

import { WebcompileError, throwIfAborted } from "./errors.js";

interface Waiting {
  start(): void;
  reject(error: WebcompileError): void;
}

/** Runs the jobs of all requests on the one sequence that the device holds. A failed job never blocks the next. */
export class Scheduler {
  readonly #waiting = new Set<Waiting>();
  #busy = false;
  #closed: WebcompileError | undefined;

  /** Runs the job when its turn comes. Aborting while it waits takes it out of the queue. */
  async run<T>(signal: AbortSignal, job: () => Promise<T>): Promise<T> {
    await this.#turn(signal);
    try {
      return await job();
    } finally {
      this.#next();
    }
  }

  /** Rejects what waits and what comes later. A running job ends by itself. */
  close(error: WebcompileError): void {
    this.#closed = error;
    for (const waiting of this.#waiting) waiting.reject(error);
    this.#waiting.clear();
  }

  async #turn(signal: AbortSignal): Promise<void> {
    if (this.#closed !== undefined) throw this.#closed;
    throwIfAborted(signal);
    if (!this.#busy) {
      this.#busy = true;
      return;
    }
    let leave = (): void => undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const waiting = { start: resolve, reject };
        this.#waiting.add(waiting);
        leave = () => {
          this.#waiting.delete(waiting);
          reject(new WebcompileError("aborted", "the request was cancelled while it waited"));
        };
        signal.addEventListener("abort", leave);
      });
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  #next(): void {
    const [first] = this.#waiting;
    if (first === undefined) {
      this.#busy = false;
      return;
    }
    this.#waiting.delete(first);
    first.start();
  }
}
