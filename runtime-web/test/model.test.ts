/**
 * The whole engine in Node on Dawn with a real artifact. Set WEBCOMPILE_ARTIFACT to an artifact folder; WEBCOMPILE_RUNTIME
 * to a runtime.wasm if it is not in webcompile/assets.
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, mock, test } from "node:test";
import { pathToFileURL } from "node:url";
import { Gpu } from "../src/gpu.js";
import { createEngine } from "../src/index.js";
import type { Engine, LoadProgress } from "../src/types.js";
import { dawn, skipWithoutGpu } from "./dawn.js";
import { fetchFile } from "./files.js";

const folder = process.env["WEBCOMPILE_ARTIFACT"] ?? "";
const runtime = process.env["WEBCOMPILE_RUNTIME"] ?? new URL("../../webcompile/assets/runtime.wasm", import.meta.url).pathname;
const skip =
  folder === ""
    ? "WEBCOMPILE_ARTIFACT names no artifact folder"
    : !existsSync(runtime)
      ? `there is no ${runtime}`
      : skipWithoutGpu;

const load = (onProgress?: (progress: LoadProgress) => void, maxContextTokens = 512): Promise<Engine> =>
  createEngine({
    artifact: pathToFileURL(`${folder}/`),
    runtime: pathToFileURL(runtime),
    worker: false,
    gpu: dawn,
    fetch: fetchFile,
    maxContextTokens,
    onProgress,
  });

describe("a compiled model", { skip }, () => {
  let engine: Engine;
  const progress: LoadProgress[] = [];
  const messages = [{ role: "user", content: "What is the capital of France?" }] as const;

  before(async () => {
    engine = await load((report) => progress.push(report));
  });
  after(() => engine.unload());

  test("reports its loading and itself", () => {
    const stages = new Set(progress.map((report) => report.stage));
    assert.deepEqual([...stages].sort(), ["compile", "download", "ready", "upload"]);
    assert.equal(progress.at(-1)?.stage, "ready");
    const downloads = progress.filter((report) => report.stage === "download");
    assert.equal(downloads.at(-1)?.loaded, downloads.at(-1)?.total);
    assert.ok(engine.info.contextTokens <= 512);
    assert.ok(engine.info.weightBytes > 0 && engine.info.kvCacheBytes > 0);
  });

  test("answers greedily, the same each time, from the cache as from the start", async () => {
    const request = { messages, max_tokens: 8, temperature: 0 };
    const first = await engine.chat.completions.create(request);
    assert.ok((first.choices[0].message.content ?? "").length > 0);
    const again = await engine.chat.completions.create(request);
    assert.equal(again.choices[0].message.content, first.choices[0].message.content);
    assert.equal(again.usage.prompt_tokens_details.cached_tokens, again.usage.prompt_tokens - 1);
    console.log(JSON.stringify(first.choices[0].message.content));
  });

  test("prefill in pieces and token by token give the logits of the whole", async () => {
    const ids = await engine.tokenize("The quick brown fox jumps over the lazy dog and runs away");
    const whole = await engine.forward(ids);
    assert.ok(whole.every((logit) => Number.isFinite(logit)));
    // Brings all but the last three tokens into the cache; the request then continues them.
    await engine.forward(ids.slice(0, -3));
    for await (const step of engine.generate({ promptIds: ids, maxTokens: 1, temperature: 0 })) {
      assert.equal(step.tokenIds[0], whole.indexOf(Math.max(...whole)));
    }
  });

  test("decoding makes no GPU objects once it runs", async () => {
    const run = async (): Promise<void> => {
      const request = { prompt: "Once upon a time", maxTokens: 6, temperature: 0, ignoreEos: true };
      for await (const step of engine.generate(request)) assert.equal(step.tokenIds.length, 1);
    };
    await run();
    const before = await engine.stats();
    await run();
    const stats = await engine.stats();
    assert.equal(stats.bindGroups, before.bindGroups);
    assert.equal(stats.buffers, before.buffers);
    assert.equal(stats.pipelines, before.pipelines);
    assert.equal(stats.submitsPerToken, 1);
    assert.equal(stats.replayedTokens, 5);
    assert.equal(stats.gpuObjectsPerToken, 0);
    assert.equal(stats.bytesWrittenPerToken, 0);
    assert.equal(stats.bytesReadPerToken, 4);
    console.log(JSON.stringify(stats));
  });

  test("replayed steps give the tokens of the virtual machine, whatever comes between", async () => {
    const transcript = async (): Promise<{ tokens: number[]; replayed: number }> => {
      const tokens: number[] = [];
      let replayed = 0;
      const generate = async (promptIds: readonly number[], maxTokens: number, leaveAfter = Infinity): Promise<number[]> => {
        const answer: number[] = [];
        // Sampled: a small difference between logits would show.
        const request = { promptIds, maxTokens, temperature: 0.9, seed: 3, ignoreEos: true };
        for await (const { tokenIds } of engine.generate(request)) {
          answer.push(...tokenIds);
          if (answer.length === leaveAfter) break;
        }
        tokens.push(...answer);
        if (leaveAfter === Infinity) replayed += (await engine.stats()).replayedTokens;
        return [...promptIds, ...answer];
      };
      await engine.forward([1, 2, 3]); // Nothing of what follows is in the cache.
      const first = await generate(await engine.tokenize("Once upon a time"), 5);
      const second = await generate([...first, ...(await engine.tokenize(" But then"))], 4);
      await generate(await engine.tokenize("A list of the largest cities of the world, with their rivers:\n1."), 8, 3);
      await generate(await engine.tokenize("import numpy as"), 3);
      await generate(second.slice(0, 6), 3);
      return { tokens, replayed };
    };
    const replay = mock.method(Gpu.prototype, "replay", () => false);
    const without = await transcript();
    replay.mock.restore();
    const replayed = await transcript();
    assert.deepEqual(replayed.tokens, without.tokens);
    assert.deepEqual([without.replayed, replayed.replayed], [0, 4 + 3 + 2 + 2]);
  });

  test("a request that is left can be followed by another", async () => {
    for await (const _step of engine.generate({ prompt: "Count: one, two,", temperature: 0, ignoreEos: true })) break;
    const controller = new AbortController();
    const stream = engine.generate({ prompt: "Again:", ignoreEos: true }, { signal: controller.signal });
    await stream.next();
    controller.abort();
    await assert.rejects(async () => {
      for await (const _step of stream) continue;
    }, { code: "aborted" });
    assert.equal((await engine.chat.completions.create({ messages, max_tokens: 2 })).usage.completion_tokens, 2);
  });

  test("a prompt beyond the window is refused with numbers", async () => {
    await assert.rejects(engine.forward(Array<number>(600).fill(1)), { code: "context_overflow", message: /600 tokens.*512/ });
  });

  test("two engines at a time, one unloaded", async () => {
    const other = await load(undefined, 64);
    assert.equal(other.info.contextTokens, 64);
    const ids = [1, 2, 3];
    assert.deepEqual(await other.forward(ids), await engine.forward(ids));
    await other.unload();
    await assert.rejects(other.forward(ids), { code: "engine_closed" });
    assert.equal((await engine.forward(ids)).length, engine.info.model.vocab_size);
  });
});

test("a folder without a manifest", { skip }, async () => {
  const artifact = pathToFileURL(`${folder}/nowhere/`);
  await assert.rejects(createEngine({ artifact, runtime: pathToFileURL(runtime), worker: false, gpu: dawn, fetch: fetchFile }), {
    code: "model_not_found",
    message: /nowhere\/manifest\.json/,
  });
});
