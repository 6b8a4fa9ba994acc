/** Loading: everything that can go on at once does. */

import { Artifact } from "./artifact.js";
import { openCache } from "./cache.js";
import { checked, integer, optional, plainObject } from "./check.js";
import { Downloader } from "./download.js";
import { EngineCore, invalidRequest } from "./engine.js";
import { throwIfAborted, WebcompileError } from "./errors.js";
import { parseJson } from "./manifest.js";
import { Model } from "./model.js";
import { ProgressMeter } from "./progress.js";
import type { LoadParams } from "./protocol.js";
import { ChatTemplate } from "./template.js";
import { Tokenizer } from "./tokenizer.js";
import type { LoadProgress } from "./types.js";

/** What the engine's thread offers to it. */
export interface LoadHost {
  readonly fetch: typeof fetch;
  readonly gpu: GPU | undefined;
  readonly signal: AbortSignal;
  onProgress(progress: LoadProgress): void;
  onWarning(warning: WebcompileError): void;
  onLost(error: WebcompileError): void;
}

/** Loads the model of an artifact folder. */
export async function loadEngine(params: LoadParams, host: LoadHost): Promise<EngineCore> {
  checked(() => optional(integer(1))(params.maxContextTokens, "maxContextTokens"), invalidRequest);
  const started = performance.now();
  const progress = new ProgressMeter((report) => {
    host.onProgress(report);
  });
  // When one part fails, the others stop too.
  const failed = new AbortController();
  const signal = AbortSignal.any([host.signal, failed.signal]);
  const cache = await openCache();
  const downloader = new Downloader({
    fetch: host.fetch,
    signal,
    cache,
    onBytes: (nbytes, source) => {
      progress.downloaded(nbytes, source);
    },
    onWarning: (warning) => {
      host.onWarning(warning);
    },
  });
  const runtime = compileRuntime(new URL(params.runtime), host.fetch, signal);
  runtime.catch(() => undefined); // Reported when it is needed.
  let engine: EngineCore | undefined;
  try {
    const artifact = await Artifact.open(new URL(params.artifact), downloader);
    const { manifest } = artifact;
    const { tokenizer, config, chat_template: template } = manifest.tokenizer;
    const texts = [tokenizer, config, template, manifest.weights.index].filter((path) => path !== "");
    progress.expect(texts.reduce((sum, path) => sum + artifact.entry(path).nbytes, manifest.weights.nbytes));
    const [[tokenizerJson, configJson, templateText], model] = await Promise.all([
      Promise.all([
        readJson(artifact, tokenizer),
        readJson(artifact, config),
        template === "" ? undefined : artifact.file(template).then((bytes) => new TextDecoder().decode(bytes)),
      ]),
      Model.load(artifact, {
        gpu: host.gpu,
        runtime,
        maxContextTokens: params.maxContextTokens,
        variant: params.variant,
        cache,
        profile: params.profile ?? false,
        signal,
        events: {
          onKernel: (ready, total) => {
            if (engine === undefined) progress.compiled(ready, total);
          },
          onWarning: (warning) => {
            host.onWarning(warning);
          },
          onLost: (error) => {
            engine?.close(error);
            host.onLost(error);
          },
        },
        expect: (nbytes) => {
          progress.expect(nbytes);
        },
        onUploaded: (nbytes, total) => {
          progress.uploaded(nbytes, total);
        },
      }),
    ]);
    engine = new EngineCore({
      manifest,
      model,
      tokenizer: new Tokenizer(tokenizerJson, configJson),
      template: templateText === undefined ? undefined : new ChatTemplate(templateText, configJson),
      loadMs: performance.now() - started,
    });
    progress.ready();
    return engine;
  } catch (error) {
    failed.abort();
    throwIfAborted(host.signal);
    throw error;
  }
}

async function readJson(artifact: Artifact, path: string): Promise<object> {
  const invalid = (message: string): WebcompileError => new WebcompileError("artifact_invalid", `${path}: ${message}`);
  const bytes = await artifact.file(path);
  return checked(() => plainObject(parseJson(bytes), "it"), invalid);
}

async function compileRuntime(url: URL, fetchFile: typeof fetch, signal: AbortSignal): Promise<WebAssembly.Module> {
  const hint = "Serve runtime.wasm of this package there, or say where it is by the option `runtime`.";
  let response: Response;
  try {
    response = await fetchFile(url, { signal });
  } catch (error) {
    throw new WebcompileError("download_failed", `${url.href} could not be downloaded: ${String(error)}`, hint);
  }
  if (!response.ok) throw new WebcompileError("artifact_invalid", `${url.href} answered with status ${response.status}`, hint);
  try {
    // Not compileStreaming: it insists on a MIME type that many static servers do not send.
    return await WebAssembly.compile(await response.arrayBuffer());
  } catch (error) {
    throw new WebcompileError("artifact_invalid", `${url.href} is no WebAssembly module: ${String(error)}`, hint);
  }
}
