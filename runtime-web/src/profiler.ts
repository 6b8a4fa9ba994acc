/**
 * Times each dispatch on the device. A pass is the smallest thing that WebGPU can time, so every dispatch gets a pass of its
 * own. What a submit timed is resolved at its end and read back without anyone waiting for it.
 */

import { ProfileRecorder } from "./profile.js";
import type { Dispatch } from "./recording.js";
import type { Profile } from "./types.js";

/** WebGPU allows 4096 timestamps in a set; a dispatch takes two. */
const BATCH_DISPATCHES = 1024;
const BATCH_BYTES = BATCH_DISPATCHES * 2 * BigUint64Array.BYTES_PER_ELEMENT;

// WebGPU's flag constants; Node has no globals for them.
const BUFFER_USAGE = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, QUERY_RESOLVE: 512 } as const;
const MAP_MODE_READ = 1;

/** Timestamps of up to so many dispatches, on their way from the device. */
interface Batch {
  readonly queries: GPUQuerySet;
  readonly resolved: GPUBuffer;
  readonly staging: GPUBuffer;
  readonly dispatches: Dispatch[];
}

/** The timestamps of a device that has the feature "timestamp-query". */
export class Profiler {
  readonly #device: GPUDevice;
  readonly #counters: { objectsCreated: number };
  #recorder = new ProfileRecorder();
  /** Of the commands that were not yet submitted; the last is being filled. */
  #open: Batch[] = [];
  readonly #free: Batch[] = [];
  readonly #reads = new Set<Promise<unknown>>();
  /** The first timestamp of all: others are told relative to it. */
  #origin: bigint | undefined;

  constructor(device: GPUDevice, counters: { objectsCreated: number }) {
    this.#device = device;
    this.#counters = counters;
  }

  /** What makes a compute pass time a dispatch, which must be the only one of the pass. */
  time(dispatch: Dispatch): GPUComputePassDescriptor {
    let batch = this.#open.at(-1);
    if (batch === undefined || batch.dispatches.length === BATCH_DISPATCHES) {
      batch = this.#free.pop() ?? this.#createBatch();
      this.#open.push(batch);
    }
    const index = 2 * (batch.dispatches.push(dispatch) - 1);
    const timestampWrites = { querySet: batch.queries, beginningOfPassWriteIndex: index, endOfPassWriteIndex: index + 1 };
    return { timestampWrites };
  }

  /** Adds to the end of the commands what gets the times out. */
  resolve(commands: GPUCommandEncoder): void {
    for (const { queries, resolved, staging, dispatches } of this.#open) {
      commands.resolveQuerySet(queries, 0, 2 * dispatches.length, resolved, 0);
      commands.copyBufferToBuffer(resolved, 0, staging, 0, 16 * dispatches.length);
    }
  }

  /** Starts to read, once the commands are submitted. */
  submitted(): void {
    for (const batch of this.#open) {
      // A read fails when the device is lost, which is reported elsewhere.
      const read: Promise<unknown> = this.#read(batch)
        .catch(() => undefined)
        .finally(() => this.#reads.delete(read));
      this.#reads.add(read);
    }
    this.#open = [];
  }

  /** What was submitted since the last call. */
  async take(): Promise<Profile> {
    await Promise.all(this.#reads);
    const profile = this.#recorder.profile();
    this.#recorder = new ProfileRecorder();
    return profile;
  }

  async #read({ staging, dispatches, ...rest }: Batch): Promise<void> {
    await staging.mapAsync(MAP_MODE_READ, 0, 16 * dispatches.length);
    const times = new BigUint64Array(staging.getMappedRange(0, 16 * dispatches.length));
    dispatches.forEach(({ pipeline, x, y, z }, index) => {
      const [start = 0n, end = 0n] = times.subarray(2 * index, 2 * index + 2);
      this.#origin ??= start;
      // WebGPU allows clocks that jump back.
      const durationNs = Math.max(0, Number(end - start));
      this.#recorder.add({ kernel: pipeline.label, startNs: Number(start - this.#origin), durationNs, grid: [x, y, z] });
    });
    staging.unmap();
    dispatches.length = 0;
    this.#free.push({ staging, dispatches, ...rest });
  }

  #createBatch(): Batch {
    this.#counters.objectsCreated += 3;
    const { COPY_SRC, COPY_DST, MAP_READ, QUERY_RESOLVE } = BUFFER_USAGE;
    return {
      queries: this.#device.createQuerySet({ label: "profile", type: "timestamp", count: 2 * BATCH_DISPATCHES }),
      resolved: this.#device.createBuffer({ label: "profile", size: BATCH_BYTES, usage: QUERY_RESOLVE | COPY_SRC }),
      staging: this.#device.createBuffer({ label: "profile", size: BATCH_BYTES, usage: MAP_READ | COPY_DST }),
      dispatches: [],
    };
  }
}
