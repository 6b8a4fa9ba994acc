import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, test } from "node:test";
import { type FileCache, FileSystemCache, WebCache } from "../src/cache.js";
import { type DownloadContext, Downloader, sha256 } from "../src/download.js";
import type { WebcompileError } from "../src/errors.js";
import type { FileEntry } from "../src/generated/contracts.js";
import { startServer, type TestServer } from "./server.js";
import { MemoryFolder, MemoryWebCache } from "./storage.js";

const BYTES = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) % 256);
const HASH = createHash("sha256").update(BYTES).digest("hex");
const ENTRY: FileEntry = { path: "shard 0.bin", nbytes: BYTES.length, sha256: HASH };

let server: TestServer;
let received: { network: number; cache: number };
let warnings: WebcompileError[];
const controller = new AbortController();

beforeEach(async () => {
  server = await startServer();
  server.files.set(ENTRY.path, BYTES);
  received = { network: 0, cache: 0 };
  warnings = [];
});
afterEach(() => server.close());

function downloader(cache?: FileCache, more: Partial<DownloadContext> = {}): Downloader {
  return new Downloader({
    fetch,
    signal: controller.signal,
    cache,
    onBytes: (nbytes, source) => (received[source] += nbytes),
    onWarning: (warning) => warnings.push(warning),
    retryMs: 1,
    ...more,
  });
}
const fileSystemCache = (folder: MemoryFolder): FileCache => new FileSystemCache(folder as unknown as FileSystemDirectoryHandle);
const url = (): URL => new URL(encodeURIComponent(ENTRY.path), server.url);
const isWhole = (bytes: Uint8Array): void => {
  assert.equal(Buffer.compare(bytes, BYTES), 0);
};

test("sha256", async () => {
  assert.equal(await sha256(BYTES), HASH);
});

describe("without a cache", () => {
  test("a file arrives and is counted", async () => {
    isWhole(await downloader().file(url(), ENTRY));
    assert.deepEqual(received, { network: BYTES.length, cache: 0 });
  });

  test("a connection that breaks is continued where it broke", async () => {
    server.cuts.push(50_000, 30_000);
    isWhole(await downloader().file(url(), ENTRY));
    assert.equal(server.requests.length, 3);
    assert.ok(server.requests.slice(1).every((request) => /^bytes=[1-9]\d*-$/.test(request.range)));
    assert.equal(received.network, BYTES.length);
  });

  test("a server without ranges is asked again from the start", async () => {
    server.acceptsRanges = false;
    server.cuts.push(50_000);
    isWhole(await downloader().file(url(), ENTRY));
    assert.equal(received.network + received.cache, BYTES.length);
  });

  test("errors that may pass are retried", async () => {
    let failures = 3;
    server.intercept = (_request, response) => {
      if (failures-- <= 0) return false;
      response.writeHead(503).end();
      return true;
    };
    isWhole(await downloader().file(url(), ENTRY));
    assert.equal(server.requests.length, 4);
  });

  test("one that lasts is download_failed with address and status", async () => {
    server.intercept = (_request, response) => {
      response.writeHead(500).end();
      return true;
    };
    await assert.rejects(downloader().file(url(), ENTRY), {
      code: "download_failed",
      message: /shard%200\.bin answered with status 500 \(6 attempts\)/,
    });
  });

  test("no server at all", async () => {
    await server.close();
    await assert.rejects(downloader().file(url(), ENTRY), { code: "download_failed" });
  });

  test("a missing file is artifact_invalid at once", async () => {
    server.files.clear();
    await assert.rejects(downloader().file(url(), ENTRY), { code: "artifact_invalid", message: /shard%200\.bin.*404/ });
    assert.equal(server.requests.length, 1);
  });

  test("wrong bytes are artifact_corrupt with both hashes", async () => {
    server.files.set(ENTRY.path, BYTES.with(5, 99));
    await assert.rejects(downloader().file(url(), ENTRY), (error: WebcompileError) => {
      assert.equal(error.code, "artifact_corrupt");
      assert.match(error.message, /shard%200\.bin has sha256 [0-9a-f]{64}/);
      return error.message.includes(HASH);
    });
  });

  test("too many bytes are artifact_corrupt", async () => {
    server.files.set(ENTRY.path, new Uint8Array(BYTES.length + 1));
    await assert.rejects(downloader().file(url(), ENTRY), { code: "artifact_corrupt", message: /larger than the 200000 bytes/ });
  });

  test("an abort stops it", async () => {
    const abort = new AbortController();
    server.intercept = () => true; // Never answers.
    const file = downloader(undefined, { signal: abort.signal }).file(url(), ENTRY);
    setTimeout(() => {
      abort.abort();
    }, 20);
    await assert.rejects(file, { code: "aborted" });
  });

  test("small files have a limit", async () => {
    server.files.set("manifest.json", Uint8Array.of(1, 2, 3));
    const small = new URL("manifest.json", server.url);
    assert.deepEqual(await downloader().small(small, 3, "model_not_found"), Uint8Array.of(1, 2, 3));
    await assert.rejects(downloader().small(small, 2, "model_not_found"), { code: "artifact_invalid", message: /3 bytes; at most 2/ });
    const missing = downloader().small(new URL("nothing.json", server.url), 2, "model_not_found");
    await assert.rejects(missing, { code: "model_not_found", message: /nothing\.json answered with status 404/ });
  });
});

