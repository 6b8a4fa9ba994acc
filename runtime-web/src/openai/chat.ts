/** OpenAI's chat completions over the engine. */

import type { EngineCore } from "../engine.js";
import type { GenerateUsage } from "../types.js";
import { parseChatRequest } from "./request.js";
import type { ChatCompletion, ChatCompletionChunk, ChatCompletionChunkChoice, CompletionUsage, FinishReason } from "./types.js";

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
  const sendDelta = (delta: ChatCompletionChunkChoice["delta"], finishReason: FinishReason | null): void => {
    send([{ index: 0, delta, logprobs: null, finish_reason: finishReason }], null);
  };

  let content = "";
  let finish: FinishReason = "length";
  let usage: CompletionUsage | undefined;
  sendDelta({ role: "assistant", content: "" }, null);
  await engine.generate(
    { ...request.generation, promptIds },
    (step) => {
      content += step.text;
      if (step.text !== "") sendDelta({ content: step.text }, null);
      if (step.finishReason !== null) sendDelta({}, (finish = step.finishReason));
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
    choices: [{ index: 0, message, logprobs: null, finish_reason: finish }],
    usage: total,
  };
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
