/**
 * From logits to a token. The Python engine has the same arithmetic in the same order, so that equal logits, parameters
 * and seed give equal tokens: see `sample` for what is fixed and what is only speed.
 */

import { WebcompileError } from "./errors.js";
import { uniform } from "./random.js";

/** How to choose. */
export interface SamplingParams {
  /** 0 takes the most likely token. */
  readonly temperature: number;
  /** Above 0 up to 1. */
  readonly topP: number;
  /** An integer. */
  readonly seed: number;
}

/** Colder than this only overflows: all probability is on the best token. */
const GREEDY_BELOW = 1e-6;

/** Tiers of probability relative to the largest (which is 1), so that most steps sort only a few candidates. */
const TIERS = [2 ** -3, 2 ** -6, 2 ** -10, 2 ** -16, 2 ** -24, 2 ** -40, 0];

/** Chooses the tokens of one request; step i uses the i-th random number of its seed. */
export class Sampler {
  readonly #params: SamplingParams;
  #step = 0;
  #weights = new Float64Array(0);

  constructor(params: SamplingParams) {
    this.#params = params;
  }

  /** The token that follows. */
  sample(logits: Float32Array): number {
    const step = this.#step++;
    const { temperature, topP, seed } = this.#params;
    if (temperature < GREEDY_BELOW) return argmax(logits);
    if (this.#weights.length !== logits.length) this.#weights = new Float64Array(logits.length);
    const total = softmaxWeights(logits, temperature, this.#weights);
    return choose(this.#weights, total, topP, uniform(seed, step));
  }
}

/** The index of the largest logit, the lowest of equal ones. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  let bestLogit = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i] ?? NaN;
    if (logit > bestLogit) {
      best = i;
      bestLogit = logit;
    } else if (Number.isNaN(logit)) {
      checkFinite(logit);
    }
  }
  checkFinite(bestLogit);
  return best;
}

/** exp(logit / temperature - maximum) in float64; returns their sum in index order. The largest weight is exactly 1. */
function softmaxWeights(logits: Float32Array, temperature: number, weights: Float64Array): number {
  let maximum = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const scaled = (logits[i] ?? NaN) / temperature;
    weights[i] = scaled;
    if (scaled > maximum) maximum = scaled;
  }
  checkFinite(maximum);
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    const weight = Math.exp((weights[i] ?? NaN) - maximum);
    weights[i] = weight;
    total += weight;
  }
  checkFinite(total);
  return total;
}

/**
 * Candidates are ordered by weight, then by id. The smallest prefix whose running sum reaches `topP * total` is kept, and
 * the first candidate whose running sum exceeds `u` times the prefix's sum is chosen.
 *
 * With topP = 1 the prefix is nearly everything and its exact sum would need a full sort. It differs from `total` by
 * rounding only, so the choice is made on bounds of it, and the sort is done only when the bounds do not decide.
 */
export function choose(weights: Float64Array, total: number, topP: number, u: number): number {
  if (topP === 1) {
    const slack = 4 * weights.length * Number.EPSILON;
    const chosen = firstAbove(weights, u * total * (1 + slack), u * total * (1 - slack));
    if (chosen !== undefined) return chosen;
  }
  const kept: number[] = [];
  const sums: number[] = [];
  let sum = 0;
  for (const id of ranked(weights)) {
    sum += weights[id] ?? 0;
    kept.push(id);
    sums.push(sum);
    if (sum >= topP * total) break;
  }
  const threshold = u * sum;
  const index = sums.findIndex((value) => value > threshold);
  return kept[index] ?? kept.at(-1) ?? 0;
}

/** The first candidate whose running sum exceeds `upper`, if the one before it does not exceed `lower`. */
function firstAbove(weights: Float64Array, upper: number, lower: number): number | undefined {
  let sum = 0;
  for (const id of ranked(weights)) {
    const before = sum;
    sum += weights[id] ?? 0;
    if (sum > upper) return before <= lower ? id : undefined;
  }
  return undefined;
}

/** Ids by weight from large to small, then by id; sorted tier by tier as they are asked for. */
function* ranked(weights: Float64Array): Generator<number, void> {
  let above = Infinity;
  for (const atLeast of TIERS) {
    const tier: number[] = [];
    for (let id = 0; id < weights.length; id++) {
      const weight = weights[id] ?? 0;
      if (weight >= atLeast && weight < above) tier.push(id);
    }
    yield* tier.sort((a, b) => (weights[b] ?? 0) - (weights[a] ?? 0) || a - b);
    above = atLeast;
  }
}

function checkFinite(value: number): void {
  if (Number.isFinite(value)) return;
  throw new WebcompileError(
    "internal",
    `the model's logits are not finite (${value})`,
    "The kernels give wrong results on this device; update the browser or the graphics driver.",
  );
}
