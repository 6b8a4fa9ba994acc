/** What the device spent its time on: times of single dispatches, summed up by kernel, and as a trace to look at. */

import type { KernelProfile, Profile, TimedDispatch } from "./types.js";

/** So many dispatches are listed one by one. */
const TIMELINE_LENGTH = 100_000;

/** Sums dispatches up as they come. */
export class ProfileRecorder {
  readonly #kernels = new Map<string, { dispatches: number; totalNs: number; longest: TimedDispatch }>();
  readonly #timeline: TimedDispatch[] = [];
  #dispatches = 0;

  add(dispatch: TimedDispatch): void {
    this.#dispatches++;
    this.#timeline.push(dispatch);
    if (this.#timeline.length === 2 * TIMELINE_LENGTH) this.#timeline.splice(0, TIMELINE_LENGTH);
    const kernel = this.#kernels.get(dispatch.kernel);
    if (kernel === undefined) {
      this.#kernels.set(dispatch.kernel, { dispatches: 1, totalNs: dispatch.durationNs, longest: dispatch });
      return;
    }
    kernel.dispatches++;
    kernel.totalNs += dispatch.durationNs;
    if (dispatch.durationNs > kernel.longest.durationNs) kernel.longest = dispatch;
  }

  /** What was added so far. */
  profile(): Profile {
    const totalNs = [...this.#kernels.values()].reduce((sum, kernel) => sum + kernel.totalNs, 0);
    const kernels = Array.from(this.#kernels, ([name, kernel]): KernelProfile => ({
      name,
      dispatches: kernel.dispatches,
      totalMs: kernel.totalNs / 1e6,
      share: totalNs > 0 ? kernel.totalNs / totalNs : 0,
      meanMs: kernel.totalNs / kernel.dispatches / 1e6,
      maxMs: kernel.longest.durationNs / 1e6,
      longest: kernel.longest,
    }));
    const timeline = this.#timeline.slice(-TIMELINE_LENGTH);
    return {
      dispatches: this.#dispatches,
      totalMs: totalNs / 1e6,
      kernels: kernels.sort((one, other) => other.totalMs - one.totalMs),
      timeline,
      omittedDispatches: this.#dispatches - timeline.length,
    };
  }
}

/** An event of Chrome's trace format; times in microseconds. */
export interface TraceEvent {
  readonly name: string;
  /** "X" for a span of time, "M" for the name of a row. */
  readonly ph: "X" | "M";
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly args: Readonly<Record<string, string>>;
}

/**
 * The content of a trace file, for Perfetto or chrome://tracing: a row of dispatches for each profile, under its name. Format:
 * "Trace Event Format", JSON object form with complete events.
 */
export function chromeTrace(profiles: Readonly<Record<string, Profile>>): { readonly traceEvents: TraceEvent[] } {
  const traceEvents = Object.entries(profiles).flatMap(([row, { timeline }], index): TraceEvent[] => {
    const place = { pid: 1, tid: index + 1 };
    return [
      { name: "thread_name", ph: "M", ...place, args: { name: row } },
      ...timeline.map(({ kernel, startNs, durationNs, grid }): TraceEvent => ({
        name: kernel,
        ph: "X",
        ...place,
        ts: startNs / 1000,
        dur: durationNs / 1000,
        args: { grid: grid.join(" x ") },
      })),
    ];
  });
  return { traceEvents };
}
