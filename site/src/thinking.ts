/** A message keeps the thoughts of a reasoning model between `<think>` and `</think>` before the answer. */

export interface Thinking {
  /** The thoughts; empty if there are none. */
  readonly thoughts: string;
  /** What follows them. */
  readonly answer: string;
  /** Whether the closing tag has come. */
  readonly finished: boolean;
}

/** Splits an answer, finished or not, into thoughts and answer. */
export function splitThinking(text: string): Thinking {
  const begin = /^\s*<think>/.exec(text);
  if (begin === null) return { thoughts: "", answer: text, finished: true };
  const rest = text.slice(begin[0].length);
  const end = rest.indexOf("</think>");
  if (end < 0) return { thoughts: rest.trim(), answer: "", finished: false };
  return { thoughts: rest.slice(0, end).trim(), answer: rest.slice(end + "</think>".length).trimStart(), finished: true };
}

/** The text of a message: what `splitThinking` splits. */
export function joinThinking(thoughts: string, answer: string): string {
  if (thoughts === "") return answer;
  return answer === "" ? `<think>${thoughts}` : `<think>${thoughts}</think>${answer}`;
}
