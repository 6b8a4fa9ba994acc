import assert from "node:assert/strict";
import { test } from "node:test";
import { ProgressMeter } from "../src/progress.js";
import { PushStream } from "../src/stream.js";
import { createEngine } from "../src/index.js";
import type { LoadProgress } from "../src/types.js";

test("progress is told at a bearable rate, with speed and time left", () => {
  let now = 0;
  const reports: LoadProgress[] = [];
  const meter = new ProgressMeter((report) => reports.push(report), () => now);
  meter.expect(100e6);
  for (let i = 0; i < 1000; i++) {
    now += 10;
    meter.downloaded(100e3, "network");
  }
  assert.ok(reports.length > 90 && reports.length < 110);
  const middle = reports[50];
  assert.ok(Math.abs((middle?.bytesPerSecond ?? 0) - 10e6) < 1e6);
  assert.ok(Math.abs((middle?.secondsLeft ?? 0) - 5) < 1);
  assert.match(middle?.text ?? "", /^Downloading 5\d MB of 100 MB, 1\d MB\/s, \d s left$|^Downloading 5\d MB of 100 MB, 10\.0 MB\/s, \d s left$/);
  assert.deepEqual([reports.at(-1)?.loaded, reports.at(-1)?.fromCache], [100e6, false]);
});

test("what comes from storage has no speed, and says where it is from", () => {
  const reports: LoadProgress[] = [];
  const meter = new ProgressMeter((report) => reports.push(report));
  meter.expect(10);
  meter.downloaded(10, "cache");
  meter.compiled(2, 2);
  meter.ready();
  assert.deepEqual(reports.map((report) => report.stage), ["download", "compile", "ready"]);
  assert.ok(reports.every((report) => report.fromCache && report.bytesPerSecond === undefined));
});

test("a pushed stream gives items in order, then the error once, then nothing", async () => {
  let left = 0;
  const stream = new PushStream<number>(() => left++);
  const early = stream.next();
  stream.push(1);
  stream.push(2);
  stream.fail(new Error("broken"));
  stream.push(3);
  assert.deepEqual(await early, { done: false, value: 1 });
  assert.deepEqual(await stream.next(), { done: false, value: 2 });
  await assert.rejects(stream.next(), /broken/);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  await stream.return();
  assert.equal(left, 0);
});

test("readers that wait are told of the end", async () => {
  const stream = new PushStream<number>(() => undefined);
  const waiting = [stream.next(), stream.next()];
  await stream.return();
  assert.deepEqual((await Promise.all(waiting)).map((result) => result.done), [true, true]);
});

test("options that cannot cross to a worker are refused", async () => {
  await assert.rejects(createEngine({ artifact: "https://example.invalid/", fetch }), { code: "request_invalid", message: /fetch and gpu/ });
});
