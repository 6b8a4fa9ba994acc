/** How a request wants its tokens chosen: names, ranges and what they are when nothing is said. */

import { type Check, CheckError, integer, number, optional, plainObject } from "./check.js";
import { WebcompileError } from "./errors.js";
import { randomSeed } from "./random.js";
import type { GenerateRequest, LogitProcessor, TokenLogprobs } from "./types.js";

/** The parameters of the sampler; `sampler` in the Python package says what each does. */
export interface SamplingParams {
  /** 0 takes the most likely token. */
  readonly temperature: number;
  readonly topP: number;
  /** 0 is off. */
  readonly topK: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  /** Added to the logits, by token id. */
  readonly logitBias: Readonly<Record<number, number>>;
  /** An integer of 64 bits at most. */
  readonly seed: number;
}

/** How the tokens of an answer are to be chosen. */
export interface ChoiceRequest {
  readonly promptIds: readonly number[];
  readonly sampling: SamplingParams;
  /** How many alternatives to tell the log probabilities of, if any are wanted. */
  readonly logprobs: number | undefined;
}

/** A token that was chosen. */
export interface Choice {
  readonly token: number;
  /** If they were asked for. */
  readonly logprobs: TokenLogprobs | null;
}

const MAX_LOGIT_BIASES = 1024;

/** Checks of those fields of a request that say how to choose tokens. */
export const samplingFields = {
  temperature: optional(number(0, 2)),
  topP: optional(above(0, 1)),
  topK: optional(integer(0)),
  minP: optional(number(0, 1)),
  repetitionPenalty: optional(above(0, 2)),
  frequencyPenalty: optional(number(-2, 2)),
  presencePenalty: optional(number(-2, 2)),
  logitBias: optional(logitBias),
  seed: optional(integer()),
  logprobs: optional(integer(0, 20)),
  logitProcessor: optional(logitProcessor),
};

/** Full parameters of a request that was checked, for a vocabulary. Throws `request_invalid` for a bias outside of it. */
export function samplingParams(request: GenerateRequest, vocabSize: number): SamplingParams {
  const biases = request.logitBias ?? {};
  const outside = Object.keys(biases).find((id) => Number(id) >= vocabSize);
  if (outside !== undefined) {
    throw new WebcompileError("request_invalid", `request.logitBias: token id ${outside} is not in the vocabulary of ${vocabSize}`);
  }
  return {
    temperature: request.temperature ?? 1,
    topP: request.topP ?? 1,
    topK: request.topK ?? 0,
    minP: request.minP ?? 0,
    repetitionPenalty: request.repetitionPenalty ?? 1,
    frequencyPenalty: request.frequencyPenalty ?? 0,
    presencePenalty: request.presencePenalty ?? 0,
    logitBias: biases,
    seed: request.seed ?? randomSeed(),
  };
}

/** A number above one bound, up to another. */
function above(bound: number, atMost: number): Check<number> {
  return (value, name) => {
    if (value === bound) throw new CheckError(`${name} must be above ${bound}, got ${bound}`);
    return number(bound, atMost)(value, name);
  };
}

function logitBias(value: unknown, name: string): Record<number, number> {
  const entries = Object.entries(plainObject(value, name));
  if (entries.length > MAX_LOGIT_BIASES) throw new CheckError(`${name} has ${entries.length} entries, more than ${MAX_LOGIT_BIASES}`);
  const wrong = entries.find(([id]) => !/^(0|[1-9]\d{0,9})$/.test(id));
  if (wrong !== undefined) throw new CheckError(`${name}: ${JSON.stringify(wrong[0])} is not a token id`);
  return Object.fromEntries(entries.map(([id, bias]) => [id, number(-100, 100)(bias, `${name}[${id}]`)]));
}

function logitProcessor(value: unknown, name: string): LogitProcessor {
  if (typeof value !== "function") throw new CheckError(`${name} must be a function, got ${typeof value}`);
  return value as LogitProcessor;
}
