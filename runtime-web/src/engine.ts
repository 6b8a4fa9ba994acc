/** The engine: requests in turn on one sequence, whose tokens stay in the KV cache for the next request to build on. */

import { boolean, type Check, checked, integer, list, optional, record, text } from "./check.js";
import { Detokenizer } from "./detokenizer.js";
import { throwIfAborted, WebcompileError } from "./errors.js";
import type { Manifest } from "./generated/contracts.js";
import type { Gpu, GpuCounters } from "./gpu.js";
import type { Model } from "./model.js";
import { logprobsOf, Sampler } from "./sampler.js";
import { samplingFields, samplingParams, type SamplingParams } from "./sampling.js";
import { Scheduler } from "./scheduler.js";
import { StopMatcher } from "./stop.js";
import type { ChatTemplate } from "./template.js";
import type { Tokenizer } from "./tokenizer.js";
import type { EngineInfo, EngineStats, GenerateRequest, GenerateStep, Profile } from "./types.js";

/** What the engine needs of a model. */
export type EngineModel = Pick<Model, "contextTokens" | "destroy" | "hostMs" | "kvCacheBytes" | "run" | "vocabSize"> & {
  readonly gpu: Pick<Gpu, "adapter" | "counters" | "profile">;
  readonly variant: { readonly name: string };
};

/** What an engine is made of. */
export interface EngineParts {
  readonly manifest: Manifest;
  readonly model: EngineModel;
  readonly tokenizer: Tokenizer;
  /** Not there if the model is not made for conversations. */
  readonly template: ChatTemplate | undefined;
  readonly loadMs: number;
}

/** A checked request. */
interface Generation {
  readonly promptIds: readonly number[];
  readonly maxTokens: number;
  readonly stops: readonly string[];
  readonly ignoreEos: boolean;
  readonly sampling: SamplingParams;
  /** How many alternatives to tell the log probabilities of, if any are wanted. */
  readonly logprobs: number | undefined;
}

/** What was counted for the last request. */
type RequestStats = Omit<EngineStats, "pipelines" | "bindGroups" | "buffers" | "bufferBytes" | "loadMs" | "contextUsed">;

const NO_REQUEST: RequestStats = {
  dispatchesPerToken: 0,
  submitsPerToken: 0,
  hostMsPerToken: 0,
  bytesWrittenPerToken: 0,
  bytesReadPerToken: 0,
  gpuObjectsPerToken: 0,
  replayedTokens: 0,
  prefillTokensPerSecond: 0,
  decodeTokensPerSecond: 0,
  timeToFirstTokenMs: 0,
  promptTokens: 0,
  cachedPromptTokens: 0,
  completionTokens: 0,
};

const generateRequest = record<GenerateRequest>({
  promptIds: optional(list(integer(0))),
  prompt: optional(text()),
  maxTokens: optional(integer(1)),
  ...samplingFields,
  stop: optional(stopTexts),
  ignoreEos: optional(boolean),
});

/** A loaded model and the sequence in its KV cache. */
export class EngineCore {
  readonly info: EngineInfo;
  readonly tokenizer: Tokenizer;
  readonly #template: ChatTemplate | undefined;
  readonly #manifest: Manifest;
  readonly #model: EngineModel;
  readonly #scheduler = new Scheduler();
  /** Tokens whose keys and values are in the cache. */
  readonly #sequence: number[] = [];
  readonly #logits: Float32Array<ArrayBuffer>;
  readonly #loadMs: number;
  #lastRequest = NO_REQUEST;

  constructor({ manifest, model, tokenizer, template, loadMs }: EngineParts) {
    this.#manifest = manifest;
    this.#model = model;
    this.tokenizer = tokenizer;
    this.#template = template;
    this.#logits = new Float32Array(model.vocabSize);
    this.#loadMs = loadMs;
    this.info = {
      model: manifest.model,
      variant: model.variant.name,
      device: "webgpu",
      adapter: model.gpu.adapter,
      contextTokens: model.contextTokens,
      weightBytes: manifest.weights.nbytes,
      kvCacheBytes: model.kvCacheBytes,
    };
  }

