import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { DeviceDecoding } from "../src/decoding.js";
import { Pace } from "../src/pace.js";
import type { Choice } from "../src/sampling.js";
import type { GenerateRequest } from "../src/types.js";
import { END, toyEngine, ToyModel, toyTokenizer } from "./toy.js";

const never = new AbortController().signal;
const idOf = (text: string): number => toyTokenizer.encode(text, { addSpecialTokens: false })[0] ?? -1;

async function answer(engine: ReturnType<typeof toyEngine>, request: GenerateRequest): Promise<number[]> {
  const tokens: number[] = [];
  await engine.generate({ temperature: 0, ...request }, (step) => tokens.push(...step.tokenIds), never);
  return tokens;
}

/** A model whose steps end when the test says so. */
class Steps {
  readonly ends: ((choice: Choice) => void)[] = [];
  readonly decodeAndSample = (): Promise<Choice> => new Promise((resolve) => this.ends.push(resolve));
}

const choice = (token: number): Choice => ({ token, logprobs: null });

describe("decoding on the device", () => {
  test("is one step ahead of the token that is read", async () => {
    const model = new Steps();
    const decoding = new DeviceDecoding(model, Promise.resolve(choice(7)), 10);
    assert.equal((await decoding.next()).token, 7);
    assert.equal(model.ends.length, 1);
    const second = decoding.next();
    assert.equal(model.ends.length, 2);
    model.ends[0]?.(choice(8));
    assert.equal((await second).token, 8);
    const end = decoding.end();
    model.ends[1]?.(choice(9));
    assert.equal(await end, 2);
  });

  test("makes no step after the last token", async () => {
    const model = new Steps();
    const decoding = new DeviceDecoding(model, Promise.resolve(choice(7)), 2);
    await decoding.next();
    const last = decoding.next();
    assert.equal(model.ends.length, 1);
    model.ends[0]?.(choice(8));
    await last;
    assert.equal(await decoding.end(), 1);
    await assert.rejects(decoding.next(), RangeError);
  });

  test("a failed step fails its token, not those before it", async () => {
    const failing = { decodeAndSample: () => Promise.reject(new Error("lost")) };
    const decoding = new DeviceDecoding(failing, Promise.resolve(choice(7)), 5);
    assert.equal((await decoding.next()).token, 7);
    await assert.rejects(decoding.next(), /lost/);
    await decoding.end();
  });

  test("what an answer went too far is not in the next one", async () => {
    const model = new ToyModel("abc");
    const engine = toyEngine(model);
    assert.deepEqual(await answer(engine, { prompt: "x\n" }), [idOf("a"), idOf("b"), idOf("c"), END]);
    assert.equal(engine.stats().discardedTokens, 1);
    assert.deepEqual(await answer(engine, { prompt: "x\nab", stop: "c" }), [idOf("c")]);
    assert.equal(engine.stats().cachedPromptTokens, 3);
    assert.deepEqual(await answer(engine, { prompt: "x\n", maxTokens: 2 }), [idOf("a"), idOf("b")]);
    assert.equal(engine.stats().discardedTokens, 0);
  });
});

describe("decoding on the host", () => {
  test("a logit processor sees the tokens so far and has the last word", async () => {
    const engine = toyEngine(new ToyModel("abc"));
    const seen: number[][] = [];
    const logitProcessor = (logits: Float32Array, tokenIds: readonly number[]): void => {
      seen.push([...tokenIds]);
      if (tokenIds.length === 3) logits[idOf("z")] = 1000;
    };
    const promptIds = [idOf("x"), idOf("\n")];
    const tokens = await answer(engine, { promptIds, logitProcessor, maxTokens: 3 });
    assert.deepEqual(tokens, [idOf("a"), idOf("z"), idOf("c")]);
    assert.deepEqual(seen, [promptIds, [...promptIds, idOf("a")], [...promptIds, idOf("a"), idOf("z")]]);
    const { hostTokens, hostReason, contextUsed, discardedTokens } = engine.stats();
    assert.deepEqual([hostTokens, hostReason, contextUsed, discardedTokens], [3, "logitProcessor", 4, 0]);
  });

  test("chooses as the device does, and only when it must", async () => {
    const engine = toyEngine(new ToyModel("abc"));
    const request = { prompt: "x\n", temperature: 1.5, seed: 4, maxTokens: 6, ignoreEos: true, logprobs: 2 };
    const onDevice = await answer(engine, request);
    assert.deepEqual([engine.stats().hostTokens, engine.stats().hostReason], [0, ""]);
    assert.deepEqual(await answer(engine, { ...request, logitProcessor: () => undefined }), onDevice);
  });
});

describe("the pace of prefill", () => {
  test("starts low on a CPU and follows what chunks take", () => {
    const pace = new Pace(512, true);
    assert.equal(pace.tokens, 32);
    pace.took(32, 100);
    assert.equal(pace.tokens, 64, "doubles at most");
    pace.took(64, 2000);
    assert.equal(pace.tokens, 32);
    pace.took(9, 1);
    assert.equal(pace.tokens, 32, "short chunks say nothing");
    pace.took(32, 60_000);
    assert.equal(pace.tokens, 8, "never below what kernels do at a time");
  });

  test("goes all at once where that is fast", () => {
    const pace = new Pace(512, false);
    assert.equal(pace.tokens, 512);
    pace.took(512, 200);
    assert.equal(pace.tokens, 512);
  });
});
