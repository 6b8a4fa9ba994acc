/**
 * From logits to a token. The algorithm is that of `webcompile/engine/sampler.py`, which documents it: the same float64
 * arithmetic in the same order, so that equal logits, parameters and seed give equal tokens.
 */

import { WebcompileError } from "./errors.js";
import { uniform } from "./random.js";
import type { SamplingParams } from "./sampling.js";
import type { TokenLogprob, TokenLogprobs } from "./types.js";

/** Colder than this only overflows: all probability is on the best token. */
const GREEDY_BELOW = 1e-6;
/** Candidates are drawn lane by lane: token i is in lane i mod 256. */
const LANES = 256;
const ROUNDS = 32;
/** Log probability of what is impossible, and the least there is: JSON has no infinity. */
const LOWEST_LOGPROB = -9999;

/** Chooses the tokens of one request. */
export class Sampler {
  readonly #params: SamplingParams;
  readonly #biases: readonly (readonly [id: number, bias: number])[];
  /** How often each token was generated; tokens of the prompt are there from the start. */
  readonly #counts: Map<number, number>;
  readonly #scores: Float64Array;
  readonly #weights: Float64Array;
  /** Mass of the candidates in each lane. */
  readonly #lanes = new Float64Array(LANES);
  /** The token drawn last, and its score. At first one that is lighter than all. */
  #pivot = Infinity;
  #pivotScore = -Infinity;
  #step = 0;

  constructor(params: SamplingParams, vocabSize: number, promptIds: readonly number[]) {
    this.#params = params;
    this.#biases = Object.entries(params.logitBias).map(([id, bias]) => [Number(id), bias]);
    this.#counts = new Map(promptIds.map((id) => [id, 0]));
    this.#scores = new Float64Array(vocabSize);
    this.#weights = new Float64Array(vocabSize);
  }

  /** The token that follows. Leaves the logits as they are. */
  sample(logits: Float32Array): number {
    const token = this.#choose(logits);
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
    this.#step++;
    return token;
  }

  #choose(logits: Float32Array): number {
    const { temperature, topP, topK, minP, seed } = this.#params;
    this.#score(logits);
    const best = argmax(this.#scores);
    if (temperature < GREEDY_BELOW || topK === 1) return best;
    this.#weigh(this.#scores[best] ?? NaN, temperature);
    [this.#pivot, this.#pivotScore] = [Infinity, -Infinity];
    this.#gather();
    const total = this.#mass();
    for (let round = 0, mass = total; round < ROUNDS; round++) {
      const token = this.#draw(uniform(seed, this.#step, round) * mass);
      [this.#pivot, this.#pivotScore] = [token, this.#scores[token] ?? NaN];
      const heavier = this.#gather();
      mass = this.#mass();
      if (mass < topP * total && (topK === 0 || heavier < topK) && (this.#weights[token] ?? 0) >= minP) return token;
    }
    return best;
  }

  /** Scores: the logits with penalties and bias. */
  #score(logits: Float32Array): void {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.#params;
    const scores = this.#scores;
    scores.set(logits);
    if (repetitionPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0) {
      for (const [id, count] of this.#counts) {
        const logit = scores[id] ?? NaN;
        const score = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
        scores[id] = score - (frequencyPenalty * count + (count > 0 ? presencePenalty : 0));
      }
    }
    for (const [id, bias] of this.#biases) scores[id] = (scores[id] ?? NaN) + bias;
  }

  /** Weights: exp((score - best) / temperature), 1 for the best. */
  #weigh(best: number, temperature: number): void {
    const [scores, weights] = [this.#scores, this.#weights];
    for (let i = 0; i < scores.length; i++) weights[i] = Math.exp(((scores[i] ?? NaN) - best) / temperature);
  }

  /** Candidates are the tokens heavier than the pivot. */
  #isCandidate(token: number): boolean {
    const score = this.#scores[token] ?? NaN;
    return score > this.#pivotScore || (score === this.#pivotScore && token < this.#pivot);
  }

  /** Adds up the weights of the candidates by lane; how many candidates there are. */
  #gather(): number {
    const [weights, lanes] = [this.#weights, this.#lanes];
    let count = 0;
    lanes.fill(0);
    for (let i = 0; i < weights.length; i++) {
      if (!this.#isCandidate(i)) continue;
      lanes[i % LANES] = (lanes[i % LANES] ?? 0) + (weights[i] ?? 0);
      count++;
    }
    return count;
  }

  /** Of all candidates, as `#gather` found them. */
  #mass(): number {
    return this.#lanes.reduce((sum, mass) => sum + mass, 0);
  }

  /** The first candidate at which the running sum exceeds the threshold, else the last of the lane where it should have. */
  #draw(threshold: number): number {
    let [lane, sum, end] = [0, 0, 0];
    for (let i = 0; i < LANES && end <= threshold; i++) {
      const mass = this.#lanes[i] ?? 0;
      if (mass > 0) [lane, sum, end] = [i, end, end + mass];
    }
    let drawn = -1;
    for (let i = lane; i < this.#weights.length && (drawn < 0 || sum <= threshold); i += LANES) {
      const weight = this.#weights[i] ?? 0;
      if (weight === 0 || !this.#isCandidate(i)) continue;
      drawn = i;
      sum += weight;
    }
    return drawn;
  }
}

/** The index of the largest score, the lowest of equal ones. */
export function argmax(scores: Float32Array | Float64Array): number {
  let best = 0;
  let bestScore = -Infinity;
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i] ?? NaN;
    if (score <= bestScore) continue;
    if (Number.isNaN(score)) checkFinite(score);
    best = i;
    bestScore = score;
  }
  checkFinite(bestScore);
  return best;
}

/** Log probabilities, by the model alone, of a token and of the `count` most likely ones. */
export function logprobsOf(logits: Float32Array, token: number, count: number): TokenLogprobs {
  const largest = logits[argmax(logits)] ?? NaN;
  const top: number[] = [];
  let sum = 0;
  let least = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i] ?? NaN;
    sum += Math.exp(logit - largest);
    if (top.length === count && logit <= least) continue;
    if (count === 0) continue;
    let place = top.length;
    while (place > 0 && (logits[top[place - 1] ?? 0] ?? NaN) < logit) place--;
    top.splice(place, 0, i);
    top.length = Math.min(top.length, count);
    least = logits[top.at(-1) ?? 0] ?? NaN;
  }
  const total = largest + Math.log(sum);
  const of = (id: number): TokenLogprob => ({ tokenId: id, logprob: Math.max((logits[id] ?? NaN) - total, LOWEST_LOGPROB) });
  return { ...of(token), top: top.map(of) };
}

function checkFinite(value: number): void {
  if (!Number.isFinite(value)) throw notFinite();
}

/** The error of a model from whose logits nothing can be chosen. */
export function notFinite(): WebcompileError {
  return new WebcompileError(
    "internal",
    "the model's logits are not finite",
    "The kernels give wrong results on this device; update the browser or the graphics driver.",
  );
}
