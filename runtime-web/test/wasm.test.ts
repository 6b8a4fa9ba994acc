import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { ABI_VERSION } from "../src/generated/contracts.js";
import { type RuntimeDevice, Runtime } from "../src/wasm.js";

/** A device that takes everything and does nothing. */
function idleDevice(): RuntimeDevice {
  let failure: unknown;
  let buffers = 0;
  return {
    alloc: () => ++buffers,
    free: () => undefined,
    write: () => undefined,
    copy: () => undefined,
    kernel: () => 0,
    launch: () => undefined,
    fail: (error) => (failure ??= error),
    check: () => {
      const error = failure;
      failure = undefined;
      if (error !== undefined) throw error as Error;
    },
  };
}

/** A wasm section. */
const section = (id: number, ...bytes: number[]): number[] => [id, bytes.length, ...bytes];
const name = (text: string): number[] => [text.length, ...new TextEncoder().encode(text)];
const HEADER = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const wasm = (...sections: number[][]): Promise<WebAssembly.Module> =>
  WebAssembly.compile(Uint8Array.from([...HEADER, ...sections.flat()]));

/** A runtime of another version: memory, and wc_abi_version that returns it. */
const runtimeOf = (version: number): Promise<WebAssembly.Module> =>
  wasm(
    section(1, 1, 0x60, 0, 1, 0x7f),
    section(3, 1, 0),
    section(5, 1, 0, 1),
    section(7, 2, ...name("memory"), 2, 0, ...name("wc_abi_version"), 0, 0),
    section(10, 1, 4, 0, 0x41, version, 0x0b),
  );

test("a runtime of another version is abi_mismatch with both numbers", async () => {
  await assert.rejects(Runtime.instantiate(await runtimeOf(7), idleDevice()), {
    code: "abi_mismatch",
    message: `runtime.wasm has ABI version 7; this package needs ${ABI_VERSION}`,
  });
});

test("a runtime that wants more than there is", async () => {
  const module = await wasm(section(1, 1, 0x60, 0, 0), section(2, 1, ...name("env"), ...name("wc_fly"), 0, 0));
  await assert.rejects(Runtime.instantiate(module, idleDevice()), { code: "abi_mismatch", message: /needs env\.wc_fly/ });
});

const runtimeFile = new URL("../../webcompile/assets/runtime.wasm", import.meta.url);
const skip = existsSync(runtimeFile) ? false : "there is no runtime.wasm in webcompile/assets";

describe("runtime.wasm", { skip }, () => {
  const instantiate = async (device = idleDevice()): Promise<Runtime> =>
    Runtime.instantiate(await WebAssembly.compile(await readFile(runtimeFile)), device);

  test("tensors and tuples", async () => {
    const runtime = await instantiate();
    const tensors = [runtime.tensor("float32", [2, 3]), runtime.tensor("int32", [1])];
    assert.deepEqual(tensors.map((tensor) => tensor.buffer), [1, 2]);
    assert.ok(runtime.tuple(tensors.map((tensor) => tensor.handle)) > 0);
    // More than the first block of arguments holds.
    const many = Array.from({ length: 3000 }, () => runtime.tensor("uint32", [1]).handle);
    assert.ok(runtime.tuple(many) > 0);
  });

  test("errors say what went wrong and leave the instance usable", async () => {
    const runtime = await instantiate();
    assert.throws(() => runtime.tensor("floot32", [1]), { code: "internal", message: /floot32/ });
    assert.throws(() => { runtime.open(); }, { code: "internal", message: /no model is linked|system/i });
    assert.throws(() => runtime.buffer(99), { code: "internal", message: /99/ });
    assert.ok(runtime.tensor("float32", [1]).handle > 0);
  });

  test("an error of the device comes out as it went in", async () => {
    const device = { ...idleDevice(), alloc: () => { throw new RangeError("the device said no"); } };
    const runtime = await instantiate(device);
    assert.throws(() => runtime.tensor("float32", [1]), { message: "the device said no" });
  });

  test("a side module that is none, and one that wants what the runtime lacks", async () => {
    const runtime = await instantiate();
    await assert.rejects(runtime.link(await wasm()), { code: "artifact_invalid", message: /dylink\.0/ });
    const dylink = section(0, ...name("dylink.0"), 1, 4, 16, 4, 2, 0);
    const needy = await wasm(dylink, section(1, 1, 0x60, 0, 0), section(2, 1, ...name("env"), ...name("cosine"), 0, 0));
    await assert.rejects(runtime.link(needy), { code: "abi_mismatch", message: /the model's module needs env\.cosine/ });
    await runtime.link(await wasm(dylink));
  });
});
