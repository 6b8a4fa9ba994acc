import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { replyFormat, ReplyParser } from "../src/reply.js";

interface Vector {
  readonly about: string;
  readonly template: string;
  readonly prompt?: string;
  readonly tools?: boolean;
  readonly reply: string;
  readonly content?: string;
  readonly reasoning?: string;
  readonly calls?: readonly (readonly [string, string])[];
}

const vectors = JSON.parse(readFileSync(new URL("../../tests/vectors/replies.json", import.meta.url), "utf8")) as Vector[];

function parse({ template, prompt = "", tools = false }: Vector, pieces: readonly string[]): object {
  const parser = new ReplyParser(replyFormat(template), { tools, prompt });
  const deltas = [...pieces.map((piece) => parser.push(piece)), parser.finish()];
  return {
    content: deltas.map((delta) => delta.content).join(""),
    reasoning: deltas.map((delta) => delta.reasoning).join(""),
    calls: deltas.flatMap((delta) => delta.calls.map((call) => [call.name, call.arguments])),
  };
}

describe("replies", () => {
  for (const vector of vectors) {
    test(vector.about, () => {
      const { content = "", reasoning = "", calls = [], reply } = vector;
      assert.deepEqual(parse(vector, [reply]), { content, reasoning, calls });
      assert.deepEqual(parse(vector, Array.from(reply)), { content, reasoning, calls });
      for (let cut = 0; cut <= reply.length; cut++) {
        assert.deepEqual(parse(vector, [reply.slice(0, cut), reply.slice(cut)]), { content, reasoning, calls });
      }
    });
  }
});
