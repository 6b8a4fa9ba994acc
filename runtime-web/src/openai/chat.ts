/** OpenAI's chat completions over the engine. */

import type { EngineCore } from "../engine.js";
import type { Tokenizer } from "../tokenizer.js";
import type { GenerateUsage, TokenLogprob, TokenLogprobs } from "../types.js";
import { parseChatRequest } from "./request.js";
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionChunkChoice,
  ChatCompletionLogprobs,
  ChatCompletionTokenLogprob,
  CompletionUsage,
  FinishReason,
  TopLogprob,
} from "./types.js";

/** Answers a request: pushes chunks and returns null if it asks for a stream, else returns the whole. */
export async function completeChat(
  engine: EngineCore,
  value: unknown,
  emit: (chunk: ChatCompletionChunk) => void,
  signal: AbortSignal,
): Promise<ChatCompletion | null> {
  const request = parseChatRequest(value);
  const promptIds = engine.promptOf(request.messages, request.templateVariables);
  const head = { id: `chatcmpl-${randomId()}`, created: Math.floor(Date.now() / 1000), model: engine.info.model.name };

  const send = (choices: readonly ChatCompletionChunkChoice[], usage: CompletionUsage | null): void => {
    if (!request.isStream) return;
    emit({ ...head, object: "chat.completion.chunk", choices, ...(request.includeUsage && { usage }) });
  };
  const sendDelta = (choice: Partial<ChatCompletionChunkChoice>): void => {
    send([{ index: 0, delta: {}, logprobs: null, finish_reason: null, ...choice }], null);
  };

  let content = "";
  const logprobs: ChatCompletionTokenLogprob[] = [];
  let finish: FinishReason = "length";
  let usage: CompletionUsage | undefined;
  sendDelta({ delta: { role: "assistant", content: "" } });
  await engine.generate(
    { ...request.generation, promptIds },
    (step) => {
      content += step.text;
      const likely = step.logprobs?.map((token) => tokenLogprob(engine.tokenizer, token));
      logprobs.push(...(likely ?? []));
      if (step.text !== "" || likely) sendDelta({ delta: { content: step.text }, logprobs: likely ? contentLogprobs(likely) : null });
      if (step.finishReason !== null) sendDelta({ finish_reason: (finish = step.finishReason) });
      if (step.usage !== null) usage = usageOf(step.usage);
    },
    signal,
  );
  const total = usage ?? usageOf({ promptTokens: promptIds.length, completionTokens: 0, cachedPromptTokens: 0 });
  if (request.isStream) {
    if (request.includeUsage) send([], total);
    return null;
  }
  const message = { role: "assistant", content, refusal: null } as const;
  return {
    ...head,
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message,
        logprobs: request.generation.logprobs === undefined ? null : contentLogprobs(logprobs),
        finish_reason: finish,
      },
    ],
    usage: total,
  };
}

function contentLogprobs(content: readonly ChatCompletionTokenLogprob[]): ChatCompletionLogprobs {
  return { content, refusal: null };
}

function tokenLogprob(tokenizer: Tokenizer, { top, ...token }: TokenLogprobs): ChatCompletionTokenLogprob {
  const of = ({ tokenId, logprob }: TokenLogprob): TopLogprob => ({ ...tokenizer.spelling(tokenId), logprob });
  return { ...of(token), top_logprobs: top.map(of) };
}

function usageOf({ promptTokens, completionTokens, cachedPromptTokens }: GenerateUsage): CompletionUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedPromptTokens },
  };
}

function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
