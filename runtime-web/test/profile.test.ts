import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Gpu } from "../src/gpu.js";
import { chromeTrace, ProfileRecorder } from "../src/profile.js";
import type { WebcompileError } from "../src/errors.js";
import type { TimedDispatch } from "../src/types.js";
import { dawn, skipWithoutGpu } from "./dawn.js";
import { declareKernels } from "./kernels.js";

const dispatch = (kernel: string, startNs: number, durationNs: number): TimedDispatch => ({
  kernel,
  startNs,
  durationNs,
  grid: [4, 2, 1],
});

describe("a profile", () => {
  test("sums up by kernel, longest total first", () => {
    const recorder = new ProfileRecorder();
    const all = [dispatch("a", 0, 1e6), dispatch("b", 2e6, 2e6), dispatch("b", 5e6, 5e6), dispatch("c", 11e6, 0)];
    for (const one of all) recorder.add(one);
    const profile = recorder.profile();
    assert.deepEqual([profile.dispatches, profile.totalMs, profile.omittedDispatches], [4, 8, 0]);
    assert.deepEqual(profile.timeline, all);
    assert.deepEqual(profile.kernels, [
      { name: "b", dispatches: 2, totalMs: 7, share: 7 / 8, meanMs: 3.5, maxMs: 5, longest: all[2] },
      { name: "a", dispatches: 1, totalMs: 1, share: 1 / 8, meanMs: 1, maxMs: 1, longest: all[0] },
      { name: "c", dispatches: 1, totalMs: 0, share: 0, meanMs: 0, maxMs: 0, longest: all[3] },
    ]);
  });

  test("of nothing, or of no time at all, has no shares that are no numbers", () => {
    const recorder = new ProfileRecorder();
    assert.deepEqual(recorder.profile(), { dispatches: 0, totalMs: 0, kernels: [], timeline: [], omittedDispatches: 0 });
    recorder.add(dispatch("a", 0, 0));
    assert.equal(recorder.profile().kernels[0]?.share, 0);
  });

  test("lists the last 100,000 dispatches and says how many it left out; its sums have all", () => {
    const recorder = new ProfileRecorder();
    const count = 250_123;
    for (let i = 0; i < count; i++) recorder.add(dispatch("a", i, 1));
    const { timeline, kernels, dispatches, omittedDispatches } = recorder.profile();
    assert.deepEqual([timeline.length, omittedDispatches, dispatches], [100_000, count - 100_000, count]);
    assert.equal(kernels[0]?.dispatches, count);
    assert.deepEqual([timeline[0]?.startNs, timeline.at(-1)?.startNs], [count - 100_000, count - 1]);
  });

  test("as a trace has a row for each profile, in microseconds", () => {
    const [one, other] = [new ProfileRecorder(), new ProfileRecorder()];
    one.add(dispatch("a", 1500, 250));
    other.add(dispatch("b", 9000, 2_000_000));
    const trace: unknown = JSON.parse(JSON.stringify(chromeTrace({ prefill: one.profile(), decode: other.profile() })));
    const grid = "4 x 2 x 1";
    assert.deepEqual(trace, {
      traceEvents: [
        { name: "thread_name", ph: "M", pid: 1, tid: 1, args: { name: "prefill" } },
        { name: "a", ph: "X", pid: 1, tid: 1, ts: 1.5, dur: 0.25, args: { grid } },
        { name: "thread_name", ph: "M", pid: 1, tid: 2, args: { name: "decode" } },
        { name: "b", ph: "X", pid: 1, tid: 2, ts: 9, dur: 2000, args: { grid } },
      ],
    });
  });
});

const canTime = skipWithoutGpu === false && (await dawn.requestAdapter())?.features.has("timestamp-query") === true;
const skipWithoutTimestamps = skipWithoutGpu === false && !canTime ? "this adapter has no timestamp-query" : skipWithoutGpu;

