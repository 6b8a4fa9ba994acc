import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { GenerateRequest, GenerateStep, LogitProcessor } from "../src/types.js";
import { END, toyEngine, ToyModel, toyTokenizer } from "./toy.js";

const never = new AbortController().signal;

async function generate(
  engine: ReturnType<typeof toyEngine>,
  request: GenerateRequest,
  signal = never,
): Promise<{ text: string; steps: GenerateStep[]; last: GenerateStep }> {
  const steps: GenerateStep[] = [];
  await engine.generate({ temperature: 0, ...request }, (step) => steps.push(step), signal);
  const last = steps.at(-1);
  assert.ok(last);
  return { text: steps.map((step) => step.text).join(""), steps, last };
}

describe("generation", () => {
  test("goes on to the model's end", async () => {
    const { text, last, steps } = await generate(toyEngine(new ToyModel("hello wörld")), { prompt: "hi\n" });
    assert.equal(text, "hello wörld");
    assert.equal(last.finishReason, "stop");
    assert.deepEqual(last.tokenIds, [END]);
    assert.deepEqual(last.usage, { promptTokens: 3, completionTokens: steps.length, cachedPromptTokens: 0 });
    assert.ok(steps.slice(0, -1).every((step) => step.finishReason === null && step.usage === null));
  });

  test("maxTokens, and an unfinished character at the end", async () => {
    const { text, last } = await generate(toyEngine(new ToyModel("xé")), { prompt: "\n", maxTokens: 2 });
    assert.equal(text, "x\ufffd");
    assert.equal(last.finishReason, "length");
    assert.equal(last.usage?.completionTokens, 2);
  });

  test("a stop text over several tokens ends it and never shows", async () => {
    const { text, last, steps } = await generate(toyEngine(new ToyModel("one. two. three.")), {
      prompt: "\n",
      stop: [" three", "wo. th"],
    });
    assert.equal(text, "one. t");
    assert.equal(last.finishReason, "stop");
    assert.ok(!steps.some((step) => step.text.includes("w")));
  });

  test("what was held for a stop text comes out at the end", async () => {
    const { text } = await generate(toyEngine(new ToyModel("abc")), { prompt: "\n", stop: "cd" });
    assert.equal(text, "abc");
  });

  test("ignoreEos goes on", async () => {
    const { text, last } = await generate(toyEngine(new ToyModel("ab")), { prompt: "\n", ignoreEos: true, maxTokens: 7 });
    assert.equal(text, "ababa");
    assert.equal(last.finishReason, "length");
  });

  test("log probabilities only when they are asked for", async () => {
    const engine = toyEngine(new ToyModel("ab"));
    const { steps } = await generate(engine, { prompt: "\n", logprobs: 1 });
    assert.equal(steps.length, 3);
    for (const { tokenIds, logprobs } of steps) {
      assert.ok(logprobs);
      assert.deepEqual(logprobs.map(({ tokenId, top }) => [tokenId, top.map((one) => one.tokenId)]), [[tokenIds[0], tokenIds]]);
      assert.ok(logprobs.every(({ logprob }) => Math.abs(logprob) < 1e-6));
    }
    assert.ok((await generate(engine, { prompt: "\n" })).steps.every((step) => step.logprobs === null));
  });

  test("bias and penalties change the answer, of which the prompt is no part but for repetitions", async () => {
    const id = (text: string): number => toyTokenizer.encode(text, { addSpecialTokens: false })[0] ?? -1;
    const engine = toyEngine(new ToyModel("ab"));
    const biased = await generate(engine, { prompt: "\n", maxTokens: 2, logitBias: { [id("a")]: -100, [id("z")]: 50 } });
    assert.equal(biased.text, "zb");
    const odd = await generate(engine, { prompt: "a\n", maxTokens: 2, repetitionPenalty: 2, presencePenalty: 2, logitBias: { [id("z")]: 60 } });
    assert.equal(odd.text, "zb");
  });

  test("fills the context window to the last token", async () => {
    const model = new ToyModel("abcdefgh", 6);
    const { text, last } = await generate(toyEngine(model), { prompt: "123\n", ignoreEos: true });
    assert.equal(text, "abc");
    assert.equal(last.finishReason, "length");
    assert.equal(model.cache.length, 6);
  });

  test("long prompts go in chunks", async () => {
    const model = new ToyModel("a");
    await generate(toyEngine(model), { prompt: `${"x".repeat(39)}\n` });
    assert.deepEqual(
      model.runs.slice(0, 3).map(({ tokens, position }) => [tokens.length, position]),
      [[16, 0], [16, 16], [8, 32]],
    );
  });
});

