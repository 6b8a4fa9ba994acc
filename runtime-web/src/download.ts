/** One file of an artifact: from the cache or the network, continued where it broke off, checked against its hash. */

import type { FileCache, PartialFile } from "./cache.js";
import { WebcompileError, throwIfAborted } from "./errors.js";
import type { ErrorCode, FileEntry } from "./generated/contracts.js";

/** What downloads need and tell. */
export interface DownloadContext {
  readonly fetch: typeof fetch;
  readonly signal: AbortSignal;
  readonly cache: FileCache | undefined;
  readonly onBytes: (nbytes: number, source: "network" | "cache") => void;
  readonly onWarning: (warning: WebcompileError) => void;
  /** Wait before the first retry; it doubles with each. For tests. */
  readonly retryMs?: number;
}

const OK = 200;
const PARTIAL_CONTENT = 206;
const RANGE_NOT_SATISFIABLE = 416;

/** Attempts in a row that bring nothing; fewer for the first file, so that a wrong address shows soon. */
const ATTEMPTS = 6;
const SMALL_ATTEMPTS = 3;
const RETRY_MS = 500;
/** A connection that delivers nothing for so long is given up and made anew. */
const STALL_MS = 30_000;

/** Downloads files into memory and the cache. */
export class Downloader {
  readonly #context: DownloadContext;
  #cache: FileCache | undefined;

  constructor(context: DownloadContext) {
    this.#context = context;
    this.#cache = context.cache;
  }

  /**
   * A small file without a recorded hash, such as the manifest. It is never taken from the HTTP cache unchecked. `missing`
   * is the error's code when it is not there.
   */
  async small(url: URL, maxBytes: number, missing: ErrorCode): Promise<Uint8Array> {
    return this.#retrying(SMALL_ATTEMPTS, async (stall) => {
      const response = await this.#request(url, { cache: "no-cache" }, stall, missing);
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (bytes.length <= maxBytes) return bytes;
      throw new WebcompileError("artifact_invalid", `${url.href} has ${bytes.length} bytes; at most ${maxBytes} are accepted`);
    });
  }

  /** All bytes of a file, which have the recorded size and hash. */
  async file(url: URL, entry: FileEntry): Promise<Uint8Array> {
    throwIfAborted(this.#context.signal);
    const cached = await this.#cached(entry);
    if (cached !== undefined) return cached;
    const partial = await this.#openPartial(entry);
    const download = new FileDownload(entry, this.#context, partial);
    try {
      await download.resume();
      for (let attempt = 0; ; attempt++) {
        const isResumed = download.received > 0;
        await this.#retrying(
          ATTEMPTS,
          (stall) => this.#receive(url, download, stall),
          () => download.received,
        );
        const got = await sha256(download.bytes);
        if (got === entry.sha256) break;
        if (!isResumed || attempt > 0) throw corrupt(url, entry, got);
        await download.restart();
      }
    } catch (error) {
      await (isCorrupt(error) ? download.end("discard") : download.end("keep"));
      throw error;
    }
    await download.end("commit");
    if (download.storageError !== undefined) this.#giveUpStorage(download.storageError);
    return download.bytes;
  }

  async #cached(entry: FileEntry): Promise<Uint8Array | undefined> {
    const bytes = await this.#cache?.read(entry.sha256);
    if (bytes === undefined) return undefined;
    if (bytes.length === entry.nbytes && (await sha256(bytes)) === entry.sha256) {
      this.#context.onBytes(bytes.length, "cache");
      return bytes;
    }
    await this.#cache?.delete(entry.sha256);
    return undefined;
  }

  async #openPartial(entry: FileEntry): Promise<PartialFile | undefined> {
    try {
      return await this.#cache?.open(entry.sha256);
    } catch (error) {
      // Another page that downloads the same file holds its lock: not a reason to stop storing the others.
      if (!(error instanceof DOMException && error.name === "NoModificationAllowedError")) this.#giveUpStorage(error);
      return undefined;
    }
  }

  #giveUpStorage(error: unknown): void {
    if (this.#cache === undefined) return;
    this.#cache = undefined;
    this.#context.onWarning(
      new WebcompileError(
        "storage_full",
        `the model cannot be stored on this device: ${error instanceof Error ? error.message : String(error)}`,
        "It works now, but will be downloaded again next time. Free some space to change that.",
      ),
    );
  }

  /** Requests what is missing and appends it as it arrives. */
  async #receive(url: URL, download: FileDownload, stall: Stall): Promise<void> {
    if (download.received === download.bytes.length) return;
    const headers: Record<string, string> = download.received > 0 ? { range: `bytes=${download.received}-` } : {};
    const response = await this.#request(url, { headers }, stall);
    const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
    const isContinued = response.status === PARTIAL_CONTENT && (start === undefined || Number(start) === download.received);
    if (!isContinued && download.received > 0) await download.restart();
    if (!isContinued && response.status !== OK) {
      await response.body?.cancel();
      throw new TypeError(`${url.href} does not have the range that was asked for`);
    }
    for await (const chunk of chunksOf(response)) {
      stall.alive();
      await download.append(chunk);
    }
    if (download.received < download.bytes.length) {
      throw new TypeError(`${url.href} ended after ${download.received} of ${download.bytes.length} bytes`);
    }
  }

  async #request(url: URL, init: RequestInit, stall: Stall, missing: ErrorCode = "artifact_invalid"): Promise<Response> {
    const response = await this.#context.fetch(url, { ...init, signal: stall.signal });
    if (response.ok || response.status === RANGE_NOT_SATISFIABLE) return response;
    await response.body?.cancel();
    const message = `${url.href} answered with status ${response.status}`;
    // These may pass: timeout, too many requests, server errors.
    if ([408, 429].includes(response.status) || response.status >= 500) throw new TypeError(message);
    throw new WebcompileError(missing, message, "Check the artifact's address and that all its files are there.");
  }

  /** Tries again, after growing pauses, what failed for reasons that may pass. Progress starts the count anew. */
  async #retrying<T>(attempts: number, run: (stall: Stall) => Promise<T>, progress = (): number => 0): Promise<T> {
    const { signal, retryMs = RETRY_MS } = this.#context;
    for (let attempt = 1; ; attempt++) {
      throwIfAborted(signal);
      const stall = new Stall(signal);
      const before = progress();
      try {
        return await run(stall);
      } catch (error) {
        throwIfAborted(signal);
        if (error instanceof WebcompileError) throw error;
        if (progress() > before) attempt = 1;
        if (attempt === attempts) {
          const message = `${error instanceof Error ? error.message : String(error)} (${attempts} attempts)`;
          throw new WebcompileError("download_failed", message, "Check the connection and try again: what arrived is kept.");
        }
      } finally {
        stall.end();
      }
      await pause(retryMs * 2 ** (attempt - 1), signal);
    }
  }
}

