/** Checks a chat completion request. Parameters that are not known or not supported are refused by name. */

import { boolean, type Check, checked, integer, list, oneOf, optional, plainObject, record, text } from "../check.js";
import { invalidRequest, stopTexts } from "../engine.js";
import { samplingFields } from "../sampling.js";
import type { TemplateMessage } from "../template.js";
import type { GenerateRequest } from "../types.js";

/** A checked request. */
export interface ChatRequest {
  readonly messages: readonly TemplateMessage[];
  readonly templateVariables: Readonly<Record<string, unknown>>;
  /** All but the prompt. */
  readonly generation: Omit<GenerateRequest, "prompt" | "promptIds">;
  readonly isStream: boolean;
  readonly includeUsage: boolean;
}

const textPart = record<{ type: "text"; text: string }>({ type: oneOf("text"), text: text() });

const content: Check<string> = (value, name) =>
  Array.isArray(value)
    ? list(textPart)(value, name)
        .map((part) => part.text)
        .join("")
    : text()(value, name);

const message: Check<TemplateMessage> = (value, label) => {
  const { role, content: said, name } = record<{ role: string; content: string; name: string | undefined }>({
    role: oneOf("system", "developer", "user", "assistant", "tool"),
    content,
    name: optional(text()),
  })(value, label);
  return { role, content: said, ...(name !== undefined && { name }) };
};

const maxTokens = optional(integer(1));

/** All parameters that are accepted. Of some, only the value that changes nothing. */
const parameters = {
  messages: list(message, 100_000),
  model: optional(text()),
  temperature: samplingFields.temperature,
  top_p: samplingFields.topP,
  top_k: samplingFields.topK,
  min_p: samplingFields.minP,
  repetition_penalty: samplingFields.repetitionPenalty,
  frequency_penalty: samplingFields.frequencyPenalty,
  presence_penalty: samplingFields.presencePenalty,
  logit_bias: samplingFields.logitBias,
  seed: samplingFields.seed,
  logprobs: optional(boolean),
  top_logprobs: samplingFields.logprobs,
  max_tokens: maxTokens,
  max_completion_tokens: maxTokens,
  stop: optional(stopTexts),
  n: optional(oneOf(1)),
  stream: optional(boolean),
  stream_options: optional(record<{ include_usage: boolean | undefined }>({ include_usage: optional(boolean) })),
  response_format: optional(record<{ type: "text" }>({ type: oneOf("text") })),
  user: optional(text()),
  ignore_eos: optional(boolean),
  chat_template_kwargs: optional(plainObject),
};

const chatRequest = record<{ [K in keyof typeof parameters]: ReturnType<(typeof parameters)[K]> }>(parameters);

/** The request, typed, or `request_invalid`. */
export function parseChatRequest(value: unknown): ChatRequest {
  const request = checked(() => chatRequest(value, "request"), invalidRequest);
  if (request.messages.length === 0) throw invalidRequest("request.messages is empty");
  if (request.max_tokens !== undefined && request.max_completion_tokens !== undefined) {
    throw invalidRequest("request has both max_tokens and max_completion_tokens, which are the same");
  }
  if (request.stream_options !== undefined && request.stream !== true) {
    throw invalidRequest("request.stream_options needs stream: true");
  }
  if (request.top_logprobs !== undefined && request.logprobs !== true) {
    throw invalidRequest("request.top_logprobs needs logprobs: true");
  }
  return {
    messages: request.messages,
    templateVariables: request.chat_template_kwargs ?? {},
    generation: {
      maxTokens: request.max_tokens ?? request.max_completion_tokens,
      temperature: request.temperature,
      topP: request.top_p,
      topK: request.top_k,
      minP: request.min_p,
      repetitionPenalty: request.repetition_penalty,
      frequencyPenalty: request.frequency_penalty,
      presencePenalty: request.presence_penalty,
      logitBias: request.logit_bias,
      seed: request.seed,
      logprobs: request.logprobs === true ? (request.top_logprobs ?? 0) : undefined,
      stop: request.stop,
      ignoreEos: request.ignore_eos,
    },
    isStream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
  };
}
