/** Numbers for people. Decimal units, as browsers and operating systems show downloads. */

/** "831 kB", "83.1 MB", "1.24 GB". */
export function formatBytes(nbytes: number): string {
  if (nbytes < 1e3) return `${String(Math.round(nbytes))} B`;
  if (nbytes < 1e6) return `${String(Math.round(nbytes / 1e3))} kB`;
  if (nbytes < 1e9) return `${(nbytes / 1e6).toFixed(1)} MB`;
  return `${(nbytes / 1e9).toFixed(2)} GB`;
}

/** "less than a second", "12 s", "3 min 20 s". Coarse, so that the text does not flicker. */
export function formatSeconds(seconds: number): string {
  if (seconds < 1) return "less than a second";
  if (seconds < 60) return `${String(Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  const rest = Math.round((seconds % 60) / 10) * 10;
  return rest > 0 && rest < 60 ? `${String(minutes)} min ${String(rest)} s` : `${String(rest === 60 ? minutes + 1 : minutes)} min`;
}

/** "0.31 s" or "840 ms": a latency. */
export function formatLatency(ms: number): string {
  return ms < 1000 ? `${String(Math.round(ms))} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** "42.3" or "7.31": tokens per second, three digits. */
export function formatRate(perSecond: number): string {
  return perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toPrecision(3);
}
