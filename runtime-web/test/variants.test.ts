/** Which variant runs, with a real artifact on Dawn: see model.test.ts for what it needs. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { before, describe, test } from "node:test";
import { Artifact } from "../src/artifact.js";
import { FileSystemCache } from "../src/cache.js";
import { Downloader } from "../src/download.js";
import { Gpu } from "../src/gpu.js";
import { chooseVariant, type VariantOptions } from "../src/variants.js";
import { dawn, skipWithoutGpu } from "./dawn.js";
import { fetchFile } from "./files.js";
import { MemoryFolder } from "./storage.js";

const folder = process.env["WEBCOMPILE_ARTIFACT"] ?? "";
const runtime = process.env["WEBCOMPILE_RUNTIME"] ?? new URL("../../webcompile/assets/runtime.wasm", import.meta.url).pathname;
const skip = folder === "" || !existsSync(runtime) ? "no artifact or no runtime.wasm" : skipWithoutGpu;

describe("the variant", { skip }, () => {
  let artifact: Artifact;
  let options: VariantOptions;
  const names = (): string[] => artifact.variants({ features: options.adapter.features, isSoftware: true }).map(({ name }) => name);
  const memory = (): FileSystemCache => new FileSystemCache(new MemoryFolder() as unknown as FileSystemDirectoryHandle);

  before(async () => {
    const { signal } = new AbortController();
    const nothing = (): void => undefined;
    const downloader = new Downloader({ fetch: fetchFile, signal, cache: undefined, onBytes: nothing, onWarning: nothing });
    artifact = await Artifact.open(pathToFileURL(`${folder}/`), downloader);
    const gpu = await Gpu.open(dawn);
    options = {
      variant: "fastest",
      isSoftware: true,
      adapter: gpu.adapter,
      gpu: dawn,
      runtime: WebAssembly.compile(await readFile(runtime)),
      cache: memory(),
    };
    gpu.destroy();
  });

  test("is timed once, and remembered for the same adapter and libraries", async () => {
    const first = await chooseVariant(artifact, options);
    assert.equal(first.choice.by, "time");
    assert.deepEqual(Object.keys(first.choice.probeMs), names());
    assert.ok(names().length > 1 && Object.values(first.choice.probeMs).every((ms) => ms > 0));
    const again = await chooseVariant(artifact, options);
    assert.deepEqual([again.choice.by, again.variant.name], ["memory", first.variant.name]);
    const elsewhere = { ...options, adapter: { ...options.adapter, description: "another" } };
    assert.equal((await chooseVariant(artifact, elsewhere)).choice.by, "time");
  });

  test("is the first where timing is not worth it", async () => {
    for (const change of [{ variant: undefined }, { cache: undefined }]) {
      const { variant, choice } = await chooseVariant(artifact, { ...options, cache: memory(), ...change });
      assert.deepEqual([variant.name, choice.by], [names()[0], "order"]);
    }
  });

  test("is the one that was asked for, if there is one that can run", async () => {
    const last = names().at(-1);
    const { variant, choice } = await chooseVariant(artifact, { ...options, variant: last });
    assert.deepEqual([variant.name, choice.by], [last, "request"]);
    await assert.rejects(chooseVariant(artifact, { ...options, variant: "f8" }), { code: "request_invalid", message: /f8.*f32/ });
    const plain = { ...options, adapter: { ...options.adapter, features: [] }, variant: "f16" };
    await assert.rejects(chooseVariant(artifact, plain), { code: "webgpu_unavailable", message: /shader-f16/ });
  });
});