/** The bytes of a file so far, in memory and in the cache. A cache that fails is left behind. */
class FileDownload {
  readonly bytes: Uint8Array;
  received = 0;
  /** Why the cache was left behind. */
  storageError: unknown;
  readonly #entry: FileEntry;
  readonly #onBytes: DownloadContext["onBytes"];
  #partial: PartialFile | undefined;

  constructor(entry: FileEntry, context: DownloadContext, partial: PartialFile | undefined) {
    this.bytes = new Uint8Array(entry.nbytes);
    this.#entry = entry;
    this.#onBytes = context.onBytes;
    this.#partial = partial;
  }

  /** Takes over what the cache has. */
  async resume(): Promise<void> {
    const start = this.#partial?.start;
    if (start === undefined || start.length === 0) return;
    if (start.length > this.bytes.length) return this.restart();
    this.bytes.set(start);
    this.received = start.length;
    this.#onBytes(start.length, "cache");
  }

  async restart(): Promise<void> {
    if (this.received > 0) this.#onBytes(-this.received, "cache");
    this.received = 0;
    await this.#store((partial) => partial.restart());
  }

  async append(chunk: Uint8Array): Promise<void> {
    if (this.received + chunk.length > this.bytes.length) {
      const message = `${this.#entry.path} is larger than the ${this.#entry.nbytes} bytes that the manifest says`;
      throw new WebcompileError("artifact_corrupt", message, "Upload or compile the artifact again.");
    }
    this.bytes.set(chunk, this.received);
    this.received += chunk.length;
    this.#onBytes(chunk.length, "network");
    await this.#store((partial) => partial.append(chunk));
  }

  async end(how: "commit" | "keep" | "discard"): Promise<void> {
    await this.#store((partial) => partial[how](this.bytes));
    this.#partial = undefined;
  }

  async #store(run: (partial: PartialFile) => Promise<void>): Promise<void> {
    if (this.#partial === undefined) return;
    try {
      await run(this.#partial);
    } catch (error) {
      this.storageError = error;
      await this.#partial.discard().catch(() => undefined);
      this.#partial = undefined;
    }
  }
}

/** A signal that aborts with another one, or when nothing has been heard for a while. */
class Stall {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #abort = (): void => {
    this.#controller.abort(new TypeError("the request was cancelled"));
  };

  constructor(outer: AbortSignal) {
    this.#outer = outer;
    outer.addEventListener("abort", this.#abort);
    this.alive();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  alive(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#controller.abort(new TypeError(`the server sent nothing for ${STALL_MS / 1000} s`));
    }, STALL_MS);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.#abort);
  }
}

/** The sha256 of bytes in hexadecimal. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  // Typed as always there, but browsers leave it out on pages without https.
  const subtle = crypto.subtle as SubtleCrypto | undefined;
  if (subtle === undefined) {
    throw new WebcompileError(
      "webgpu_unavailable",
      "this page is not a secure context, where browsers allow neither WebGPU nor hashing",
      "Serve the page over https or from localhost.",
    );
  }
  const digest = await subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function* chunksOf(response: Response): AsyncGenerator<Uint8Array, void> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

function isCorrupt(error: unknown): boolean {
  return error instanceof WebcompileError && error.code === "artifact_corrupt";
}

function corrupt(url: URL, entry: FileEntry, got: string): WebcompileError {
  return new WebcompileError(
    "artifact_corrupt",
    `${url.href} has sha256 ${got}; the manifest says ${entry.sha256}`,
    "Upload or compile the artifact again.",
  );
}
