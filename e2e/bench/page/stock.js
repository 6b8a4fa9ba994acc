// The stock stack as a chat program drives it: TVM's JavaScript runtime, its paged cache, logits read back, argmax here.
/* global tvmjs */

import { startPage } from "./page.js";

const CACHE = "stock";
const CONTEXT_TOKENS = 4096;
const PAGE_TOKENS = 16;
const SEQUENCE = 0;

const url = (path) => new URL(path, location.href).href;
let model;

function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Enqueues one forward pass; `model.logits` holds the result once the device is in sync. */
function enqueue(tokenIds, run) {
  const { tvm, device, cache, params, logits, builtin, functions } = model;
  const shape = (sizes) => tvm.makeShapeTuple(sizes);
  tvm.beginScope();
  const ids = tvm.empty([tokenIds.length], "int32", device).copyFrom(tokenIds);
  const embedded = functions.embed(ids, params).view([1, tokenIds.length, model.hiddenSize]);
  builtin.beginForward(cache, shape([SEQUENCE]), shape([tokenIds.length]));
  const result = run(embedded, cache, params);
  logits.copyFrom(result.get(0));
  builtin.endForward(cache);
  tvm.endScope();
}

startPage({
  async load() {
    const description = await (await fetch("stock/model.json")).json();
    const store = new tvmjs.ArtifactCache(CACHE);
    const wasm = await store.fetchWithCache(url("stock/model.wasm"), "arraybuffer");
    const tvm = await tvmjs.instantiate(wasm, tvmjs.createPolyfillWASI(), () => undefined);
    const gpu = await tvmjs.detectGPUDevice();
    tvm.initWebGPU(gpu.device);
    const device = tvm.webgpu();
    await tvm.fetchTensorCache(url("artifact/"), device, CACHE);
    tvm.beginScope();
    const vm = tvm.detachFromCurrentScope(tvm.createVirtualMachine(device));
    await tvm.asyncLoadWebGPUPipelines(vm.getInternalModule());
    const keep = (object) => tvm.detachFromCurrentScope(object);
    const own = (name) => keep(vm.getFunction(name));
    const global = (name) => keep(tvm.getGlobalFunc(name));
    const sizes = [1, CONTEXT_TOKENS, description.prefill_chunk_tokens, PAGE_TOKENS, 0];
    model = {
      tvm,
      device,
      hiddenSize: description.hidden_size,
      params: keep(tvm.getParamsFromCacheByName(description.params)),
      logits: keep(tvm.empty([1, 1, description.vocab_size], "float32", tvm.cpu())),
      functions: { embed: own("embed"), prefill: own("prefill"), decode: own("decode") },
      builtin: {
        clear: global("vm.builtin.kv_state_clear"),
        addSequence: global("vm.builtin.kv_state_add_sequence"),
        beginForward: global("vm.builtin.kv_state_begin_forward"),
        endForward: global("vm.builtin.kv_state_end_forward"),
      },
      cache: keep(own("create_cache")(...sizes.map((size) => tvm.makeShapeTuple([size])))),
    };
    tvm.endScope();
    const { vendor, architecture, device: name, description: text } = gpu.adapterInfo;
    return { variant: description.dtype, adapter: [vendor, architecture, name, text] };
  },

  async generate({ promptIds, maxTokens }) {
    const { builtin, cache, device, logits, functions } = model;
    const started = performance.now();
    builtin.clear(cache);
    builtin.addSequence(cache, new tvmjs.Scalar(SEQUENCE, "int64"));
    const tokenIds = [];
    let firstAt;
    let lastAt;
    let hostMs = 0;
    for (let step = 0; step < maxTokens; step++) {
      const begun = performance.now();
      enqueue(step === 0 ? promptIds : tokenIds.slice(-1), step === 0 ? functions.prefill : functions.decode);
      const enqueued = performance.now();
      await device.sync();
      const synced = performance.now();
      tokenIds.push(argmax(logits.toArray()));
      lastAt = performance.now();
      firstAt ??= lastAt;
      if (step > 0) hostMs += enqueued - begun + (lastAt - synced);
    }
    return { tokenIds, started, firstAt, lastAt, hostMsPerToken: hostMs / (maxTokens - 1) };
  },

  counts: () => globalThis.webgpuCounts(),
});
