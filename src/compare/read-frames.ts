/**
 * Frames of one VM that were read and not yet compared, in order of arrival (turn.ts).
 *
 * `next` is the oldest of them that was neither matched nor handed in. The comparator moves it when it matches frames
 * (`Comparator.pairCut`), the turn when it hands frames in.
 *
 * Limits: `framesMax` frames. Each slab with a frame is referenced.
 */
import { NO_SLAB, type SlabPool } from '../frames/slabs.ts';
import type { Instant, SlabId } from '../units.ts';

/* The columns of a frame, not exported: V8 reads an imported constant from memory each time. */
const SLAB = 0;
const AT = 1;
const LENGTH = 2;
/** time of its read, ms modulo 2^32: for differences */
const SINCE = 3;
/** of an SVM frame: its number in the epoch */
const INDEX = 4;
const ROW_WORDS = 5;

export class ReadFrames {
  private readonly words: Int32Array;
  /** first word of the oldest frame that was neither matched nor handed in; 0 between two turns */
  next = 0;
  /** first word after the last frame */
  end = 0;
  /** The client has bytes of the frame at `next`, which reaches beyond them. */
  isBegun = false;
  private readonly slabs: SlabPool;
  /** one ref for each run of frames in one slab */
  private readonly slabIds: SlabId[] = [];

  constructor(framesMax: number, slabs: SlabPool) {
    this.words = new Int32Array(framesMax * ROW_WORDS);
    this.slabs = slabs;
  }

  get isFull(): boolean {
    return this.end === this.words.length;
  }

  get frames(): number {
    return this.end / ROW_WORDS;
  }

  /** How many frames were neither matched nor handed in. */
  get left(): number {
    return (this.end - this.next) / ROW_WORDS;
  }

  /* Of the frame at `row`, which is `next` or after it and before `end`. */

  /** The row of the frame after it. */
  after(row: number): number {
    return row + ROW_WORDS;
  }

  slabOf(row: number): SlabId {
    return this.words[row + SLAB] as SlabId;
  }

  offsetOf(row: number): number {
    return this.words[row + AT];
  }

  lengthOf(row: number): number {
    return this.words[row + LENGTH];
  }

  indexOf(row: number): number {
    return this.words[row + INDEX];
  }

  add(slab: SlabId, at: number, length: number, index: number, nowMs: Instant): void {
    const { words, end } = this;
    if (end === 0 || words[end - ROW_WORDS + SLAB] !== slab) this.refSlab(slab);
    words[end + SLAB] = slab;
    words[end + AT] = at;
    words[end + LENGTH] = length;
    words[end + SINCE] = nowMs;
    words[end + INDEX] = index;
    this.end = end + ROW_WORDS;
  }

  /** Returns for how long the frame at `next` has waited. */
  waitedMs(nowMs: Instant): number {
    return (nowMs - this.words[this.next + SINCE]) >>> 0;
  }

  /** The frame at `next` is done with. */
  toNext(): void {
    this.next += ROW_WORDS;
    this.isBegun = false;
  }

  /** Forgets the frames before `next`, and unrefs their slabs. */
  dropHandedIn(): void {
    const { words, next, end } = this;
    const referenced = this.slabIds.length;
    let last: SlabId = NO_SLAB;
    for (let at = next; at < end; at += ROW_WORDS) {
      if (words[at + SLAB] === last) continue;
      last = words[at + SLAB] as SlabId;
      this.refSlab(last);
    }
    for (const slab of this.slabIds.splice(0, referenced)) this.slabs.unref(slab);
    words.copyWithin(0, next, end);
    this.end = end - next;
    this.next = 0;
  }

  private refSlab(slab: SlabId): void {
    this.slabs.ref(slab);
    this.slabIds.push(slab);
  }
}
