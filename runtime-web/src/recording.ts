/** What a step enqueued, noted to enqueue it again. */

/** A dispatch as WebGPU takes it. */
export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  /** Where its uniform starts, in words. */
  readonly uniformAt: number;
  readonly x: number;
  readonly y: number;
  readonly z: number;
}

/** Dispatches of one compute pass, and the uniforms of all of them in a row. */
export class Recording {
  readonly dispatches: Dispatch[] = [];
  readonly uniforms: number[] = [];
  /** Number of each buffer id, in the order of their first use. */
  readonly #numbers = new Map<number, number>();
  /** Numbers of the buffers of all dispatches. */
  readonly #bindings: number[] = [];

  /** Ids of the buffers that the dispatches use. */
  get buffers(): Iterable<number> {
    return this.#numbers.keys();
  }

  /** Notes a dispatch with its own part of the uniforms and the ids of its buffers. */
  add(dispatch: Dispatch, uniforms: Int32Array, buffers: Int32Array): void {
    this.dispatches.push({ ...dispatch, uniformAt: this.uniforms.length });
    this.uniforms.push(...uniforms);
    for (const id of buffers) {
      const number = this.#numbers.get(id) ?? this.#numbers.size;
      this.#numbers.set(id, number);
      this.#bindings.push(number);
    }
  }

  /** Whether the same was done, be it on other buffers: scratch memory may change places from step to step. */
  equals(other: Recording): boolean {
    return (
      sameList(this.dispatches, other.dispatches, sameDispatch) &&
      sameList(this.uniforms, other.uniforms, Object.is) &&
      sameList(this.#bindings, other.#bindings, Object.is)
    );
  }
}

function sameDispatch(one: Dispatch, other: Dispatch): boolean {
  return one.pipeline === other.pipeline && one.x === other.x && one.y === other.y && one.z === other.z;
}

function sameList<T>(one: readonly T[], other: readonly T[], same: (a: T, b: T) => boolean): boolean {
  return one.length === other.length && one.every((item, i) => same(item, other[i] as T));
}