  /** Generates and pushes steps; resolves after the last, which has the usage. */
  async generate(request: GenerateRequest, emit: (step: GenerateStep) => void, signal: AbortSignal): Promise<void> {
    const arrived = performance.now();
    const generation = this.#generation(request);
    await this.#scheduler.run(signal, () => this.#guarded(() => this.#generate(generation, emit, signal, arrived)));
  }

  /** The logits after a prompt, computed without what is in the cache. */
  async forward(promptIds: readonly number[], signal: AbortSignal): Promise<Float32Array> {
    this.#checkPrompt(promptIds);
    return this.#scheduler.run(signal, () =>
      this.#guarded(async () => {
        this.#sequence.length = 0;
        await this.#prefill(promptIds, signal);
        return this.#logits.slice();
      }),
    );
  }

  /** Token ids of a conversation in the model's own format. */
  promptOf(messages: Parameters<ChatTemplate["render"]>[0], variables: Readonly<Record<string, unknown>>): number[] {
    if (this.#template === undefined) {
      throw new WebcompileError(
        "template_invalid",
        "this model has no chat template",
        "It is not made for conversations: use engine.generate with a prompt.",
      );
    }
    return this.tokenizer.encode(this.#template.render(messages, variables), { addSpecialTokens: false });
  }

  stats(): EngineStats {
    const { pipelines, bindGroups, buffers, bufferBytes } = this.#model.gpu.counters;
    const gpu = { pipelines, bindGroups, buffers, bufferBytes };
    return { ...this.#lastRequest, ...gpu, loadMs: this.#loadMs, contextUsed: this.#sequence.length };
  }

  /** Device time by kernel since the last profile, after the requests before it. */
  async profile(signal: AbortSignal): Promise<Profile> {
    return this.#scheduler.run(signal, () => this.#model.gpu.profile());
  }

  /** Rejects what waits, fails what runs, frees the device. */
  close(error = new WebcompileError("engine_closed", "the engine was unloaded")): void {
    this.#scheduler.close(error);
    this.#model.destroy();
  }

  #generation(request: GenerateRequest): Generation {
    const checkedRequest = checked(() => generateRequest(request, "request"), invalidRequest);
    const { prompt, maxTokens = Infinity, stop = [], logprobs } = checkedRequest;
    if ((prompt === undefined) === (checkedRequest.promptIds === undefined)) {
      throw invalidRequest("request needs one of prompt and promptIds");
    }
    const promptIds = checkedRequest.promptIds ?? this.tokenizer.encode(prompt ?? "", { addSpecialTokens: true });
    this.#checkPrompt(promptIds);
    return {
      promptIds,
      maxTokens: Math.min(maxTokens, this.info.contextTokens - promptIds.length + 1),
      stops: typeof stop === "string" ? [stop] : stop,
      ignoreEos: checkedRequest.ignoreEos ?? false,
      sampling: samplingParams(checkedRequest, this.#model.vocabSize),
      logprobs,
    };
  }

  #checkPrompt(promptIds: readonly number[]): void {
    if (promptIds.length === 0) throw invalidRequest("the prompt has no tokens");
    const outside = promptIds.find((id) => !Number.isInteger(id) || id < 0 || id >= this.#model.vocabSize);
    if (outside !== undefined) throw invalidRequest(`token id ${outside} is not in the vocabulary of ${this.#model.vocabSize}`);
    if (promptIds.length <= this.info.contextTokens) return;
    throw new WebcompileError(
      "context_overflow",
      `the prompt has ${promptIds.length} tokens; the context window has ${this.info.contextTokens}`,
      "Shorten the conversation, or create the engine with a larger maxContextTokens if the model allows it.",
    );
  }

  async #generate(
    { promptIds, maxTokens, stops, ignoreEos, sampling, logprobs: alternatives }: Generation,
    emit: (step: GenerateStep) => void,
    signal: AbortSignal,
    arrived: number,
  ): Promise<void> {
    const started = performance.now();
    const cachedPromptTokens = await this.#prefill(promptIds, signal);
    const prefilled = performance.now();
    const before = { ...this.#model.gpu.counters, hostMs: this.#model.hostMs };

    const sampler = new Sampler(sampling, this.#model.vocabSize, promptIds);
    const detokenizer = new Detokenizer(this.tokenizer);
    const stopMatcher = new StopMatcher(stops);
    const endTokens = new Set(ignoreEos ? [] : this.#manifest.tokenizer.eos_token_ids);
    let samplingMs = 0;
    for (let completionTokens = 1; ; completionTokens++) {
      const sampleStart = performance.now();
      const token = sampler.sample(this.#logits);
      const logprobs = alternatives === undefined ? null : [logprobsOf(this.#logits, token, alternatives)];
      samplingMs += performance.now() - sampleStart;
      const isEnd = endTokens.has(token);
      const isLast = isEnd || completionTokens === maxTokens;
      // The device starts on the next step before this one's text is made.
      const next = isLast ? Promise.resolve() : this.#append([token]);
      next.catch(() => undefined);

      const piece = (isEnd ? "" : detokenizer.push(token)) + (isLast ? detokenizer.flush() : "");
      const { text, stopped } = stopMatcher.push(piece);
      const finishReason = stopped || isEnd ? "stop" : isLast ? "length" : null;
      const usage = finishReason && { promptTokens: promptIds.length, completionTokens, cachedPromptTokens };
      emit({ tokenIds: [token], text: isLast && !stopped ? text + stopMatcher.flush() : text, logprobs, finishReason, usage });
      await next;
      if (usage !== null) {
        this.#lastRequest = {
          ...decodeStats(before, this.#model, samplingMs, completionTokens - 1),
          ...usage,
          timeToFirstTokenMs: prefilled - arrived,
          prefillTokensPerSecond: perSecond(promptIds.length - cachedPromptTokens, prefilled - started),
          decodeTokensPerSecond: perSecond(completionTokens - 1, performance.now() - prefilled),
        };
        return;
      }
      throwIfAborted(signal);
    }
  }

  /** Brings the prompt into the cache, keeping what it shares with the last sequence; how many tokens that was. */
  async #prefill(promptIds: readonly number[], signal: AbortSignal): Promise<number> {
    const shared = promptIds.findIndex((id, index) => id !== this.#sequence[index]);
    // The last token always runs: its logits are wanted.
    const cached = Math.min(shared < 0 ? promptIds.length : shared, promptIds.length - 1);
    this.#sequence.length = cached;
    const chunk = this.#manifest.model.prefill_chunk_tokens;
    for (let start = cached; start < promptIds.length; start += chunk) {
      throwIfAborted(signal);
      const end = Math.min(start + chunk, promptIds.length);
      await this.#append(promptIds.slice(start, end), end === promptIds.length);
    }
    return cached;
  }

  async #append(tokens: readonly number[], wantsLogits = true): Promise<void> {
    const position = this.#sequence.length;
    this.#sequence.push(...tokens);
    await this.#model.run(tokens, position, wantsLogits ? this.#logits : undefined);
  }

  /** After a failure nobody knows what is in the cache. */
  async #guarded<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof WebcompileError && error.code === "aborted")) this.#sequence.length = 0;
      throw error;
    }
  }
}

/** A check of stop texts. */
export function stopTexts(value: unknown, name: string): string | string[] {
  const stop: Check<string> = text(/^[^]+$/);
  return Array.isArray(value) ? list(stop, 16)(value, name) : stop(value, name);
}

/** The error of a malformed request. */
export function invalidRequest(message: string): WebcompileError {
  return new WebcompileError("request_invalid", message);
}

function decodeStats(
  before: GpuCounters & { readonly hostMs: number },
  { gpu: { counters }, hostMs }: EngineModel,
  samplingMs: number,
  steps: number,
): Pick<RequestStats, `${string}PerToken` & keyof RequestStats | "replayedTokens"> {
  const each = (difference: number): number => (steps === 0 ? 0 : difference / steps);
  return {
    dispatchesPerToken: each(counters.dispatches - before.dispatches),
    submitsPerToken: each(counters.submits - before.submits),
    hostMsPerToken: each(hostMs - before.hostMs + samplingMs),
    bytesWrittenPerToken: each(counters.bytesWritten - before.bytesWritten),
    bytesReadPerToken: each(counters.bytesRead - before.bytesRead),
    gpuObjectsPerToken: each(counters.objectsCreated - before.objectsCreated),
    replayedTokens: counters.replays - before.replays,
  };
}

function perSecond(count: number, ms: number): number {
  return ms > 0 ? (count / ms) * 1000 : 0;
}
