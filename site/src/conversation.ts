/** What was said. Plain data, kept as JSON; every change makes a new list, so views compare by identity. */

import type { PageError } from "./page-error.js";

export interface UserMessage {
  readonly role: "user";
  readonly text: string;
}

export interface AssistantMessage {
  readonly role: "assistant";
  readonly text: string;
  readonly state: "waiting" | "streaming" | "done" | "stopped" | "cut" | "failed";
  /** Name of the model that answered. */
  readonly model: string;
  readonly timing?: Timing;
  readonly error?: PageError;
}

export interface Timing {
  /** Time to first token, from sending to the first text. */
  readonly firstTokenMs: number;
  readonly completionTokens: number;
  /** Rate after the first token; 0 where there was one token only. */
  readonly tokensPerSecond: number;
  readonly promptTokens: number;
}

export type Message = UserMessage | AssistantMessage;

export interface Conversation {
  readonly id: string;
  readonly title: string;
  readonly messages: readonly Message[];
  /** When it last changed, in ms since 1970. */
  readonly changed: number;
}

/** An empty conversation. */
export function newConversation(): Conversation {
  return { id: crypto.randomUUID(), title: "", messages: [], changed: Date.now() };
}

/** The conversation with other messages; its title comes from the first thing the user said. */
export function withMessages(conversation: Conversation, messages: readonly Message[]): Conversation {
  const first = messages.find((message) => message.role === "user")?.text.trim().replace(/\s+/g, " ") ?? "";
  const title = first.length > 60 ? `${first.slice(0, 59)}…` : first;
  return { ...conversation, title, messages, changed: Date.now() };
}

/** The messages before the last thing the user said, and that text: to say or ask it again. */
export function beforeLastUser(messages: readonly Message[]): { earlier: readonly Message[]; text: string } | null {
  const index = messages.findLastIndex((message) => message.role === "user");
  const last = messages[index];
  return last === undefined ? null : { earlier: messages.slice(0, index), text: last.text };
}
