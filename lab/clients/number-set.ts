/**
 * A set of natural numbers that are mostly dense, in pages of bits: a million numbers cost 128 KiB.
 * The number of pages is bounded, because a faulty service may send any number.
 */
const PAGE_BITS = 32_768;

export class NumberSet {
  readonly #pages = new Map<number, Uint32Array>();
  readonly #pagesMax: number;
  size = 0;

  /** 4096 pages hold 134 million numbers in 16 MiB, more than a day at a thousand per second. */
  constructor(pagesMax = 4096) {
    this.#pagesMax = pagesMax;
  }

  /** Returns `added`, `present` if the set had it, or `full` if there is no room for it. */
  add(value: number): 'added' | 'present' | 'full' {
    const pageIndex = Math.floor(value / PAGE_BITS);
    const bit = value % PAGE_BITS;
    let page = this.#pages.get(pageIndex);
    if (page === undefined) {
      if (this.#pages.size >= this.#pagesMax) return 'full';
      page = new Uint32Array(PAGE_BITS / 32);
      this.#pages.set(pageIndex, page);
    }
    const mask = 1 << (bit & 31);
    if ((page[bit >>> 5] & mask) !== 0) return 'present';
    page[bit >>> 5] |= mask;
    this.size += 1;
    return 'added';
  }
}
