// Our engine as a page uses it: `createEngine`, its worker, `generate`.
/* global BroadcastChannel, Worker */

import { startPage } from "./page.js";
import { createEngine } from "./webcompile/index.js";

let engine;

function workerCounts() {
  const channel = new BroadcastChannel("webgpu-counts");
  return new Promise((resolve) => {
    channel.onmessage = ({ data }) => {
      channel.close();
      resolve(data);
    };
    channel.postMessage("ask");
  });
}

startPage({
  async load() {
    engine = await createEngine({
      artifact: new URL("artifact/", location.href),
      runtime: new URL("webcompile/runtime.wasm", location.href),
      worker: () => new Worker("ours-worker.js", { type: "module" }),
    });
    const { vendor, architecture, device, description } = engine.info.adapter;
    return { variant: engine.info.variant, adapter: [vendor, architecture, device, description] };
  },

  async generate({ promptIds, maxTokens }) {
    const tokenIds = [];
    let firstAt;
    let lastAt;
    let usage;
    const started = performance.now();
    for await (const step of engine.generate({ promptIds, maxTokens, temperature: 0, ignoreEos: true })) {
      if (step.tokenIds.length > 0) {
        lastAt = performance.now();
        firstAt ??= lastAt;
      }
      tokenIds.push(...step.tokenIds);
      usage = step.usage ?? usage;
    }
    if (usage.cachedPromptTokens > 0) throw new Error(`${usage.cachedPromptTokens} tokens of the prompt were cached`);
    const { hostMsPerToken } = await engine.stats();
    return { tokenIds, started, firstAt, lastAt, hostMsPerToken };
  },

  counts: workerCounts,
});
