/** How far loading is, told at a rate that people can follow. */

import type { LoadProgress } from "./types.js";

const INTERVAL_MS = 100;
/** Time over which the download rate is averaged. */
const RATE_WINDOW_MS = 4000;

/** Collects what the parts of loading report and passes it on. */
export class ProgressMeter {
  readonly #emit: (progress: LoadProgress) => void;
  readonly #now: () => number;
  readonly #lastEmit = new Map<LoadProgress["stage"], number>();
  #downloadTotal = 0;
  #downloaded = 0;
  #fromNetwork = 0;
  #samples: { time: number; nbytes: number }[] = [];

  constructor(emit: (progress: LoadProgress) => void, now: () => number = () => performance.now()) {
    this.#emit = emit;
    this.#now = now;
  }

  /** Bytes that will be loaded, from wherever. */
  expect(nbytes: number): void {
    this.#downloadTotal += nbytes;
  }

  /** Bytes arrived; a negative number takes some back when a download starts again. */
  downloaded(nbytes: number, source: "network" | "cache"): void {
    this.#downloaded += nbytes;
    if (source === "network") this.#fromNetwork += nbytes;
    const isDone = this.#downloaded >= this.#downloadTotal;
    this.#report("download", isDone, () => {
      const rate = this.#rate();
      const left = this.#downloadTotal - this.#downloaded;
      const fromCache = this.#fromNetwork === 0;
      const verb = fromCache ? "Reading" : "Downloading";
      const text = `${verb} ${megabytes(this.#downloaded)} of ${megabytes(this.#downloadTotal)}`;
      return {
        loaded: this.#downloaded,
        total: this.#downloadTotal,
        ...(rate > 0 && { bytesPerSecond: rate, secondsLeft: left / rate }),
        text: rate > 0 && left > 0 ? `${text}, ${megabytes(rate)}/s, ${Math.ceil(left / rate)} s left` : text,
      };
    });
  }

  /** Kernels compiled. */
  compiled(loaded: number, total: number): void {
    this.#report("compile", loaded === total, () => ({ loaded, total, text: `Compiling kernels: ${loaded} of ${total}` }));
  }

  /** Bytes that are on the device. */
  uploaded(loaded: number, total: number): void {
    const text = `On the device: ${megabytes(loaded)} of ${megabytes(total)}`;
    this.#report("upload", loaded === total, () => ({ loaded, total, text }));
  }

  /** The engine can run. */
  ready(): void {
    this.#report("ready", true, () => ({ loaded: 1, total: 1, text: "Ready" }));
  }

  #report(stage: LoadProgress["stage"], isDone: boolean, make: () => Omit<LoadProgress, "stage" | "fromCache">): void {
    const now = this.#now();
    if (!isDone && now - (this.#lastEmit.get(stage) ?? -Infinity) < INTERVAL_MS) return;
    this.#lastEmit.set(stage, now);
    this.#emit({ stage, fromCache: this.#fromNetwork === 0, ...make() });
  }

  /** Bytes per second from the network of late; 0 while unknown. */
  #rate(): number {
    const time = this.#now();
    this.#samples.push({ time, nbytes: this.#fromNetwork });
    this.#samples = this.#samples.filter((sample) => time - sample.time <= RATE_WINDOW_MS);
    const first = this.#samples[0];
    if (first === undefined || time === first.time) return 0;
    return Math.max(0, ((this.#fromNetwork - first.nbytes) / (time - first.time)) * 1000);
  }
}

function megabytes(nbytes: number): string {
  return `${(nbytes / 1e6).toFixed(nbytes < 1e7 ? 1 : 0)} MB`;
}
