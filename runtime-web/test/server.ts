/** A file server that understands Range and can be told to misbehave. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface TestServer {
  readonly url: URL;
  readonly files: Map<string, Uint8Array>;
  /** Range headers (or "") of the requests of each path. */
  readonly requests: { readonly path: string; readonly range: string }[];
  /** Answers a request instead of the file; true if it did. */
  intercept: (request: IncomingMessage, response: ServerResponse, path: string) => boolean;
  /** Cuts the connection after so many bytes of the next answers, in order. */
  readonly cuts: number[];
  acceptsRanges: boolean;
  close(): Promise<void>;
}

export async function startServer(): Promise<TestServer> {
  const http = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname.slice(1));
    server.requests.push({ path, range: request.headers.range ?? "" });
    if (server.intercept(request, response, path)) return;
    const file = server.files.get(path);
    if (file === undefined) {
      response.writeHead(404).end("not found");
      return;
    }
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? NaN);
    const isPartial = server.acceptsRanges && !Number.isNaN(start);
    if (isPartial && start >= file.length) {
      response.writeHead(416).end();
      return;
    }
    const body = isPartial ? file.subarray(start) : file;
    const range = isPartial ? { "content-range": `bytes ${start}-${file.length - 1}/${file.length}` } : {};
    response.writeHead(isPartial ? 206 : 200, { "content-length": body.length, ...range });
    const cut = server.cuts.shift();
    if (cut === undefined) response.end(body);
    else response.write(body.subarray(0, cut), () => response.destroy());
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const server: TestServer = {
    url: new URL(`http://127.0.0.1:${(http.address() as AddressInfo).port}/`),
    files: new Map(),
    requests: [],
    intercept: () => false,
    cuts: [],
    acceptsRanges: true,
    close: () =>
      new Promise((resolve) => {
        http.closeAllConnections();
        http.close(() => {
          resolve();
        });
      }),
  };
  return server;
}
