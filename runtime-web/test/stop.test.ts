import assert from "node:assert/strict";
import { test } from "node:test";
import { StopMatcher } from "../src/stop.js";

/** Everything that comes out, and after how many pieces it stopped. */
function run(stops: string[], pieces: string[]): { text: string; stoppedAt: number | undefined } {
  const matcher = new StopMatcher(stops);
  let text = "";
  for (const [index, piece] of pieces.entries()) {
    const result = matcher.push(piece);
    text += result.text;
    if (result.stopped) return { text, stoppedAt: index };
  }
  return { text: text + matcher.flush(), stoppedAt: undefined };
}

test("a stop text within a piece cuts it there, at its first occurrence", () => {
  assert.deepEqual(run(["END"], ["one END two END"]), { text: "one ", stoppedAt: 0 });
});

test("a stop text over several pieces never shows", () => {
  const matcher = new StopMatcher(["</s>"]);
  assert.deepEqual(matcher.push("hi <"), { text: "hi ", stopped: false });
  assert.deepEqual(matcher.push("/"), { text: "", stopped: false });
  assert.deepEqual(matcher.push("s> more"), { text: "", stopped: true });
});

test("what only looked like a stop text comes out at once when it is not", () => {
  const matcher = new StopMatcher(["abcd"]);
  assert.equal(matcher.push("xabc").text, "x");
  assert.equal(matcher.push("e").text, "abce");
  assert.equal(matcher.flush(), "");
});

test("what is held at the end comes out", () => {
  assert.deepEqual(run(["abcd"], ["xx", "ab"]), { text: "xxab", stoppedAt: undefined });
});

test("overlapping beginnings: aab in aaab", () => {
  assert.deepEqual(run(["aab"], ["a", "a", "a", "b", "c"]), { text: "a", stoppedAt: 3 });
});

test("of several stop texts the one that is complete first wins, however the text is split", () => {
  const text = "12 abcd 34";
  for (let split = 0; split <= text.length; split++) {
    assert.equal(run(["bc", "abcd"], [text.slice(0, split), text.slice(split)]).text, "12 a");
  }
  assert.equal(run(["bc", "bc", "abc"], ["x", "a", "b", "c"]).text, "x");
});

test("without stop texts everything passes", () => {
  assert.deepEqual(run([], ["a", "b"]), { text: "ab", stoppedAt: undefined });
});
