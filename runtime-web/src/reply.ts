/**
 * Takes a model's reply apart while it is written: what it thinks, what it says, which tools it calls.
 * `webcompile/engine/reply.py` is the same in Python; `tests/vectors/replies.json` holds both to it.
 */

const REASONING: readonly Marks[] = [
  ["<think>", "</think>"],
  ["[THINK]", "[/THINK]"],
];
const CALLS: readonly Marks[] = [
  ["<tool_call>", "</tool_call>"],
  ["<|tool_call_start|>", "<|tool_call_end|>"],
];

/** What a part of a reply stands between. */
type Marks = readonly [begin: string, end: string];

/** How a family of models marks the parts of a reply. */
export interface ReplyFormat {
  readonly reasoning: Marks | undefined;
  /** None for a reply that is nothing but calls, as JSON. */
  readonly call: Marks | undefined;
}

/** A call of a function; `arguments` are JSON. */
export interface ReplyCall {
  readonly name: string;
  readonly arguments: string;
}

/** What a piece of text adds to the parts of a reply. */
export interface ReplyDelta {
  readonly content: string;
  readonly reasoning: string;
  readonly calls: readonly ReplyCall[];
}

/** The format that a chat template (its Jinja source) shows. */
export function replyFormat(template: string): ReplyFormat {
  return {
    reasoning: REASONING.find(([, end]) => template.includes(end)),
    call: CALLS.find(([begin]) => template.includes(begin)),
  };
}

/** Cuts one reply. Text that only looks like a call is content: nothing is lost. */
export class ReplyParser {
  readonly #format: ReplyFormat;
  readonly #tools: boolean;
  #state: "start" | "reasoning" | "content" | "call" | "bare" = "start";
  #text = "";
  /** Only white space since the last mark: it is not part of what follows. */
  #isFresh = true;
  #content = "";
  #reasoning = "";
  #calls: ReplyCall[] = [];

  /** Calls are looked for if there are `tools`. Some templates end the `prompt` with the mark that opens thoughts. */
  constructor(format: ReplyFormat, { tools = false, prompt = "" }: { readonly tools?: boolean; readonly prompt?: string } = {}) {
    this.#format = format;
    this.#tools = tools;
    if (format.reasoning !== undefined && prompt.trimEnd().endsWith(format.reasoning[0])) this.#state = "reasoning";
  }

  /** The next piece of the reply. */
  push(text: string): ReplyDelta {
    this.#text += text;
    while (this.#step());
    return this.#take();
  }

  /** The reply has ended. */
  finish(): ReplyDelta {
    const text = this.#text;
    this.#text = "";
    if (this.#state === "bare") this.#addCalls(text, text);
    else if (this.#state === "call") this.#addCalls(text, (this.#format.call?.[0] ?? "") + text);
    else if (this.#state === "reasoning") this.#reasoning += this.#trimmed(text);
    else this.#content += this.#trimmed(text);
    return this.#take();
  }

  /** Cuts off what is certain; whether the state is another one now. */
  #step(): boolean {
    const { reasoning, call } = this.#format;
    if (this.#state === "start") return this.#start();
    if (this.#state === "reasoning" && reasoning !== undefined) {
      const { before, isFound } = this.#until(reasoning[1]);
      this.#reasoning += this.#trimmed(before);
      return isFound && this.#enter("start");
    }
    if (this.#state === "content" && this.#tools && call !== undefined) {
      const { before, isFound } = this.#until(call[0]);
      this.#content += this.#trimmed(before);
      return isFound && this.#enter("call");
    }
    if (this.#state === "content") {
      this.#content += this.#trimmed(this.#text);
      this.#text = "";
    }
    const end = this.#state === "call" && call !== undefined ? this.#text.indexOf(call[1]) : -1;
    if (end < 0 || call === undefined) return false;
    const inside = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + call[1].length);
    this.#addCalls(inside, call[0] + inside + call[1]);
    return this.#enter("content");
  }

  #start(): boolean {
    const { reasoning, call } = this.#format;
    const start = this.#text.trimStart();
    if (start === "") return false;
    if (reasoning?.[0].startsWith(start.slice(0, reasoning[0].length)) === true) {
      if (start.length < reasoning[0].length) return false;
      this.#text = start.slice(reasoning[0].length);
      return this.#enter("reasoning");
    }
    const isBare = this.#tools && call === undefined && /^[{[]/.test(start);
    return this.#enter(isBare ? "bare" : "content");
  }

  #enter(state: "start" | "reasoning" | "content" | "call" | "bare"): true {
    this.#state = state;
    this.#isFresh = true;
    return true;
  }

  /** Takes the text before the mark, and the mark; without it, all that cannot be its beginning. */
  #until(mark: string): { readonly before: string; readonly isFound: boolean } {
    const at = this.#text.indexOf(mark);
    if (at >= 0) {
      const before = this.#text.slice(0, at);
      this.#text = this.#text.slice(at + mark.length);
      return { before, isFound: true };
    }
    let held = mark.length - 1;
    while (!this.#text.endsWith(mark.slice(0, held))) held--;
    const before = this.#text.slice(0, this.#text.length - held);
    this.#text = this.#text.slice(before.length);
    return { before, isFound: false };
  }

  #trimmed(text: string): string {
    if (!this.#isFresh) return text;
    const trimmed = text.trimStart();
    this.#isFresh = trimmed === "";
    return trimmed;
  }

  #addCalls(text: string, raw: string): void {
    const calls = parseCalls(text);
    if (calls === undefined) this.#content += raw;
    else this.#calls.push(...calls);
  }

  #take(): ReplyDelta {
    const delta = { content: this.#content, reasoning: this.#reasoning, calls: this.#calls };
    this.#content = "";
    this.#reasoning = "";
    this.#calls = [];
    return delta;
  }
}

/** The calls that JSON stands for: one, or a list of them; undefined if it stands for something else. */
function parseCalls(text: string): ReplyCall[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const calls = (Array.isArray(value) ? (value as unknown[]) : [value]).map(parseCall);
  const known = calls.filter((call) => call !== undefined);
  return known.length > 0 && known.length === calls.length ? known : undefined;
}

function parseCall(value: unknown): ReplyCall | undefined {
  if (!isObject(value) || typeof value["name"] !== "string") return undefined;
  const given = value["arguments"] ?? value["parameters"] ?? {};
  return isObject(given) ? { name: value["name"], arguments: JSON.stringify(given) } : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
