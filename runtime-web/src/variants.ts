/** Which of an artifact's variants runs: what was asked for, or the fastest on this device, timed once and remembered. */

import type { Artifact } from "./artifact.js";
import type { FileCache } from "./cache.js";
import { WebcompileError } from "./errors.js";
import type { Variant } from "./generated/contracts.js";
import { Gpu } from "./gpu.js";
import type { AdapterInfo, VariantChoice } from "./types.js";
import { Runtime } from "./wasm.js";

/** What choosing a variant needs. */
export interface VariantOptions {
  /** Name of a variant, or "fastest". Default: "fastest" on hardware, where nobody knows beforehand; else the first. */
  readonly variant: string | undefined;
  readonly isSoftware: boolean;
  readonly adapter: AdapterInfo;
  readonly gpu: GPU | undefined;
  readonly runtime: Promise<WebAssembly.Module>;
  /** Where the choice is remembered. Without, nothing is timed: every load would do it again. */
  readonly cache: FileCache | undefined;
}

/** A later variant has to be faster than an earlier one by so much: timing is not exact, and the first are made to be best. */
const MARGIN = 0.9;
/** Each variant is timed for about so long, several times; the shortest counts. */
const MEASURE_MS = 20;
const ROUNDS = 3;
const MAX_CALLS = 200;

/** The variant and how it was chosen. */
export async function chooseVariant(artifact: Artifact, options: VariantOptions): Promise<{ variant: Variant; choice: VariantChoice }> {
  const { isSoftware, adapter, cache } = options;
  const candidates = artifact.variants({ features: adapter.features, isSoftware });
  const wanted = options.variant ?? (isSoftware ? "first" : "fastest");
  const decided = (variant: Variant, by: VariantChoice["by"], probeMs = {}): { variant: Variant; choice: VariantChoice } => ({
    variant,
    choice: { by, probeMs },
  });
  const [first] = candidates;
  if (wanted !== "fastest" && wanted !== "first") return decided(namedVariant(artifact, wanted, adapter), "request");
  const comparable = candidates.filter((variant) => variant.probe.length > 0);
  if (wanted === "first" || cache === undefined || comparable.length < 2) return decided(first, "order");
  const key = await keyOf(adapter, comparable);
  const remembered = new TextDecoder().decode((await cache.read(key)) ?? new Uint8Array());
  const known = comparable.find((variant) => variant.name === remembered);
  if (known !== undefined) return decided(known, "memory");
  const probeMs = await timeVariants(artifact, comparable, options);
  const fastest = comparable.reduce((best, next) => ((probeMs[next.name] ?? Infinity) < MARGIN * (probeMs[best.name] ?? Infinity) ? next : best));
  await remember(cache, key, fastest.name);
  return decided(fastest, "time", probeMs);
}

function namedVariant(artifact: Artifact, name: string, { features }: AdapterInfo): Variant {
  const variants = artifact.manifest.variants.filter((variant) => variant.target === "webgpu");
  const found = variants.find((variant) => variant.name === name);
  const known = variants.map((variant) => variant.name).join(", ");
  if (found === undefined) throw new WebcompileError("request_invalid", `there is no variant ${name}; there are ${known}`);
  const missing = found.features.filter((feature) => !features.includes(feature));
  if (missing.length === 0) return found;
  throw new WebcompileError("webgpu_unavailable", `variant ${name} needs ${missing.join(", ")}, which this device lacks`);
}

/** Milliseconds of a variant's probe, by name. It has a device of its own, which takes all that was made for it along. */
async function timeVariants(artifact: Artifact, variants: readonly Variant[], options: VariantOptions): Promise<Record<string, number>> {
  const gpu = await Gpu.open(options.gpu);
  try {
    const times: Record<string, number> = {};
    for (const variant of variants) {
      const runtime = await Runtime.instantiate(await options.runtime, gpu);
      await runtime.link(await artifact.library(variant));
      runtime.open();
      times[variant.name] = await timeProbe(gpu, runtime, variant);
    }
    return times;
  } finally {
    gpu.destroy();
  }
}

async function timeProbe(gpu: Gpu, runtime: Runtime, variant: Variant): Promise<number> {
  const probe = runtime.function("probe");
  const [x = 0, ...weights] = variant.probe.map(({ dtype, shape }) => runtime.tensor(dtype, shape).handle);
  const inputs = [x, runtime.tuple(weights)];
  const run = async (calls: number): Promise<number> => {
    await gpu.idle();
    const started = performance.now();
    for (let i = 0; i < calls; i++) runtime.release(runtime.call(probe, inputs));
    await gpu.idle();
    return (performance.now() - started) / calls;
  };
  await gpu.prepare(() => {
    runtime.release(runtime.call(probe, inputs));
  });
  await run(1);
  const calls = Math.min(MAX_CALLS, Math.max(1, Math.ceil(MEASURE_MS / (await run(4)))));
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) times.push(await run(calls));
  return Math.min(...times);
}

/** A choice holds for this adapter and these libraries. */
async function keyOf({ vendor, architecture, device, description, features }: AdapterInfo, variants: readonly Variant[]): Promise<string> {
  const libraries = variants.map((variant) => [variant.name, variant.build_key]);
  const text = JSON.stringify([vendor, architecture, device, description, [...features].sort(), libraries]);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return `variant-${Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** It is no loss if that fails. */
async function remember(cache: FileCache, key: string, name: string): Promise<void> {
  try {
    const file = await cache.open(key);
    await file.restart();
    const bytes = new TextEncoder().encode(name);
    await file.append(bytes);
    await file.commit(bytes);
  } catch {
    return;
  }
}
