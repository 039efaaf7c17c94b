/**
 * Frames of both VMs that were read in one turn of the event loop, compared at its end or soon after.
 *
 * Goal: under load, VMs in lock-step send the same output within one or two turns. Their segments then pair off where they
 * lie (`Comparator.pairOff`), without being held, looked up and removed one by one. Unmatched frames go through
 * `primaryFrame` and `secondaryFrame`, in order per side; there is no order between the sides.
 *
 * At the end of a turn (`end`): pair off while both sides have frames, then hand in the rest, except what may wait for the
 * next turn. Usually one side has been read further than the other, and its surplus waits here, so that it may pair off:
 *
 *     this turn paired or released frames | only one side had frames | turns without progress | surplus waits
 *     yes                                 | any                      | any                    | yes
 *     no                                  | yes                      | < SILENT_TURNS_MAX     | yes
 *     no                                  | yes                      | SILENT_TURNS_MAX       | no
 *     no                                  | no: none matched         | any                    | no
 *
 * Even where the table says yes, a side's surplus is handed in if it has fewer than WAITING_FRAMES_MIN frames, if its oldest
 * frame has waited for WAITING_MS_MAX, or if the comparator holds frames of the other side, which may need it. A side that
 * is behind is handed in alone until it has caught up with what the other side has held.
 *
 * Limits: `framesMax` frames per side; the next frame flushes everything. A frame that needs no counterpart is late by at
 * most WAITING_MS_MAX.
 */
import { invariant } from '../error.ts';
import { NO_SLAB, type SlabPool } from '../frames/slabs.ts';
import type { Instant, SlabId } from '../units.ts';
import { type Comparator, STEP, type Step } from './comparator.ts';

/* The columns of a frame that waits. */
const SLAB = 0;
const AT = 1;
const LENGTH = 2;
/** time of its read, ms modulo 2^32: for differences */
const SINCE = 3;
/** of an SVM frame: its number in the epoch */
const INDEX = 4;
const ROW_WORDS = 5;

/** Fewer are not worth waiting for. */
const WAITING_FRAMES_MIN = 16;
/** A turn in which nothing is read takes 3 microseconds (median; p99 18). */
const SILENT_TURNS_MAX = 4;
const WAITING_MS_MAX = 10;

/** Whether a turn ends, and frames may wait for the next one, or everything is compared now. */
type Ending = 'turn' | 'flush';

/** One side's frames, in order of arrival. */
class Side {
  readonly words: Int32Array;
  /** first word of the oldest frame that was neither paired off nor handed in; 0 between two turns */
  next = 0;
  /** first word after the last frame */
  end = 0;
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

