/**
 * Frames of both VMs that were read in one turn of the event loop, compared at its end or soon after.
 *
 * Goal: under load, two VMs send the same output within one or two turns. Plain data of TCP then match where they lie, in
 * whatever segments (`Comparator.pairOff`, `pairCut`), without being held, looked up and removed one by one. Unmatched frames go
 * through `primaryFrame` and `secondaryFrame`, in order per side; there is no order between the sides.
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
 * frame has waited for WAITING_MS_MAX, or if the comparator holds frames of the other side, which may need it. SVM frames that
 * end within the PVM's next frame wait however few they are and whatever is held: handed in, they would release nothing.
 *
 * An SVM frame of which the client has some bytes from the PVM (`isBegun`) is handed in before any frame of the PVM: as if it had
 * been, when those bytes left.
 *
 * Limits: `framesMax` frames per side; the next frame flushes everything. A frame that needs no counterpart is late by at
 * most WAITING_MS_MAX.
 */
import { invariant } from '../error.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { Instant, SlabId } from '../units.ts';
import { type Comparator, STEP, type Step } from './comparator.ts';
import { ReadFrames } from './read-frames.ts';

/** Fewer are not worth waiting for. */
const WAITING_FRAMES_MIN = 16;
/** A turn in which nothing is read takes 3 microseconds (median; p99 18). */
const SILENT_TURNS_MAX = 4;
const WAITING_MS_MAX = 10;

/** Whether a turn ends, and frames may wait for the next one, or everything is compared now. */
type Ending = 'turn' | 'flush';

type Compares = Pick<
  Comparator,
  'pairOff' | 'pairCut' | 'primaryFrame' | 'secondaryFrame' | 'primary' | 'secondary'
>;

export class Turn {
  private readonly comparator: Compares;
  private readonly primary: ReadFrames;
  private readonly secondary: ReadFrames;
  /** All that is left of the SVM are the first bytes of a PVM frame: handed in, they would release nothing. */
  private svmEndsWithin = false;
  /** turns in a row in which no frame paired off or was released */
  private silentTurns = 0;

  constructor(comparator: Compares, slabs: SlabPool, framesMax: number) {
    this.comparator = comparator;
    this.primary = new ReadFrames(framesMax, slabs);
    this.secondary = new ReadFrames(framesMax, slabs);
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
      side.isBegun = false;
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

  /** Compares frame by frame as far as the frames of both sides reach; returns true if any matched. */
  private pairOff(nowMs: Instant): boolean {
    const { comparator, primary, secondary } = this;
    let paired = false;
    this.svmEndsWithin = false;
    while (secondary.next < secondary.end) {
      const before = secondary.next;
      let step = secondary.isBegun ? STEP.cut : this.pairOneToOne(nowMs);
      if (secondary.next > before) paired = true;
      if (secondary.next === secondary.end) break;
      if (step === STEP.matched && comparator.primary.frames === 0) break;
      if (step === STEP.matched || step === STEP.cut) step = comparator.pairCut(primary, secondary, nowMs);
      this.svmEndsWithin = step === STEP.secondaryEnds;
      if (step === STEP.primaryEnds || step === STEP.secondaryEnds) break;
      if (step === STEP.matched) paired = true;
      else this.handInUnmatched(step, nowMs);
    }
    return paired;
  }

  /** Compares frames that pair off one to one; returns what the first says that does not, or `matched` if one side has no more. */
  private pairOneToOne(nowMs: Instant): Step {
    const { comparator, primary, secondary } = this;
    let step: Step = STEP.matched;
    let p = primary.next;
    let s = secondary.next;
    while (p < primary.end && s < secondary.end) {
      step = comparator.pairOff(
        primary.slabOf(p),
        primary.offsetOf(p),
        primary.lengthOf(p),
        secondary.slabOf(s),
        secondary.offsetOf(s),
        secondary.lengthOf(s),
        secondary.indexOf(s),
        nowMs,
      );
      if (step !== STEP.matched) break;
      p = primary.after(p);
      s = secondary.after(s);
    }
    primary.next = p;
    secondary.next = s;
    return step;
  }

  private handInUnmatched(step: Step, nowMs: Instant): void {
    if (this.secondary.isBegun || step === STEP.secondaryAlone) {
      this.handInSecondary(nowMs);
      return;
    }
    this.handInPrimary(nowMs);
    if (step === STEP.bothAlone) this.handInSecondary(nowMs);
  }

  /** Counts turns without progress, and returns what the table in this file's header says. */
  private surplusWaits(progress: boolean, bothSent: boolean): boolean {
    this.silentTurns = progress ? 0 : this.silentTurns + 1;
    if (progress) return true;
    return !bothSent && this.silentTurns < SILENT_TURNS_MAX;
  }

  /** Hands in the frames that are left of each side, until those that are left then wait. */
  private handInRest(waits: boolean, nowMs: Instant): void {
    const { comparator, primary, secondary } = this;
    while (primary.next < primary.end) {
      if (waits && comparator.secondary.frames === 0 && isWorthWaiting(primary, nowMs)) break;
      if (secondary.isBegun) this.handInSecondary(nowMs);
      this.handInPrimary(nowMs);
    }
    if (waits && this.svmEndsWithin && secondary.waitedMs(nowMs) < WAITING_MS_MAX) return;
    while (secondary.next < secondary.end) {
      if (waits && comparator.primary.frames === 0 && isWorthWaiting(secondary, nowMs)) break;
      this.handInSecondary(nowMs);
    }
  }

  private handInPrimary(nowMs: Instant): void {
    const { comparator, primary } = this;
    const row = primary.next;
    primary.toNext();
    comparator.primaryFrame(primary.slabOf(row), primary.offsetOf(row), primary.lengthOf(row), nowMs);
  }

  private handInSecondary(nowMs: Instant): void {
    const { comparator, secondary } = this;
    const row = secondary.next;
    secondary.toNext();
    comparator.secondaryFrame(
      secondary.slabOf(row),
      secondary.offsetOf(row),
      secondary.lengthOf(row),
      secondary.indexOf(row),
      nowMs,
    );
  }
}

/** Returns true if the frames from `next` on are worth waiting with, and the oldest of them has not waited too long. */
function isWorthWaiting(side: ReadFrames, nowMs: Instant): boolean {
  if (side.left < WAITING_FRAMES_MIN) return false;
  return side.waitedMs(nowMs) < WAITING_MS_MAX;
}
