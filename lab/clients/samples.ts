/** Durations in milliseconds: exact count and maximum, percentiles of the newest ones when there are very many. */
export class Samples {
  /** 2 MiB; at a thousand samples per second more than four minutes, longer than any demo. */
  static readonly KEPT_MAX = 262_144;

  #values = new Float64Array(1024);
  count = 0;
  max = 0;

  add(value: number): void {
    if (this.count >= this.#values.length && this.#values.length < Samples.KEPT_MAX) {
      const grown = new Float64Array(this.#values.length * 2);
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[this.count % this.#values.length] = value;
    this.count += 1;
    if (value > this.max) this.max = value;
  }

  /** Returns the smallest value that at least `share` (0 to 1) of the samples do not exceed; 0 without samples. */
  percentile(share: number): number {
    const kept = Math.min(this.count, this.#values.length);
    if (kept === 0) return 0;
    const sorted = this.#values.slice(0, kept).sort();
    return sorted[Math.max(0, Math.ceil(share * kept) - 1)];
  }
}
