/** An artifact folder on a server. */

import type { Downloader } from "./download.js";
import { WebcompileError } from "./errors.js";
import { MANIFEST_FILE, type FileEntry, type Manifest, type Variant } from "./generated/contracts.js";
import { MAX_MANIFEST_BYTES, parseManifest, parseShards, type Shard } from "./manifest.js";

/** Files downloaded or in use at a time. */
const CONCURRENCY = 4;

/** What a device offers to variants. */
export interface DeviceTraits {
  readonly features: readonly string[];
  /** Whether it computes on the CPU. */
  readonly isSoftware: boolean;
}

/** The folder's manifest and its files. */
export class Artifact {
  readonly manifest: Manifest;
  readonly #folder: URL;
  readonly #downloader: Downloader;
  readonly #entries: ReadonlyMap<string, FileEntry>;
  readonly #slots = new Slots(CONCURRENCY);

  private constructor(folder: URL, downloader: Downloader, manifest: Manifest) {
    this.#folder = folder;
    this.#downloader = downloader;
    this.manifest = manifest;
    this.#entries = new Map(manifest.files.map((entry) => [entry.path, entry]));
  }

  /** Reads the manifest of a folder, whose URL ends with a slash. */
  static async open(folder: URL, downloader: Downloader): Promise<Artifact> {
    const bytes = await downloader.small(new URL(MANIFEST_FILE, folder), MAX_MANIFEST_BYTES, "model_not_found");
    return new Artifact(folder, downloader, parseManifest(bytes));
  }

  /** The variants for WebGPU that the device can run, made for its kind; at least one. */
  variants({ features, isSoftware }: DeviceTraits): [Variant, ...Variant[]] {
    const variants = this.manifest.variants.filter((variant) => variant.target === "webgpu");
    const has = (feature: string): boolean => features.includes(feature);
    const unsuited = isSoftware ? "hardware" : "software";
    const [first, ...others] = variants.filter((one) => one.adapters !== unsuited && one.features.every(has));
    if (first !== undefined) return [first, ...others];
    if (variants.length === 0) {
      const targets = [...new Set(this.manifest.variants.map((variant) => variant.target))].join(", ");
      throw new WebcompileError(
        "target_unsupported",
        `the artifact is compiled for ${targets === "" ? "no target" : targets}, not for webgpu`,
        "Compile it for target webgpu into the same folder.",
      );
    }
    const wanted = variants.map((one) => `${one.name} (${[one.adapters, ...one.features].join(", ")})`).join("; ");
    throw new WebcompileError(
      "webgpu_unavailable",
      `this device has ${[isSoftware ? "software" : "hardware", ...features].join(", ")}; the artifact's variants need: ${wanted}`,
      "Compile the artifact also without these features: the weights are shared.",
    );
  }

  /** The weight files and the tensors in them. */
  async shards(): Promise<Shard[]> {
    const { index } = this.manifest.weights;
    return parseShards(await this.file(index), this.manifest);
  }

  /** The code of a variant. */
  async library(variant: Variant): Promise<WebAssembly.Module> {
    return WebAssembly.compile((await this.file(variant.file)) as Uint8Array<ArrayBuffer>);
  }

  /** Bytes of a file, checked. */
  file(path: string): Promise<Uint8Array> {
    return this.withFile(path, (bytes) => bytes);
  }

  /** The same for as long as `use` takes: only a few files are on their way or in use at a time. */
  async withFile<T>(path: string, use: (bytes: Uint8Array) => T | Promise<T>): Promise<T> {
    const entry = this.entry(path);
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), this.#folder);
    return this.#slots.use(async () => use(await this.#downloader.file(url, entry)));
  }

  /** Size and hash of a file. */
  entry(path: string): FileEntry {
    const entry = this.#entries.get(path);
    if (entry !== undefined) return entry;
    throw new WebcompileError("artifact_invalid", `${MANIFEST_FILE} does not list ${path}`, "Compile the model again.");
  }
}

/** Lets so many run at a time, in order. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async use<T>(run: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await run();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
