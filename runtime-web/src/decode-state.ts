/** What decoding keeps on the device: the last token, where it stands, and how the next one is to be chosen. */

import { SAMPLING_SETTINGS, SEEN_IN_PROMPT } from "./generated/contracts.js";
import type { Gpu } from "./gpu.js";
import type { SamplingParams } from "./sampling.js";
import type { DeviceTensor, Runtime } from "./wasm.js";

/** Inputs of `decode` and `sample`, which the latter moves on from step to step. */
export class DecodeState {
  readonly token: DeviceTensor;
  readonly position: DeviceTensor;
  readonly #step: DeviceTensor;
  readonly #settings: DeviceTensor;
  readonly #bias: DeviceTensor;
  readonly #counts: DeviceTensor;
  /** Handles of what `sample` takes after the logits. */
  readonly samplingArguments: readonly number[];
  readonly #gpu: Pick<Gpu, "write">;
  readonly #vocabSize: number;
  #hasBias = true;

  constructor(runtime: Pick<Runtime, "tensor" | "tuple">, gpu: Pick<Gpu, "write">, vocabSize: number) {
    this.#gpu = gpu;
    this.#vocabSize = vocabSize;
    this.token = runtime.tensor("int32", [1]);
    this.position = runtime.tensor("int32", [1]);
    this.#step = runtime.tensor("int32", [1]);
    this.#settings = runtime.tensor("int32", [SAMPLING_SETTINGS.length]);
    this.#bias = runtime.tensor("float32", [vocabSize]);
    this.#counts = runtime.tensor("int32", [vocabSize]);
    const state = runtime.tuple([this.#step, this.token, this.position].map((tensor) => tensor.handle));
    this.samplingArguments = [this.#bias.handle, this.#counts.handle, this.#settings.handle, state];
  }

  /** Prepares the choice of an answer's tokens. */
  begin(sampling: SamplingParams, promptIds: readonly number[]): void {
    this.#write(this.#settings, settingsOf(sampling, this.#vocabSize));
    this.#write(this.#step, Int32Array.of(0));
    const biases = Object.entries(sampling.logitBias);
    if (biases.length > 0 || this.#hasBias) {
      const bias = new Float32Array(this.#vocabSize);
      for (const [id, value] of biases) bias[Number(id)] = value;
      this.#write(this.#bias, bias);
    }
    this.#hasBias = biases.length > 0;
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = sampling;
    // Other answers are counted too, but nothing comes of it.
    if (repetitionPenalty === 1 && frequencyPenalty === 0 && presencePenalty === 0) return;
    const counts = new Int32Array(this.#vocabSize);
    for (const id of promptIds) counts[id] = SEEN_IN_PROMPT;
    this.#write(this.#counts, counts);
  }

  /** Tells the next pass where its tokens stand. */
  moveTo(position: number): void {
    this.#write(this.position, Int32Array.of(position));
  }

  /** Tells the next decode step its token. */
  setToken(token: number): void {
    this.#write(this.token, Int32Array.of(token));
  }

  #write({ buffer }: DeviceTensor, values: Int32Array | Float32Array): void {
    this.#gpu.write(buffer, 0, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
}

/** The words of SAMPLING_SETTINGS. */
function settingsOf(sampling: SamplingParams, vocabSize: number): Int32Array {
  const integers = {
    top_k: Math.min(sampling.topK, vocabSize),
    seed_low: sampling.seed % 2 ** 32,
    seed_high: Math.floor(sampling.seed / 2 ** 32),
  };
  const numbers = {
    temperature: sampling.temperature,
    top_p: sampling.topP,
    min_p: sampling.minP,
    repetition_penalty: sampling.repetitionPenalty,
    frequency_penalty: sampling.frequencyPenalty,
    presence_penalty: sampling.presencePenalty,
  };
  const words = new DataView(new ArrayBuffer(4 * SAMPLING_SETTINGS.length));
  SAMPLING_SETTINGS.forEach((name, i) => {
    // setInt32 takes the lowest 32 bits of whatever it gets.
    if (name in integers) words.setInt32(4 * i, integers[name as keyof typeof integers], true);
    else words.setFloat32(4 * i, numbers[name as keyof typeof numbers], true);
  });
  return new Int32Array(words.buffer);
}
