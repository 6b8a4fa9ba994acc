import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { philox4x32, uniform } from "../src/random.js";
import { argmax, logprobsOf, Sampler } from "../src/sampler.js";
import { samplingParams, type SamplingParams } from "../src/sampling.js";
import type { GenerateRequest } from "../src/types.js";

const hex = (words: readonly number[]): string => words.map((word) => word.toString(16).padStart(8, "0")).join(" ");

describe("Philox4x32-10", () => {
  // Random123's kat_vectors.
  test("zero counter and key", () => {
    assert.equal(hex(philox4x32([0, 0, 0, 0], [0, 0])), "6627e8d5 e169c58d bc57ac4c 9b00dbd8");
  });
  test("all ones", () => {
    const ones = 0xffffffff;
    assert.equal(hex(philox4x32([ones, ones, ones, ones], [ones, ones])), "408f276d 41c83b0e a20bc7c6 6d5451fd");
  });
  test("digits of pi", () => {
    const counter = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344] as const;
    assert.equal(hex(philox4x32(counter, [0xa4093822, 0x299f31d0])), "d16cfe09 94fdcceb 5001e420 24126ea1");
  });
  test("seeds beyond 32 bits and below zero use both key words", () => {
    assert.equal(uniform(2 ** 32 + 5, 3), (philox4x32([3, 0, 0, 0], [5, 1])[0] + 0.5) / 2 ** 32);
    assert.equal(uniform(-1, 0), (philox4x32([0, 0, 0, 0], [0xffffffff, 0xffffffff])[0] + 0.5) / 2 ** 32);
  });
});

interface Vector {
  readonly size: number;
  readonly spread: number;
  readonly grain: number;
  readonly prompt: readonly number[];
  readonly request: GenerateRequest;
  readonly tokens: readonly number[];
  readonly logprobs?: { token_id: number; logprob: number; top: { token_id: number; logprob: number }[] };
}

const params = (request: GenerateRequest, vocabSize = 1e6): SamplingParams => samplingParams({ seed: 1, ...request }, vocabSize);

