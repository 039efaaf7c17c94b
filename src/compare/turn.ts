/**
 * What both VMs say in one turn of the event loop, compared at its end, or soon after.
 *
 * Goal: two VMs in step say the same within a turn or two when there is much to say. Their segments then pair off where
 * they lie (`Comparator.pairOff`), and neither is held, looked up and let go of by itself. Whatever does not pair off goes
 * the way of a single frame, in the order of its side; between the sides there is none.
 *
 * One side is read further than the other. What it has said beyond waits, where there is so much of it that this may pay,
 * for as long as turns let something leave, and a few without. Then it is held, and of such a flow the side that is
 * behind goes on alone until it has caught up. Nothing waits here while the other side holds frames, which may need it.
 *
 * Limits: so many frames of a side; one more, and everything is handed on at once. So many turns, so many milliseconds: a
 * frame that need not wait for the other side at all is no later than that.
 */
import { NO_SLAB, type SlabPool } from '../frames/slabs.ts';
import type { Instant, SlabId } from '../units.ts';
import { APART, type Comparator } from './comparator.ts';

/* The columns of a kept frame. */
const SLAB = 0;
const AT = 1;
const LENGTH = 2;
/** when it was read, ms, wrapping after 49 days: for differences */
const SINCE = 3;
const ROW_WORDS = 4;

/** Less is not worth waiting for. */
const WAITING_FRAMES_MIN = 16;
/** A turn in which nothing is read takes 3 microseconds (median; p99 18). */
const SILENT_TURNS_MAX = 4;
const WAITING_MS_MAX = 10;

/** One side's frames, in order of arrival. */
class Said {
  readonly words: Int32Array;
  /** first place that is free */
  end = 0;
  private readonly slabs: SlabPool;
  /** a slab is held once, however many of its frames follow each other */
  private readonly slabIds: SlabId[] = [];

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

  add(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { words, end } = this;
    if (end === 0 || words[end - ROW_WORDS + SLAB] !== slab) this.hold(slab);
    words[end + SLAB] = slab;
    words[end + AT] = at;
    words[end + LENGTH] = length;
    words[end + SINCE] = nowMs;
    this.end = end + ROW_WORDS;
  }

  /** Of what lies from `from` on: where that ends which must not wait for another turn. */
  dueEnd(from: number, mayWait: boolean, nowMs: Instant): number {
    const { words, end } = this;
    if (!mayWait || end - from < WAITING_FRAMES_MIN * ROW_WORDS) return end;
    return (nowMs - words[from + SINCE]) >>> 0 < WAITING_MS_MAX ? from : end;
  }

  /** Lets go of what lies before `from`. */
  drop(from: number): void {
    const { words, end } = this;
    const held = this.slabIds.length;
    let last: SlabId = NO_SLAB;
    for (let at = from; at < end; at += ROW_WORDS) {
      if (words[at + SLAB] === last) continue;
      last = words[at + SLAB] as SlabId;
      this.hold(last);
    }
    for (const slab of this.slabIds.splice(0, held)) this.slabs.unref(slab);
    words.copyWithin(0, from, end);
    this.end = end - from;
  }

  private hold(slab: SlabId): void {
    this.slabs.ref(slab);
    this.slabIds.push(slab);
  }
}

type Compares = Pick<Comparator, 'pairOff' | 'primaryFrame' | 'secondaryFrame' | 'primary' | 'secondary'>;

export class Turn {
  private readonly comparator: Compares;
  private readonly primary: Said;
  private readonly secondary: Said;
  private silentTurns = 0;

  constructor(comparator: Compares, slabs: SlabPool, framesMax: number) {
    this.comparator = comparator;
    this.primary = new Said(framesMax, slabs);
    this.secondary = new Said(framesMax, slabs);
  }

  get isEmpty(): boolean {
    return this.primary.end === 0 && this.secondary.end === 0;
  }

  get primaryFrames(): number {
    return this.primary.frames;
  }

  get secondaryFrames(): number {
    return this.secondary.frames;
  }

  primaryFrame(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    if (this.primary.full) this.handOn(nowMs);
    this.primary.add(slab, at, length, nowMs);
  }

  secondaryFrame(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    if (this.secondary.full) this.handOn(nowMs);
    this.secondary.add(slab, at, length, nowMs);
  }

  /** The turn ends. */
  end(nowMs: Instant): void {
    this.work(true, nowMs);
  }

  /** Everything is compared now. */
  handOn(nowMs: Instant): void {
    this.work(false, nowMs);
  }

  /** Forgets everything: nothing of it is compared. */
  clear(): void {
    this.primary.drop(this.primary.end);
    this.secondary.drop(this.secondary.end);
  }

  /** Pairs off what does. The rest goes the way of a single frame, unless it may wait. */
  private work(mayWait: boolean, nowMs: Instant): void {
    const { comparator, primary, secondary } = this;
    const pvm = primary.words;
    const svm = secondary.words;
    const oneSpoke = primary.end === 0 || secondary.end === 0;
    const heldBefore = comparator.primary.frames + comparator.secondary.frames;
    let paired = false;
    let p = 0;
    let s = 0;
    while (p < primary.end && s < secondary.end) {
      const apart = comparator.pairOff(
        pvm[p + SLAB] as SlabId,
        pvm[p + AT],
        pvm[p + LENGTH],
        svm[s + SLAB] as SlabId,
        svm[s + AT],
        svm[s + LENGTH],
        nowMs,
      );
      if (apart === APART.none) paired = true;
      if ((apart & APART.primary) !== 0) this.givePrimary(p, nowMs);
      if ((apart & APART.secondary) !== 0) this.giveSecondary(s, nowMs);
      if (apart !== APART.secondary) p += ROW_WORDS;
      if (apart !== APART.primary) s += ROW_WORDS;
    }
    // Where both have spoken to no effect, they do not speak of the same.
    const goesOn = paired || comparator.primary.frames + comparator.secondary.frames < heldBefore;
    this.silentTurns = goesOn ? 0 : this.silentTurns + 1;
    const waits = mayWait && (goesOn || (oneSpoke && this.silentTurns < SILENT_TURNS_MAX));
    const primaryEnd = primary.dueEnd(p, waits && comparator.secondary.frames === 0, nowMs);
    for (; p < primaryEnd; p += ROW_WORDS) this.givePrimary(p, nowMs);
    const secondaryEnd = secondary.dueEnd(s, waits && comparator.primary.frames === 0, nowMs);
    for (; s < secondaryEnd; s += ROW_WORDS) this.giveSecondary(s, nowMs);
    primary.drop(p);
    secondary.drop(s);
    if (this.isEmpty) this.silentTurns = 0;
  }

  private givePrimary(p: number, nowMs: Instant): void {
    const { words } = this.primary;
    this.comparator.primaryFrame(words[p + SLAB] as SlabId, words[p + AT], words[p + LENGTH], nowMs);
  }

  private giveSecondary(s: number, nowMs: Instant): void {
    const { words } = this.secondary;
    this.comparator.secondaryFrame(words[s + SLAB] as SlabId, words[s + AT], words[s + LENGTH], 0, nowMs);
  }
}