  /** Returns true if the frames from `next` on are worth waiting with, and the oldest of them has not waited too long. */
  isWorthWaiting(nowMs: Instant): boolean {
    if (this.end - this.next < WAITING_FRAMES_MIN * ROW_WORDS) return false;
    return (nowMs - this.words[this.next + SINCE]) >>> 0 < WAITING_MS_MAX;
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

type Compares = Pick<Comparator, 'pairOff' | 'primaryFrame' | 'secondaryFrame' | 'primary' | 'secondary'>;

export class Turn {
  private readonly comparator: Compares;
  private readonly primary: Side;
  private readonly secondary: Side;
  /** turns in a row in which no frame paired off or was released */
  private silentTurns = 0;

  constructor(comparator: Compares, slabs: SlabPool, framesMax: number) {
    this.comparator = comparator;
    this.primary = new Side(framesMax, slabs);
    this.secondary = new Side(framesMax, slabs);
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
    if (this.primary.isFull) this.flush(nowMs);
    this.primary.add(slab, at, length, 0, nowMs);
  }

  /** `index` is the frame's number in the epoch. */
  secondaryFrame(slab: SlabId, at: number, length: number, index: number, nowMs: Instant): void {
    if (this.secondary.isFull) this.flush(nowMs);
    this.secondary.add(slab, at, length, index, nowMs);
  }

  /** The turn ends: compares what was read, except what may wait. */
  end(nowMs: Instant): void {
    this.compare('turn', nowMs);
  }

  /** Compares everything now. */
  flush(nowMs: Instant): void {
    this.compare('flush', nowMs);
    invariant(this.isEmpty, 'a flush left frames that were not compared');
  }

  /** Drops everything: nothing of it is compared. */
  clear(): void {
    for (const side of [this.primary, this.secondary]) {
      side.next = side.end;
      side.dropHandedIn();
    }
  }

  private compare(ending: Ending, nowMs: Instant): void {
    const { primary, secondary } = this;
    const bothSent = primary.end > 0 && secondary.end > 0;
    const heldBefore = this.heldFrames;
    const paired = this.pairOff(nowMs);
    const waits = this.surplusWaits(paired || this.heldFrames < heldBefore, bothSent) && ending === 'turn';
    this.handInRest(waits, nowMs);
    primary.dropHandedIn();
    secondary.dropHandedIn();
    if (this.isEmpty) this.silentTurns = 0;
  }

  private get heldFrames(): number {
    return this.comparator.primary.frames + this.comparator.secondary.frames;
  }

  /** Compares frame by frame while both sides have some; returns true if a pair matched. */
  private pairOff(nowMs: Instant): boolean {
    const { comparator, primary, secondary } = this;
    const pvm = primary.words;
    const svm = secondary.words;
    let paired = false;
    let p = 0;
    let s = 0;
    while (p < primary.end && s < secondary.end) {
      const step = comparator.pairOff(
        pvm[p + SLAB] as SlabId,
        pvm[p + AT],
        pvm[p + LENGTH],
        svm[s + SLAB] as SlabId,
        svm[s + AT],
        svm[s + LENGTH],
        svm[s + INDEX],
        nowMs,
      );
      if (step === STEP.bothDone) {
        paired = true;
        p += ROW_WORDS;
        s += ROW_WORDS;
        continue;
      }
      this.handInUnmatched(step, p, s, nowMs);
      if (step !== STEP.secondaryAlone) p += ROW_WORDS;
      if (step !== STEP.primaryAlone) s += ROW_WORDS;
    }
    primary.next = p;
    secondary.next = s;
    return paired;
  }

  private handInUnmatched(step: Step, p: number, s: number, nowMs: Instant): void {
    switch (step) {
      case STEP.primaryAlone:
        this.handInPrimary(p, nowMs);
        break;
      case STEP.secondaryAlone:
        this.handInSecondary(s, nowMs);
        break;
      default:
        this.handInPrimary(p, nowMs);
        this.handInSecondary(s, nowMs);
    }
  }

  /** Counts turns without progress, and returns what the table in this file's header says. */
  private surplusWaits(progress: boolean, bothSent: boolean): boolean {
    this.silentTurns = progress ? 0 : this.silentTurns + 1;
    if (progress) return true;
    return !bothSent && this.silentTurns < SILENT_TURNS_MAX;
  }

  /** Hands in the frames that are left of each side, unless they wait. */
  private handInRest(waits: boolean, nowMs: Instant): void {
    const { comparator, primary, secondary } = this;
    if (!(waits && comparator.secondary.frames === 0 && primary.isWorthWaiting(nowMs)))
      for (; primary.next < primary.end; primary.next += ROW_WORDS) this.handInPrimary(primary.next, nowMs);
    if (!(waits && comparator.primary.frames === 0 && secondary.isWorthWaiting(nowMs)))
      for (; secondary.next < secondary.end; secondary.next += ROW_WORDS)
        this.handInSecondary(secondary.next, nowMs);
  }

  private handInPrimary(p: number, nowMs: Instant): void {
    const { words } = this.primary;
    this.comparator.primaryFrame(words[p + SLAB] as SlabId, words[p + AT], words[p + LENGTH], nowMs);
  }

  private handInSecondary(s: number, nowMs: Instant): void {
    const { words } = this.secondary;
    this.comparator.secondaryFrame(
      words[s + SLAB] as SlabId,
      words[s + AT],
      words[s + LENGTH],
      words[s + INDEX],
      nowMs,
    );
  }
}