describe("what is in the cache is used again", () => {
  test("the common beginning of token ids, and never the whole prompt", async () => {
    const model = new ToyModel("hello");
    const engine = toyEngine(model);
    const first = await generate(engine, { prompt: "one\n" });
    assert.equal(first.text, "hello");
    const second = await generate(engine, { prompt: "one\nhellothere\n" });
    assert.equal(second.text, "hello");
    assert.equal(second.last.usage?.cachedPromptTokens, 5); // "one\n" and "hello", which is one token
    const third = await generate(engine, { prompt: "one\n" });
    assert.equal(third.text, "hello");
    assert.equal(third.last.usage?.cachedPromptTokens, 3);
    const fourth = await generate(engine, { prompt: "only\n" });
    assert.equal(fourth.text, "hello");
    assert.equal(fourth.last.usage?.cachedPromptTokens, 2);
  });

  test("of a recurrent model, only up to where a state is left", async () => {
    const model = new ToyModel("hello", 4096, true);
    const engine = toyEngine(model);
    const reused = async (prompt: string): Promise<number | undefined> => {
      const { text, last } = await generate(engine, { prompt });
      assert.equal(text, "hello");
      return last.usage?.cachedPromptTokens;
    };
    assert.equal(await reused("seven67\n"), 0);
    assert.equal(await reused("seven67\nhello\n"), 9, "the end of the answer, before a step too many");
    assert.equal(await reused("seven67\nhello\n"), 8, "the end of a page");
    assert.equal(await reused("seven\n"), 0);
  });

  test("forward does not use it, and gives a copy", async () => {
    const model = new ToyModel("a");
    const engine = toyEngine(model);
    const ids = engine.tokenizer.encode("xyz\n", { addSpecialTokens: false });
    const first = await engine.forward(ids, never);
    const again = await engine.forward(ids, never);
    assert.deepEqual(first, again);
    assert.notEqual(first, again);
    assert.deepEqual(model.runs.map((run) => run.position), [0, 0]);
    assert.equal(first.indexOf(100), toyTokenizer.encode("a", { addSpecialTokens: false })[0]);
  });
});

describe("bad requests", () => {
  const engine = toyEngine(new ToyModel("a", 20));
  const cases: [GenerateRequest, string, RegExp][] = [
    [{}, "request_invalid", /one of prompt and promptIds/],
    [{ prompt: "a", promptIds: [1] }, "request_invalid", /one of prompt and promptIds/],
    [{ promptIds: [] }, "request_invalid", /no tokens/],
    [{ promptIds: [1, 100_000] }, "request_invalid", /100000 is not in the vocabulary/],
    [{ prompt: "a", topK: 1.5 }, "request_invalid", /topK must be a whole number/],
    [{ prompt: "a", repetitionPenalty: 0 }, "request_invalid", /repetitionPenalty must be above 0, got 0/],
    [{ prompt: "a", topP: 0 }, "request_invalid", /topP must be above 0, got 0/],
    [{ prompt: "a", logitBias: { 1.5: 1 } }, "request_invalid", /"1.5" is not a token id/],
    [{ prompt: "a", logitBias: Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, 0])) }, "request_invalid", /1025 entries/],
    [{ prompt: "a", logitBias: { 100_000: 1 } }, "request_invalid", /100000 is not in the vocabulary/],
    [{ prompt: "a", logprobs: 21 }, "request_invalid", /logprobs must be a whole number from 0 to 20/],
    [{ prompt: "a", logitProcessor: 1 as unknown as LogitProcessor }, "request_invalid", /logitProcessor must be a function, got number/],
    [{ prompt: "a", temperature: -1 }, "request_invalid", /temperature must be a number from 0 to 2, got -1/],
    [{ prompt: "a", topP: 0 }, "request_invalid", /topP/],
    [{ prompt: "a", maxTokens: 0 }, "request_invalid", /maxTokens/],
    [{ prompt: "a", seed: 1.5 }, "request_invalid", /seed/],
    [{ prompt: "a", stop: "" }, "request_invalid", /stop/],
    [{ prompt: "a", stop: ["x", ""] }, "request_invalid", /stop\[1\]/],
    [{ prompt: "a", top_k: 4 } as GenerateRequest, "request_invalid", /unknown fields: top_k/],
    [{ prompt: "x".repeat(21) }, "context_overflow", /21 tokens.*has 20/],
  ];
  for (const [request, code, message] of cases) {
    test(message.source, async () => {
      await assert.rejects(generate(engine, request), { code, message });
    });
  }
});

