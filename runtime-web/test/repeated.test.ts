import assert from "node:assert/strict";
import { test } from "node:test";
import { Recording } from "../src/recording.js";
import { RepeatedCall } from "../src/repeated.js";

/** A device and a runtime whose calls enqueue what `uniform` says; none that can be recorded if it says nothing. */
class Fake {
  uniform: number | undefined = 1;
  isGone = false;
  fails = false;
  readonly log: string[] = [];
  #handles = 0;
  readonly live = new Set<number>();

  readonly call = (): number => {
    this.log.push("call");
    if (this.fails) throw new Error("the call failed");
    this.live.add(++this.#handles);
    return this.#handles;
  };
  release(handle: number): void {
    assert.ok(this.live.delete(handle));
  }
  buffer(handle: number): number {
    return 100 + handle;
  }
  record<T>(run: () => T): { result: T; recording: Recording | undefined } {
    const result = run();
    if (this.uniform === undefined) return { result, recording: undefined };
    const recording = new Recording();
    recording.uniforms.push(this.uniform);
    return { result, recording };
  }
  replay(): boolean {
    if (!this.isGone) this.log.push("replay");
    return !this.isGone;
  }
  /** What so many runs did. */
  run(repeated: RepeatedCall, times: number): string {
    this.log.length = 0;
    for (let i = 0; i < times; i++) {
      const buffer = repeated.run();
      assert.deepEqual([...this.live], [buffer - 100], "the result that was returned is held, and only that");
    }
    return this.log.join(" ");
  }
}

const make = (): { fake: Fake; repeated: RepeatedCall } => {
  const fake = new Fake();
  return { fake, repeated: new RepeatedCall(fake, fake, fake.call) };
};

test("a call is replayed once it has done the same twice", () => {
  const { fake, repeated } = make();
  assert.equal(fake.run(repeated, 2), "call call");
  const buffer = repeated.run();
  assert.equal(fake.run(repeated, 3), "replay replay replay");
  assert.equal(repeated.run(), buffer);
});

test("one that does something else each time never is", () => {
  const { fake, repeated } = make();
  for (fake.uniform = 0; fake.uniform < 5; fake.uniform++) assert.equal(fake.run(repeated, 1), "call");
  fake.uniform = undefined;
  assert.equal(fake.run(repeated, 4), "call call call call");
  fake.uniform = 7;
  assert.equal(fake.run(repeated, 3), "call call replay");
});

test("when a buffer has gone it is called and recorded again", () => {
  const { fake, repeated } = make();
  assert.equal(fake.run(repeated, 3), "call call replay");
  fake.isGone = true;
  assert.equal(fake.run(repeated, 1), "call");
  fake.isGone = false;
  assert.equal(fake.run(repeated, 1), "replay");
});

test("a failed call leaves nothing to replay", () => {
  const { fake, repeated } = make();
  fake.run(repeated, 1);
  fake.fails = true;
  assert.throws(() => repeated.run(), /failed/);
  fake.fails = false;
  assert.equal(fake.run(repeated, 3), "call call replay");
});
