/**
 * A call that enqueues the same commands each time, as a decode step does: what differs between its steps is in buffers that
 * are written before. Once it has enqueued the same twice, it is replayed without the virtual machine.
 */

import type { Gpu } from "./gpu.js";
import type { Recording } from "./recording.js";
import type { Runtime } from "./wasm.js";

/** The call, and the recording of what it does. */
export class RepeatedCall {
  readonly #gpu: Pick<Gpu, "record" | "replay">;
  readonly #runtime: Pick<Runtime, "buffer" | "release">;
  readonly #call: () => number;
  #recording: Recording | undefined;
  #isSteady = false;
  /** Handle of the last call's result, 0 for none. A recording writes its buffer, so that it must be nobody else's. */
  #result = 0;
  #resultBuffer = 0;

  /** `call` gives the handle of a tensor. */
  constructor(gpu: Pick<Gpu, "record" | "replay">, runtime: Pick<Runtime, "buffer" | "release">, call: () => number) {
    this.#gpu = gpu;
    this.#runtime = runtime;
    this.#call = call;
  }

  /** Enqueues the call. Buffer id of its result, which lasts until the next run. */
  run(): number {
    const isReplayed = this.#isSteady && this.#recording !== undefined && this.#gpu.replay(this.#recording);
    if (!isReplayed) this.#record();
    return this.#resultBuffer;
  }

  #record(): void {
    const last = this.#recording;
    this.#recording = undefined;
    // First, so that the call can have the same buffer again.
    if (this.#result !== 0) this.#runtime.release(this.#result);
    this.#result = 0;
    const { result, recording } = this.#gpu.record(this.#call);
    this.#result = result;
    this.#resultBuffer = this.#runtime.buffer(result);
    this.#recording = recording;
    this.#isSteady = recording !== undefined && last?.equals(recording) === true;
  }
}