describe("a device that profiles", { skip: skipWithoutTimestamps }, () => {
  let gpu: Gpu;
  let scale = 0;
  let count = 0;

  before(async () => {
    gpu = await Gpu.open(dawn, {}, { profile: true });
    ({ scale, count } = declareKernels(gpu));
    await gpu.ready();
  });

  after(() => {
    gpu.destroy();
  });

  const increase = (id: number, x: number, y = 1): void => {
    gpu.launch(count, Int32Array.of(id), 0, 1, x, y, 1);
  };
  const read = async (id: number): Promise<number | undefined> => {
    const target = new Int32Array(1);
    await gpu.read(id, 0, new Uint8Array(target.buffer));
    return target[0];
  };
  const zero = (): number => {
    const id = gpu.alloc(4096);
    gpu.write(id, 0, new Uint8Array(4096));
    return id;
  };

  test("times every dispatch, and begins anew with each profile", async () => {
    const [a, b] = [zero(), zero()];
    for (let i = 0; i < 3; i++) increase(a, 5, 2);
    gpu.launch(scale, Int32Array.of(b, a, 10, 1), 0, 2, 1, 1, 1);
    assert.equal(await read(b), 31);
    increase(a, 7);
    const profile = await gpu.profile();
    const kernels = profile.kernels.map(({ name, dispatches }) => [name, dispatches]).sort();
    assert.deepEqual(kernels, [["count", 4], ["scale", 1]]);
    const grids = profile.timeline.map(({ kernel, grid }) => [kernel, ...grid].join(" "));
    assert.deepEqual(grids, ["count 5 2 1", "count 5 2 1", "count 5 2 1", "scale 1 1 1", "count 7 1 1"]);
    for (const { startNs, durationNs } of profile.timeline) assert.ok(durationNs >= 0 && Number.isFinite(startNs));
    const shares = profile.kernels.reduce((sum, { share }) => sum + share, 0);
    assert.ok(profile.totalMs === 0 || Math.abs(shares - 1) < 1e-9);
    assert.equal((await gpu.profile()).dispatches, 0);
    gpu.free(a);
    gpu.free(b);
  });

  test("also what is replayed, more than fits into one query set, and makes no GPU objects for it in the end", async () => {
    const a = zero();
    const { recording } = gpu.record(() => {
      for (let i = 0; i < 500; i++) increase(a, 1);
    });
    assert.ok(recording, "a pass of its own for each dispatch does not end a recording");
    const round = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) assert.ok(gpu.replay(recording));
      assert.equal((await gpu.profile()).kernels[0]?.dispatches, 2500);
    };
    assert.equal(await read(a), 500);
    assert.equal((await gpu.profile()).dispatches, 500);
    await round();
    const { objectsCreated, submits } = gpu.counters;
    await round();
    assert.deepEqual([gpu.counters.objectsCreated, gpu.counters.submits], [objectsCreated, submits + 1]);
    assert.equal(await read(a), 5500);
    gpu.free(a);
  });

  test("is lost like any other", async () => {
    const other = await Gpu.open(dawn, {}, { profile: true });
    const kernels = declareKernels(other);
    await other.ready();
    other.launch(kernels.count, Int32Array.of(other.alloc(4)), 0, 1, 1, 1, 1);
    const profile = other.profile();
    other.destroy();
    await assert.rejects(profile, { code: "engine_closed" });
  });
});

describe("a device that does not", { skip: skipWithoutGpu }, () => {
  const check = async (gpu: Gpu): Promise<void> => {
    const { count } = declareKernels(gpu);
    await gpu.ready();
    gpu.launch(count, Int32Array.of(gpu.alloc(4)), 0, 1, 1, 1, 1);
    await gpu.idle();
    assert.equal((await gpu.profile()).dispatches, 0);
    assert.ok(!gpu.adapter.features.includes("timestamp-query"));
    gpu.destroy();
  };

  test("because it was not asked to, has empty profiles", async () => {
    await check(await Gpu.open(dawn));
  });

  test("because it cannot, warns and runs", async () => {
    const adapter = await dawn.requestAdapter();
    assert.ok(adapter);
    const features = new Set([...adapter.features].filter((name) => name !== "timestamp-query"));
    const poor = new Proxy(adapter, {
      get: (target, name) => {
        if (name === "features") return features;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    });
    const warnings: WebcompileError[] = [];
    const other = { requestAdapter: () => Promise.resolve(poor) } as unknown as GPU;
    await check(await Gpu.open(other, { onWarning: (warning) => warnings.push(warning) }, { profile: true }));
    assert.deepEqual(warnings.map(({ message }) => message.includes("timestamp-query")), [true]);
  });
});
