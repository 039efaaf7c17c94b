/**
 * What both VMs have said in one turn of the event loop, worked through at its end.
 *
 * Goal: two VMs in step say the same within one turn when there is much to say. Their segments then pair off where they
 * lie (`Comparator.pairOff`), and neither is held, looked up and let go of by itself. Whatever does not pair off goes the
 * way of a single frame, in the order of its side; between the sides there is none.
 *
 * One side may be ahead of the other from the turn before. What it said then is held, and of such a flow the side
 * that is behind goes on alone until it has caught up.
 *
 * Limits: so many frames of a side; one more, and everything is worked through at once.
 */
import type { SlabPool } from '../frames/slabs.ts';
import { APART, type Comparator } from './comparator.ts';

/* The columns of a kept frame. */
const SLAB = 0;
const AT = 1;
const LENGTH = 2;
const ROW_WORDS = 3;

/** One side's frames, in order of arrival. */
class Said {
  readonly words: Int32Array;
  /** first place that is free */
  end = 0;
  private readonly slabs: SlabPool;
  /** a slab is held once, however many of its frames are here */
  private readonly slabIds: number[] = [];

  constructor(framesMax: number, slabs: SlabPool) {
    this.words = new Int32Array(framesMax * ROW_WORDS);
    this.slabs = slabs;
  }

  get full(): boolean {
    return this.end === this.words.length;
  }

  get frames(): number {
    return this.end / ROW_WORDS;
  }

  add(slab: number, at: number, length: number): void {
    const { words, end, slabIds } = this;
    if (end === 0 || words[end - ROW_WORDS + SLAB] !== slab) {
      this.slabs.retain(slab);
      slabIds.push(slab);
    }
    words[end + SLAB] = slab;
    words[end + AT] = at;
    words[end + LENGTH] = length;
    this.end = end + ROW_WORDS;
  }

  clear(): void {
    this.end = 0;
    while (this.slabIds.length > 0) this.slabs.release(this.slabIds.pop() as number);
  }
}

type Compares = Pick<Comparator, 'pairOff' | 'primaryFrame' | 'secondaryFrame'>;

export class Turn {
  private readonly comparator: Compares;
  private readonly primary: Said;
  private readonly secondary: Said;

  constructor(comparator: Compares, slabs: SlabPool, framesMax: number) {
    this.comparator = comparator;
    this.primary = new Said(framesMax, slabs);
    this.secondary = new Said(framesMax, slabs);
  }

  get isEmpty(): boolean {
    return this.primary.end === 0 && this.secondary.end === 0;
  }

  get secondaryFrames(): number {
    return this.secondary.frames;
  }

  primaryFrame(slab: number, at: number, length: number, nowMs: number): void {
    if (this.primary.full) this.work(nowMs);
    this.primary.add(slab, at, length);
  }

  secondaryFrame(slab: number, at: number, length: number, nowMs: number): void {
    if (this.secondary.full) this.work(nowMs);
    this.secondary.add(slab, at, length);
  }

  /** Hands everything to the comparator. */
  work(nowMs: number): void {
    const { comparator, primary, secondary } = this;
    const pvm = primary.words;
    const svm = secondary.words;
    let p = 0;
    let s = 0;
    while (p < primary.end && s < secondary.end) {
      const apart = comparator.pairOff(
        pvm[p + SLAB],
        pvm[p + AT],
        pvm[p + LENGTH],
        svm[s + SLAB],
        svm[s + AT],
        svm[s + LENGTH],
        nowMs,
      );
      if ((apart & APART.primary) !== 0) this.givePrimary(p, nowMs);
      if ((apart & APART.secondary) !== 0) this.giveSecondary(s, nowMs);
      if (apart !== APART.secondary) p += ROW_WORDS;
      if (apart !== APART.primary) s += ROW_WORDS;
    }
    for (; p < primary.end; p += ROW_WORDS) this.givePrimary(p, nowMs);
    for (; s < secondary.end; s += ROW_WORDS) this.giveSecondary(s, nowMs);
    this.clear();
  }

  /** Forgets everything: nothing of it is compared. */
  clear(): void {
    this.primary.clear();
    this.secondary.clear();
  }

  private givePrimary(p: number, nowMs: number): void {
    const { words } = this.primary;
    this.comparator.primaryFrame(words[p + SLAB], words[p + AT], words[p + LENGTH], nowMs);
  }

  private giveSecondary(s: number, nowMs: number): void {
    const { words } = this.secondary;
    this.comparator.secondaryFrame(words[s + SLAB], words[s + AT], words[s + LENGTH], 0, nowMs);
  }
}