/** The shares of tokens that may be chosen, by the definition of what is kept and with a sort. */
function shares(scores: readonly number[], { temperature, topP, topK, minP }: SamplingParams): number[] {
  const best = Math.max(...scores);
  const weights = scores.map((score) => Math.exp((score - best) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const order = scores.map((_, id) => id).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
  const kept = new Set<number>();
  let heavier = 0;
  for (const [rank, id] of order.entries()) {
    const weight = weights[id] ?? 0;
    if (heavier < topP * total && (topK === 0 || rank < topK) && weight >= minP) kept.add(id);
    heavier += weight;
  }
  const mass = [...kept].reduce((sum, id) => sum + (weights[id] ?? 0), 0);
  return weights.map((weight, id) => (kept.has(id) ? weight / mass : 0));
}

describe("sampler", () => {
  test("chooses what the Python engine chooses", async () => {
    const file = new URL("./sampler-vectors.json", import.meta.url);
    const { cases } = JSON.parse(await readFile(file, "utf8")) as { cases: Vector[] };
    assert.ok(cases.length > 20);
    for (const { size, spread, grain, prompt, request, tokens, logprobs } of cases) {
      const logits = Float32Array.from({ length: size }, (_, i) => {
        const value = (uniform(9, i) - 0.5) * spread;
        return grain === 0 ? value : Math.floor(value / grain) * grain;
      });
      const sampler = new Sampler(samplingParams(request, size), size, prompt);
      assert.deepEqual(tokens.map(() => sampler.sample(logits)), tokens, `${size} ${spread} ${JSON.stringify(request)}`);
      if (logprobs === undefined) continue;
      const found = logprobsOf(logits, logprobs.token_id, request.logprobs ?? 0);
      assert.deepEqual(found.top.map((one) => one.tokenId), logprobs.top.map((one) => one.token_id));
      for (const [i, one] of [found, ...found.top].entries()) {
        assert.ok(Math.abs(one.logprob - ([logprobs, ...logprobs.top][i]?.logprob ?? NaN)) < 1e-12);
      }
    }
  });

  // Kept tokens come up as often as their weights say, others never: chi-square below its 1 in 10,000 bound, for fixed seeds.
  for (const size of [7, 300]) {
    for (const filter of [{}, { topP: 0.6 }, { topK: 5 }, { minP: 0.3 }, { topP: 0.9, topK: 6, minP: 0.05, temperature: 1.6 }]) {
      test(`frequencies of ${size} tokens with ${JSON.stringify(filter)}`, () => {
        const given = params({ seed: 12, ...filter });
        const logits = Float32Array.from({ length: size }, (_, i) => 3 * Math.sin(i * i));
        const expected = shares([...logits], given);
        const counts = new Float64Array(size);
        const draws = 6000;
        const sampler = new Sampler(given, size, []);
        for (let i = 0; i < draws; i++) {
          const token = sampler.sample(logits);
          counts[token] = (counts[token] ?? 0) + 1;
        }
        let [square, freedom] = [0, -1];
        for (const [id, share] of expected.entries()) {
          const count = counts[id] ?? 0;
          if (share === 0) {
            assert.equal(count, 0, `token ${id} is not kept`);
          } else {
            square += (count - share * draws) ** 2 / (share * draws);
            freedom++;
          }
        }
        assert.ok(square < freedom + 3.72 * Math.sqrt(2 * freedom) + 8, `chi-square ${square} for ${freedom} degrees of freedom`);
      });
    }
  }

  test("temperature 0 or top_k 1 take the largest logit, the lowest id of equal ones", () => {
    for (const request of [{ temperature: 0 }, { topK: 1 }]) {
      assert.equal(new Sampler(params(request), 4, []).sample(Float32Array.of(1, 3, 3, 2)), 1);
    }
    assert.equal(argmax(Float32Array.of(-Infinity, -5, -Infinity)), 1);
  });

  test("a tiny top_p and a min_p of 1 keep one token, a large top_k all of them", () => {
    const logits = Float32Array.from({ length: 600 }, (_, i) => Math.cos(i));
    const draw = (request: GenerateRequest): number[] => {
      const sampler = new Sampler(params(request), logits.length, []);
      return Array.from({ length: 100 }, () => sampler.sample(logits));
    };
    assert.deepEqual(new Set(draw({ topP: 1e-9 })), new Set([0]));
    assert.deepEqual(new Set(draw({ minP: 1 })), new Set([0]));
    assert.deepEqual(draw({ topK: 10_000 }), draw({}));
    assert.ok(new Set(draw({ topK: 10_000 })).size > 50);
  });

  test("of equal logits the lowest ids are kept", () => {
    const logits = new Float32Array(1000);
    for (const [request, kept] of [[{ topK: 3 }, 3], [{ topP: 0.004 }, 4]] as const) {
      const sampler = new Sampler(params(request), logits.length, []);
      const tokens = new Set(Array.from({ length: 200 }, () => sampler.sample(logits)));
      assert.deepEqual([...tokens].sort((a, b) => a - b), Array.from({ length: kept }, (_, i) => i));
    }
  });

  test("penalties move the choice, by prompt and by count", () => {
    const logits = Float32Array.of(1, 2, 2.1, -1);
    const greedy = (request: GenerateRequest, prompt: number[] = []): number[] => {
      const sampler = new Sampler(params({ temperature: 0, ...request }), 4, prompt);
      return Array.from({ length: 4 }, () => sampler.sample(logits));
    };
    assert.deepEqual(greedy({}), [2, 2, 2, 2]);
    assert.deepEqual(greedy({ repetitionPenalty: 1.5 }, [2]), [1, 2, 2, 2]); // 2, then 1.33 against 1.4.
    assert.deepEqual(greedy({ presencePenalty: 0.5 }, [2]), [2, 1, 2, 2]); // The prompt does not count.
    assert.deepEqual(greedy({ frequencyPenalty: 0.4 }), [2, 1, 2, 1]);
    assert.deepEqual(greedy({ frequencyPenalty: -1, presencePenalty: -1 }, [1]), [2, 2, 2, 2]);
  });

  test("a penalty pushes down what is below zero, too", () => {
    const sampler = new Sampler(params({ temperature: 0, repetitionPenalty: 2 }), 2, [0]);
    assert.equal(sampler.sample(Float32Array.of(-1, -1.5)), 1);
  });

  test("a bias of 100 forces a token, -100 forbids it", () => {
    const logits = Float32Array.from({ length: 300 }, (_, i) => Math.sin(i));
    const forced = new Sampler(params({ logitBias: { 290: 100 } }), 300, []);
    const forbidden = new Sampler(params({ logitBias: Object.fromEntries(Array.from({ length: 299 }, (_, i) => [i, -100])) }), 300, []);
    for (let i = 0; i < 50; i++) assert.deepEqual([forced.sample(logits), forbidden.sample(logits)], [290, 299]);
  });

  test("the same seed gives the same tokens", () => {
    const logits = Float32Array.from({ length: 500 }, (_, i) => Math.sin(i) * 3);
    const run = (seed: number): number[] => {
      const sampler = new Sampler(params({ topP: 0.95, seed }), 500, []);
      return Array.from({ length: 20 }, () => sampler.sample(logits));
    };
    assert.deepEqual(run(5), run(5));
    assert.notDeepEqual(run(5), run(6));
  });

  test("logits that are no numbers are an error, not a token", () => {
    for (const temperature of [0, 1]) {
      for (const bad of [[1, NaN, 2], [1, Infinity, 2], [-Infinity, -Infinity, -Infinity]]) {
        const sampler = new Sampler(params({ temperature }), 3, []);
        assert.throws(() => sampler.sample(Float32Array.from(bad)), { code: "internal", message: /not finite/ });
      }
    }
  });
});

describe("log probabilities", () => {
  test("of the token and of the most likely, equal ones by id", () => {
    const logits = Float32Array.from([1, 2, 2, 0, 2], Math.log);
    const { tokenId, logprob, top } = logprobsOf(logits, 0, 3);
    assert.equal(tokenId, 0);
    assert.ok(Math.abs(logprob - Math.log(1 / 7)) < 1e-7);
    assert.deepEqual(top.map((one) => one.tokenId), [1, 2, 4]);
    assert.ok(top.every((one) => Math.abs(one.logprob - Math.log(2 / 7)) < 1e-7));
    assert.deepEqual(logprobsOf(logits, 1, 0).top, []);
  });

  test("more than there are tokens, and what is impossible", () => {
    const { top } = logprobsOf(Float32Array.of(-Infinity, 0), 1, 20);
    assert.deepEqual(top, [{ tokenId: 1, logprob: 0 }, { tokenId: 0, logprob: -9999 }]);
  });
});
