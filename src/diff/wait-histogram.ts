/**
 * A histogram of waits: percentiles of any number of values in fixed memory. 32 buckets divide each power of two of
 * microseconds, so a percentile is right to 3%.
 */
const STEPS = 32;
const BUCKETS = STEPS * 44;

export class WaitHistogram {
  private readonly counts = new Float64Array(BUCKETS);
  private total = 0;
  private largestMs = 0;

  add(ms: number): void {
    const us = Math.max(0, ms * 1000);
    const bucket = us < 1 ? 0 : 1 + Math.floor(Math.log2(us) * STEPS);
    this.counts[Math.min(bucket, BUCKETS - 1)]++;
    this.total++;
    if (ms > this.largestMs) this.largestMs = ms;
  }

  get maxMs(): number {
    return this.largestMs;
  }

  /** Returns the percentiles that a report has. */
  summary(): { p50Ms: number; p99Ms: number; maxMs: number } {
    const [p50Ms, p99Ms] = [0.5, 0.99].map((fraction) => toMicros(this.quantile(fraction)));
    return { p50Ms, p99Ms, maxMs: toMicros(this.maxMs) };
  }

  /** Returns the value that a share of `fraction` does not exceed, 0 if there are no values. */
  quantile(fraction: number): number {
    const wanted = Math.ceil(fraction * this.total);
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.counts[bucket];
      if (seen < wanted || seen === 0) continue;
      return bucket === 0 ? 0 : Math.min(2 ** (bucket / STEPS) / 1000, this.largestMs);
    }
    return 0;
  }
}

/** Rounds milliseconds to the microsecond: further digits are rounding errors of sums. */
export function toMicros(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
