/** A seeded generator (xorshift32), so that a run's content can be had again from its seed. Not for secrets. */
export class Random {
  #state: number;

  constructor(seed: number) {
    // Zero is the one state that xorshift never leaves; spreading the seed keeps neighbours apart.
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 0 || 1;
  }

  /** The next 32 bits, unsigned. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** A whole number from `min` up to and including `max`. */
  between(min: number, max: number): number {
    return min + (this.next() % (max - min + 1));
  }

  fill(bytes: Uint8Array, from = 0): void {
    for (let i = from; i < bytes.length; i += 1) bytes[i] = this.next() >>> 24;
  }
}