describe("several requests", () => {
  test("run one after the other, in order, also when they fail", async () => {
    const model = new ToyModel("hello");
    const engine = toyEngine(model);
    const order: string[] = [];
    model.failure = new Error("the kernel broke");
    const results = await Promise.allSettled(
      ["a\n", "b\n", "c\n"].map(async (prompt) => {
        const { text } = await generate(engine, { prompt }).finally(() => order.push(prompt));
        return text;
      }),
    );
    assert.deepEqual(order, ["a\n", "b\n", "c\n"]);
    assert.deepEqual(results.map((result) => result.status), ["rejected", "fulfilled", "fulfilled"]);
    assert.deepEqual(results.slice(1).map((result) => (result as { value: string }).value), ["hello", "hello"]);
  });

  test("aborting one that runs and one that waits", async () => {
    const model = new ToyModel("hello");
    const engine = toyEngine(model);
    const [running, waiting] = [new AbortController(), new AbortController()];
    const endless = { prompt: "a\n", ignoreEos: true, maxTokens: 4000 };
    const first = engine.generate(endless, () => { running.abort(); }, running.signal);
    const second = generate(engine, endless, waiting.signal);
    const third = generate(engine, { prompt: "c\n" });
    waiting.abort();
    await assert.rejects(second, { code: "aborted" });
    await assert.rejects(first, { code: "aborted" });
    assert.equal((await third).text, "hello");
  });

  test("an abort between chunks of a long prompt stops there and keeps what is done", async () => {
    const model = new ToyModel("hello");
    const engine = toyEngine(model);
    const controller = new AbortController();
    const prompt = `${"x".repeat(100)}\n`;
    const request = generate(engine, { prompt }, controller.signal);
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    await assert.rejects(request, { code: "aborted" });
    assert.ok(model.cache.length < 100);
    const done = model.cache.length;
    const { text, last } = await generate(engine, { prompt });
    assert.equal(text, "hello");
    assert.equal(last.usage?.cachedPromptTokens, done);
  });

  test("closing rejects what waits and what comes", async () => {
    const model = new ToyModel("hello");
    const engine = toyEngine(model);
    const first = generate(engine, { prompt: "a\n" });
    const second = generate(engine, { prompt: "b\n" });
    engine.close();
    assert.ok(model.isDestroyed);
    await assert.rejects(second, { code: "engine_closed" });
    await assert.rejects(generate(engine, { prompt: "c\n" }), { code: "engine_closed" });
    await first;
  });
});

test("statistics of the last request", async () => {
  const engine = toyEngine(new ToyModel("abc"));
  await generate(engine, { prompt: "x\n" });
  const stats = engine.stats();
  assert.equal(stats.dispatchesPerToken, 3);
  assert.equal(stats.submitsPerToken, 1);
  assert.equal(stats.promptTokens, 2);
  assert.equal(stats.completionTokens, 4);
  assert.equal(stats.contextUsed, 6); // The end, too: the device went on from it before the host saw it.
  assert.equal(stats.discardedTokens, 1);
  assert.ok(stats.prefillTokensPerSecond > 0 && stats.decodeTokensPerSecond > 0 && stats.timeToFirstTokenMs > 0);
});
