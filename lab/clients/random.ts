/** A seeded generator (xorshift32): the same seed gives the same content again. Not for secrets. */
export class Random {
  #state: number;

  constructor(seed: number) {
    // xorshift never leaves the state zero. Spreading the seed makes neighbouring seeds differ.
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 0 || 1;
  }

  /** Returns the next 32 bits, unsigned. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** Returns a whole number from `min` to `max`, both included. */
  between(min: number, max: number): number {
    return min + (this.next() % (max - min + 1));
  }

  fill(bytes: Uint8Array, from = 0): void {
    for (let i = from; i < bytes.length; i += 1) bytes[i] = this.next() >>> 24;
  }
}
