import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Gpu } from "../src/gpu.js";
import type { Recording } from "../src/recording.js";
import { dawn, skipWithoutGpu } from "./dawn.js";
import { declareKernels, kernelInfo } from "./kernels.js";

describe("the GPU layer", { skip: skipWithoutGpu }, () => {
  let gpu: Gpu;
  let scale = 0;
  let fill = 0;
  let count = 0;

  before(async () => {
    gpu = await Gpu.open(dawn);
    ({ scale, fill, count } = declareKernels(gpu));
    await gpu.ready();
  });

  after(() => {
    gpu.destroy();
  });

  const ints = (...values: number[]): Uint8Array => new Uint8Array(Int32Array.from(values).buffer);
  const launch = (kernel: number, buffers: number[], scalars: number[], x: number, y = 1, z = 1): void => {
    gpu.launch(kernel, Int32Array.from([...buffers, ...scalars]), 0, buffers.length, x, y, z);
  };
  const read = async (buffer: number, length: number, offset = 0): Promise<number[]> => {
    const target = new Int32Array(length);
    await gpu.read(buffer, offset, new Uint8Array(target.buffer));
    return Array.from(target);
  };

  test("says what it runs on", () => {
    assert.ok(gpu.adapter.limits.maxBufferSize >= 2 ** 28);
    assert.ok(Array.isArray(gpu.adapter.features));
  });

  test("writes, dispatches, copies and reads happen in the order of the calls", async () => {
    const [a, b, c] = [gpu.alloc(12), gpu.alloc(12), gpu.alloc(12)];
    gpu.write(a, 0, ints(1, 2, 3));
    launch(scale, [b, a], [10, 0], 3);
    gpu.write(a, 0, ints(7, 8, 9)); // After the dispatch that read the old values.
    launch(scale, [c, a], [1, 0], 3);
    gpu.copy(b, 4, c, 0, 4);
    launch(scale, [a, c], [1, 100], 3);
    assert.deepEqual(await read(b, 3), [10, 20, 30]);
    assert.deepEqual(await read(c, 3), [20, 8, 9]);
    assert.deepEqual(await read(a, 3), [120, 108, 109]);
    assert.deepEqual(await read(a, 2, 4), [108, 109]);
    for (const id of [a, b, c]) gpu.free(id);
  });

  test("each dispatch has its own scalars, whatever their type", async () => {
    const buffers = [gpu.alloc(4), gpu.alloc(4)] as const;
    const bits = (value: number): number => new Int32Array(Float32Array.of(value).buffer)[0] ?? 0;
    launch(fill, [buffers[0]], [bits(1.5)], 1);
    launch(fill, [buffers[1]], [bits(-2.25)], 1);
    assert.deepEqual([await read(buffers[0], 1), await read(buffers[1], 1)], [[bits(1.5)], [bits(-2.25)]]);
    for (const id of buffers) gpu.free(id);
  });

  test("more dispatches than uniform slots", async () => {
    const a = gpu.alloc(4);
    gpu.write(a, 0, ints(0));
    const b = gpu.alloc(4);
    for (let i = 0; i < 1500; i++) {
      launch(scale, [b, a], [1, 1], 1);
      launch(scale, [a, b], [1, 0], 1);
    }
    assert.deepEqual(await read(a, 1), [1500]);
    gpu.free(a);
    gpu.free(b);
  });

  test("a grid beyond 65535 is spread over x and z and runs each block once", async () => {
    const size = 65535 + 70_000;
    const a = gpu.alloc(size * 4 * 2);
    launch(count, [a], [], size, 2);
    const values = await read(a, size * 2);
    assert.ok(values.every((value) => value === 1));
    gpu.free(a);
    assert.throws(() => { launch(count, [a], [], 70_000, 1, 2); }, { code: "internal", message: /too large/ });
  });

  test("an empty grid is no dispatch", () => {
    const { dispatches } = gpu.counters;
    const a = gpu.alloc(4);
    launch(count, [a], [], 0);
    assert.equal(gpu.counters.dispatches, dispatches);
    gpu.free(a);
  });

  test("sizes that are no multiple of 4 are padded", async () => {
    const a = gpu.alloc(7);
    gpu.write(a, 0, Uint8Array.of(1, 0, 0, 0, 2, 1, 0));
    assert.deepEqual(await read(a, 2), [1, 258]);
    gpu.free(a);
  });

  test("a steady step makes no GPU objects and takes one submit", async () => {
    const token = gpu.alloc(4);
    const result = gpu.alloc(400);
    const step = async (value: number): Promise<number> => {
      const temporary = gpu.alloc(4);
      gpu.write(token, 0, ints(value));
      launch(scale, [temporary, token], [3, 1], 1);
      launch(scale, [result, temporary], [2, 0], 1);
      gpu.free(temporary);
      return (await read(result, 1))[0] ?? NaN;
    };
    await step(0);
    await step(0);
    const before = { ...gpu.counters };
    for (let value = 0; value < 10; value++) assert.equal(await step(value), (value * 3 + 1) * 2);
    const made = (key: keyof typeof before): number => gpu.counters[key] - before[key];
    assert.deepEqual([made("buffers"), made("bindGroups"), made("pipelines")], [0, 0, 0]);
    assert.equal(made("submits"), 10);
    assert.equal(made("dispatches"), 20);
    assert.equal(made("bytesRead"), 40);
  });

  describe("reads that overlap", () => {
    const buffers = (): number[] =>
      [1, 2, 3, 4].map((value) => {
        const id = gpu.alloc(4000);
        gpu.write(id, 0, ints(value));
        return id;
      });

    test("give each its own, and make no buffers once they run steadily", async () => {
      const ids = buffers();
      const round = (): Promise<number[][]> => Promise.all(ids.map((id, i) => read(id, i === 2 ? 1000 : 1)));
      await round();
      const { objectsCreated } = gpu.counters;
      for (let i = 0; i < 5; i++) assert.deepEqual((await round()).map(([first]) => first), [1, 2, 3, 4]);
      for (const id of ids) await read(id, 1000);
      assert.equal(gpu.counters.objectsCreated, objectsCreated);
      for (const id of ids) gpu.free(id);
    });

    test("a failed one takes nothing from the others", async () => {
      const ids = buffers();
      const round = (offset: number): Promise<number[]>[] => ids.map((id, i) => read(id, 1, i === 1 ? offset : 0));
      await Promise.all(round(0));
      const { buffers: made, bufferBytes } = gpu.counters;
      for (let i = 0; i < 5; i++) {
        const results = await Promise.allSettled(round(8000)); // Beyond the end.
        const errors = results.flatMap((result) => (result.status === "rejected" ? [(result.reason as { code: string }).code] : []));
        assert.deepEqual(errors, ["internal"]);
      }
      assert.deepEqual((await Promise.all(round(0))).map(([first]) => first), [1, 2, 3, 4]);
      assert.deepEqual([gpu.counters.buffers, gpu.counters.bufferBytes], [made, bufferBytes]);
      for (const id of ids) gpu.free(id);
    });
  });

  describe("recordings", () => {
    const record = (run: () => void): Recording | undefined => gpu.record(run).recording;
    /** As a decode step: input to temporary to result. */
    const step = (input: number, temporary: number, result: number, offset = 1): void => {
      launch(scale, [temporary, input], [3, offset], 1);
      launch(scale, [result, temporary], [2, 0], 1);
      launch(count, [result], [], 1);
    };

    test("a replay does with new inputs what the launches do, in one submit, and makes no GPU objects", async () => {
      const [input, temporary, result] = [gpu.alloc(4), gpu.alloc(4), gpu.alloc(4)];
      gpu.write(input, 0, ints(5));
      const recording = record(() => { step(input, temporary, result); });
      assert.ok(recording);
      assert.deepEqual(await read(result, 1), [33]); // Recording enqueues, too.
      const runs = [7, -4, 100].map((value) => async (): Promise<void> => {
        gpu.write(input, 0, ints(value));
        assert.ok(gpu.replay(recording));
        assert.deepEqual(await read(result, 1), [(value * 3 + 1) * 2 + 1]);
      });
      await runs[0]?.();
      const before = { ...gpu.counters };
      for (const run of runs) await run();
      const made = (key: keyof typeof before): number => gpu.counters[key] - before[key];
      assert.deepEqual([made("buffers"), made("bindGroups"), made("pipelines")], [0, 0, 0]);
      assert.deepEqual([made("submits"), made("replays"), made("dispatches"), made("bytesWritten")], [3, 3, 9, 12]);
      for (const id of [input, temporary, result]) gpu.free(id);
    });

    test("replays, launches, writes and other recordings happen in the order of the calls", async () => {
      const [a, b, c] = [gpu.alloc(4), gpu.alloc(4), gpu.alloc(4)];
      const double = record(() => { launch(scale, [b, a], [2, 0], 1); });
      const increase = record(() => { launch(scale, [a, b], [1, 1], 1); });
      assert.ok(double && increase);
      gpu.write(a, 0, ints(3));
      for (let i = 0; i < 2; i++) {
        gpu.replay(double);
        gpu.replay(increase);
      }
      launch(scale, [c, a], [10, 0], 1); // a is 15 here.
      gpu.replay(double);
      gpu.write(a, 0, ints(0));
      assert.deepEqual([await read(a, 1), await read(b, 1), await read(c, 1)], [[0], [30], [150]]);
      for (const id of [a, b, c]) gpu.free(id);
    });

    test("a large grid is replayed as it was", async () => {
      const size = 65535 + 70_000;
      const a = gpu.alloc(size * 4);
      const recording = record(() => { launch(count, [a], [], size); });
      assert.ok(recording && gpu.replay(recording));
      assert.ok((await read(a, size)).every((value) => value === 2));
      gpu.free(a);
    });

    test("are equal whatever buffers were used, and differ in the rest", () => {
      const [a, b, c] = [gpu.alloc(4), gpu.alloc(4), gpu.alloc(4)];
      const [one, renamed, aliased, scalar, longer] = [
        record(() => { step(a, b, c); }),
        record(() => { step(a, c, b); }),
        record(() => { step(a, b, a); }),
        record(() => { step(a, b, c, 2); }),
        record(() => { step(a, b, c); launch(count, [c], [], 1); }),
      ];
      assert.ok(one && renamed && aliased && scalar && longer);
      assert.ok(one.equals(renamed));
      for (const other of [aliased, scalar, longer]) assert.ok(!one.equals(other) && !other.equals(one));
      const grids = [1, 2].map((rows) => record(() => { launch(count, [a], [], 1, rows); }));
      assert.ok(grids[0] && grids[1] && !grids[0].equals(grids[1]));
      for (const id of [a, b, c]) gpu.free(id);
    });

    test("there is none of more than the dispatches of one pass", () => {
      const [a, b] = [gpu.alloc(4), gpu.alloc(4)];
      const run = (): void => { launch(scale, [b, a], [1, 0], 1); };
      const others = [
        () => { gpu.write(a, 0, ints(1)); },
        () => { gpu.copy(b, 0, a, 0, 4); },
        () => { for (let i = 0; i < 1024; i++) run(); },
      ];
      for (const other of others) {
        assert.equal(record(() => { other(); run(); }), undefined);
        assert.equal(record(() => { run(); other(); }), undefined);
      }
      assert.throws(() => record(() => { throw new Error("no"); }), /no/);
      assert.ok(record(run));
      gpu.free(a);
      gpu.free(b);
    });

    test("one cannot be replayed once a buffer of it is gone; a freed one that is kept does no harm", async () => {
      const [input, temporary, result, big] = [gpu.alloc(4), gpu.alloc(4), gpu.alloc(4), gpu.alloc(80 * 2 ** 20)];
      gpu.write(input, 0, ints(4));
      const small = record(() => { step(input, temporary, result); });
      const large = record(() => { launch(scale, [big, input], [1, 0], 1); });
      assert.ok(small && large && gpu.replay(small) && gpu.replay(large));
      gpu.free(big); // Larger than the pool.
      gpu.free(temporary);
      const { dispatches } = gpu.counters;
      assert.equal(gpu.replay(large), false);
      assert.equal(gpu.counters.dispatches, dispatches);
      assert.ok(gpu.replay(small));
      assert.deepEqual(await read(result, 1), [27]);
      gpu.free(input);
      gpu.free(result);
    });
  });

  test("a buffer that is larger than the pool goes away, and its bind groups with it", async () => {
    const size = 80 * 2 ** 20;
    const before = gpu.counters.bufferBytes;
    const big = gpu.alloc(size);
    launch(count, [big], [], 1);
    gpu.free(big);
    assert.equal(gpu.counters.bufferBytes, before);
    assert.throws(() => { launch(count, [big], [], 1); }, { code: "internal", message: /no buffer/ });
    const again = gpu.alloc(size);
    launch(count, [again], [], 2);
    assert.deepEqual(await read(again, 2), [1, 1]);
    gpu.free(again);
  });

  test("too large a buffer is out_of_memory with numbers, and the device goes on", async () => {
    assert.equal(gpu.alloc(2 ** 45), 0);
    await assert.rejects(gpu.idle(), { code: "out_of_memory", message: /35184372088832 bytes/ });
    await gpu.idle();
  });

  test("a command that WebGPU refuses is an error of the next read, and the device goes on", async () => {
    const a = gpu.alloc(16);
    launch(scale, [a, a], [1, 1], 1); // The same buffer read and written.
    await assert.rejects(read(a, 1), { code: "internal", message: /WebGPU refused/ });
    assert.equal((await read(a, 1)).length, 1);
    gpu.free(a);
  });

  test("a rehearsal compiles the kernels that it launches, and runs none", async () => {
    const other = await Gpu.open(dawn);
    const kernels = declareKernels(other);
    const rehearse = (): void => {
      other.launch(kernels.fill, Int32Array.of(out, 7), 0, 1, 1, 1, 1);
    };
    const out = other.alloc(4);
    await other.prepare(rehearse);
    await other.prepare(rehearse);
    const { pipelines, dispatches } = other.counters;
    assert.deepEqual({ pipelines, dispatches }, { pipelines: 1, dispatches: 0 });
    rehearse();
    await other.idle();
    assert.equal(other.counters.dispatches, 1);
    assert.throws(
      () => {
        other.launch(kernels.scale, Int32Array.of(out, out, 1, 0), 0, 2, 1, 1, 1);
      },
      { message: /not compiled/ },
    );
    await other.ready();
    assert.equal(other.counters.pipelines, 3);
    other.destroy();
  });

  test("a kernel that does not compile is named", async () => {
    const other = await Gpu.open(dawn);
    other.kernel("broken", "fn broken( {", kernelInfo([], []));
    await assert.rejects(other.ready(), { code: "webgpu_unavailable", message: /kernel broken/ });
    other.destroy();
  });

  test("a lost device is device_lost for everyone, and a new one can be opened", async () => {
    let lost: unknown;
    let device: GPUDevice | undefined;
    const spy: GPU = new Proxy(dawn, {
      get: (target, key) =>
        key === "requestAdapter"
          ? async () => {
              const adapter = await target.requestAdapter();
              return new Proxy(adapter ?? {}, {
                get: (inner, name) =>
                  name === "requestDevice"
                    ? async (descriptor: GPUDeviceDescriptor) => (device = await (inner as GPUAdapter).requestDevice(descriptor))
                    : (Reflect.get(inner, name, inner) as unknown),
              });
            }
          : (Reflect.get(target, key, target) as unknown),
    });
    const other = await Gpu.open(spy, { onLost: (error) => (lost = error) });
    const buffer = other.alloc(16);
    const reading = other.read(buffer, 0, new Uint8Array(16));
    device?.destroy();
    await assert.rejects(reading, { code: "device_lost" });
    assert.equal((lost as { code: string }).code, "device_lost");
    await assert.rejects(other.idle(), { code: "device_lost" });
    const next = await Gpu.open(dawn);
    await next.idle();
    next.destroy();
  });
});

test("without WebGPU the error says what to do", async () => {
  await assert.rejects(Gpu.open(undefined), { code: "webgpu_unavailable", hint: /WebGPU/ });
});
