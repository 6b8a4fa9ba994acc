/** One request to the engine, told as a growing message. */

import type { ChatMessage, Engine } from "webcompile";

import type { AssistantMessage, Message, Timing } from "./conversation.js";
import { toPageError } from "./page-error.js";
import type { Settings } from "./settings.js";
import { joinThinking, splitThinking } from "./thinking.js";

/** The request's messages: the system prompt and what was said, without answers that failed or thoughts. */
export function requestMessages(messages: readonly Message[], systemPrompt: string): ChatMessage[] {
  const request: ChatMessage[] = systemPrompt.trim() === "" ? [] : [{ role: "system", content: systemPrompt }];
  for (const message of messages) {
    if (message.role === "user") request.push({ role: "user", content: message.text });
    else if (message.text !== "") request.push({ role: "assistant", content: splitThinking(message.text).answer });
  }
  return request;
}

/**
 * Asks and calls `onChange` with the message as it grows, and with its final form, which is also the result. Never
 * rejects: a failure is a state of the message.
 */
export async function streamAnswer(
  engine: Engine,
  messages: readonly Message[],
  settings: Settings,
  signal: AbortSignal,
  onChange: (message: AssistantMessage) => void,
): Promise<AssistantMessage> {
  const model = engine.info.model.name;
  const started = performance.now();
  let thoughts = "";
  let answer = "";
  let text = "";
  let firstTime = 0;
  let lastTime = 0;
  let tokens = 0;
  let promptTokens = 0;
  let state: AssistantMessage["state"] = "done";

  const timing = (): Timing => ({
    firstTokenMs: firstTime - started,
    completionTokens: tokens,
    promptTokens,
    tokensPerSecond: tokens > 1 && lastTime > firstTime ? ((tokens - 1) * 1000) / (lastTime - firstTime) : 0,
  });
  const message = (now: AssistantMessage["state"]): AssistantMessage =>
    tokens > 0 ? { role: "assistant", text, state: now, model, timing: timing() } : { role: "assistant", text, state: now, model };

  try {
    onChange(message("waiting"));
    const chunks = await engine.chat.completions.create(
      {
        messages: requestMessages(messages, settings.systemPrompt),
        temperature: settings.temperature,
        top_p: settings.topP,
        max_tokens: settings.maxTokens,
        seed: settings.seed,
        stream: true,
        stream_options: { include_usage: true },
      },
      { signal },
    );
    for await (const chunk of chunks) {
      const choice = chunk.choices[0];
      const { content = "", reasoning_content: thought = "" } = choice?.delta ?? {};
      if (content !== "" || thought !== "") {
        lastTime = performance.now();
        if (firstTime === 0) firstTime = lastTime;
        tokens += 1;
        thoughts += thought;
        answer += content;
        text = joinThinking(thoughts, answer);
        onChange(message("streaming"));
      }
      if (choice?.finish_reason === "length") state = "cut";
      if (chunk.usage) {
        tokens = chunk.usage.completion_tokens;
        promptTokens = chunk.usage.prompt_tokens;
      }
    }
  } catch (thrown) {
    const error = toPageError(thrown);
    if (error.code !== "aborted") {
      const failed: AssistantMessage = { ...message("failed"), error };
      onChange(failed);
      return failed;
    }
    state = "stopped";
  }
  const final = message(state);
  onChange(final);
  return final;
}
