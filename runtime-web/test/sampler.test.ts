import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { philox4x32, uniform } from "../src/random.js";
import { argmax, choose, Sampler } from "../src/sampler.js";

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
  readonly temperature: number;
  readonly top_p: number;
  readonly seed: number;
  readonly tokens: readonly number[];
}

/** The definition, without any of the short cuts. */
function plainChoice(logits: Float32Array, temperature: number, topP: number, u: number): number {
  const scaled = Array.from(logits, (logit) => logit / temperature);
  const maximum = Math.max(...scaled);
  const weights = scaled.map((value) => Math.exp(value - maximum));
  let total = 0;
  for (const weight of weights) total += weight;
  const order = weights.map((_, id) => id).sort((a, b) => (weights[b] ?? 0) - (weights[a] ?? 0) || a - b);
  const sums: number[] = [];
  let sum = 0;
  for (const id of order) {
    sums.push((sum += weights[id] ?? 0));
    if (sum >= topP * total) break;
  }
  return order[sums.findIndex((value) => value > u * sum)] ?? -1;
}

describe("sampler", () => {
  test("temperature 0 takes the largest logit, the lowest id of equal ones", () => {
    const sampler = new Sampler({ temperature: 0, topP: 1, seed: 1 });
    assert.equal(sampler.sample(Float32Array.of(1, 3, 3, 2)), 1);
    assert.equal(argmax(Float32Array.of(-Infinity, -5, -Infinity)), 1);
  });

  test("equals its definition for all kinds of distributions", () => {
    const size = 3000;
    for (const spread of [0.01, 1, 5, 30]) {
      const logits = Float32Array.from({ length: size }, (_, i) => spread * Math.log(uniform(7, i)) * Math.cos(i));
      for (const temperature of [0.3, 1, 1.7]) {
        for (const topP of [0.1, 0.9, 0.999, 1]) {
          const sampler = new Sampler({ temperature, topP, seed: 42 });
          for (let step = 0; step < 8; step++) {
            const expected = plainChoice(logits, temperature, topP, uniform(42, step));
            assert.equal(sampler.sample(logits), expected, `${spread} ${temperature} ${topP} ${step}`);
          }
        }
      }
    }
  });

  test("chooses what the Python engine chooses", async () => {
    const file = new URL("./sampler-vectors.json", import.meta.url);
    const { cases } = JSON.parse(await readFile(file, "utf8")) as { cases: Vector[] };
    for (const { size, spread, temperature, top_p: topP, seed, tokens } of cases) {
      const logits = Float32Array.from({ length: size }, (_, i) => (uniform(9, i) - 0.5) * spread);
      const sampler = new Sampler({ temperature, topP, seed });
      assert.deepEqual(tokens.map(() => sampler.sample(logits)), tokens, `${size} ${temperature} ${topP}`);
    }
  });

  test("ties and exact bounds of the running sum", () => {
    const weights = Float64Array.of(1, 1, 1, 1);
    assert.equal(choose(weights, 4, 1, 0.25), 1); // The sum must exceed the threshold, not only reach it.
    assert.equal(choose(weights, 4, 0.5, 0.999), 1);
    assert.equal(choose(weights, 4, 0.5, 0.001), 0);
    assert.equal(choose(weights, 4, 1e-9, 0.999), 0);
  });

  test("the same seed gives the same tokens", () => {
    const logits = Float32Array.from({ length: 500 }, (_, i) => Math.sin(i) * 3);
    const run = (seed: number): number[] => {
      const sampler = new Sampler({ temperature: 1, topP: 0.95, seed });
      return Array.from({ length: 20 }, () => sampler.sample(logits));
    };
    assert.deepEqual(run(5), run(5));
    assert.notDeepEqual(run(5), run(6));
  });

  test("logits that are no numbers are an error, not a token", () => {
    for (const temperature of [0, 1]) {
      const sampler = new Sampler({ temperature, topP: 1, seed: 0 });
      assert.throws(() => sampler.sample(Float32Array.of(1, NaN, 2)), { code: "internal", message: /not finite/ });
    }
  });
});