const caches: [string, () => { cache: FileCache; names: () => string[]; corrupt: () => Promise<void> }][] = [
  [
    "the file system",
    () => {
      const folder = new MemoryFolder();
      const corrupt = async (): Promise<void> => {
        folder.files.set(HASH, BYTES.with(0, 77));
        return Promise.resolve();
      };
      return { cache: fileSystemCache(folder), names: () => [...folder.files.keys()], corrupt };
    },
  ],
  [
    "a file system without move",
    () => {
      const folder = new MemoryFolder();
      folder.canMove = false;
      const corrupt = async (): Promise<void> => {
        folder.files.set(HASH, BYTES.slice(1));
        return Promise.resolve();
      };
      return { cache: fileSystemCache(folder), names: () => [...folder.files.keys()], corrupt };
    },
  ],
  [
    "the Cache API",
    () => {
      const web = new MemoryWebCache();
      const names = (): string[] => [...web.entries.keys()].map((key) => key.replace("https://webcompile.invalid/", ""));
      const corrupt = async (): Promise<void> => {
        await web.put(`https://webcompile.invalid/${HASH}`, new Response("garbage"));
      };
      return { cache: new WebCache(web as unknown as Cache), names, corrupt };
    },
  ],
];

for (const [name, make] of caches) {
  describe(`with ${name} as cache`, () => {
    test("the second time nothing is downloaded", async () => {
      const { cache, names } = make();
      isWhole(await downloader(cache).file(url(), ENTRY));
      assert.deepEqual(names(), [HASH]);
      isWhole(await downloader(cache).file(url(), ENTRY));
      assert.equal(server.requests.length, 1);
      assert.equal(received.cache, BYTES.length);
    });

    test("a download that was given up is continued by the next", async () => {
      const { cache, names } = make();
      server.cuts.push(...Array<number>(20).fill(0));
      server.cuts[0] = 120_000;
      await assert.rejects(downloader(cache).file(url(), ENTRY), { code: "download_failed" });
      assert.deepEqual(names(), [`${HASH}.partial`]);
      server.cuts.length = 0;
      server.requests.length = 0;
      isWhole(await downloader(cache).file(url(), ENTRY));
      assert.match(server.requests[0]?.range ?? "", /^bytes=[1-9]\d*-$/);
      assert.deepEqual(names(), [HASH]);
    });

    test("a continued download of another file starts again", async () => {
      const { cache, names } = make();
      const partial = await cache.open(HASH);
      await partial.append(new Uint8Array(1000));
      await partial.keep();
      isWhole(await downloader(cache).file(url(), ENTRY));
      assert.deepEqual(server.requests.map((request) => request.range), ["bytes=1000-", ""]);
      assert.deepEqual(names(), [HASH]);
    });

    test("a partial file that is too long starts again", async () => {
      const { cache } = make();
      const partial = await cache.open(HASH);
      await partial.append(new Uint8Array(BYTES.length + 1));
      await partial.keep();
      isWhole(await downloader(cache).file(url(), ENTRY));
    });

    test("wrong bytes are not kept", async () => {
      const { cache, names } = make();
      server.files.set(ENTRY.path, BYTES.with(5, 99));
      await assert.rejects(downloader(cache).file(url(), ENTRY), { code: "artifact_corrupt" });
      assert.deepEqual(names(), []);
    });

    test("a file that was damaged in the cache is downloaded again", async () => {
      const { cache, corrupt } = make();
      isWhole(await downloader(cache).file(url(), ENTRY));
      await corrupt();
      isWhole(await downloader(cache).file(url(), ENTRY));
      assert.equal(server.requests.length, 2);
    });
  });
}

test("a full disk is a warning, and the file arrives all the same", async () => {
  const folder = new MemoryFolder();
  folder.quota = 70_000;
  const both = downloader(fileSystemCache(folder));
  isWhole(await both.file(url(), ENTRY));
  isWhole(await both.file(url(), ENTRY));
  assert.deepEqual(warnings.map((warning) => warning.code), ["storage_full"]);
  assert.deepEqual([...folder.files.keys()], []);
});

test("a file that another page downloads just now is not stored twice, and that is no warning", async () => {
  const cache = fileSystemCache(new MemoryFolder());
  const other = await cache.open(HASH);
  isWhole(await downloader(cache).file(url(), ENTRY));
  assert.deepEqual(warnings, []);
  await other.discard();
});
