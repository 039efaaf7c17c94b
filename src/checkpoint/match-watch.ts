/**
 * Watches whether the secondary is of any use: does anything that the SVM sends ever match?
 *
 * Goal: an SVM whose guest is dead, or whose output never matches, must not look like one that is only slow. In both cases the
 * pair is protected, and checkpoints release all output. The difference shows between two checkpoints: a slow SVM still
 * matches now and then, a useless one never does.
 *
 * Tracked: epochs in a row in which a commit released output and nothing matched. An epoch without either is no evidence,
 * and leaves the count as it is: an idle service has nothing to match. Harmless frames and repetitions need no SVM and count
 * as neither.
 *
 * Events: at the end of the EPOCHS_UNMATCHED_MAX-th such epoch the secondary counts as `unmatched`; the end of the first epoch in
 * which a frame matched, or the end of the pair, ends that.
 *
 * The limit. A sound pair has single epochs like that: its first output differs, and the checkpoint comes at once. With ten
 * clients of one process at most one epoch in five does, and with new TLS connections, of which two in five diverge, the
 * handshake before still matches. Sixteen in a row are then a chance of less than 1 in 10^6, even at two in five. A dead
 * secondary reaches sixteen within a few seconds of traffic, since each reply waits for a checkpoint of its own.
 */
import { invariant } from '../error.ts';
import type { Instant } from '../units.ts';

export const EPOCHS_UNMATCHED_MAX = 16;

/** Totals since the pair began: they only grow. */
export type MatchTotals = {
  /** PVM frames that the SVM's output released */
  readonly matched: number;
  /** frames that commits released: only the PVM has said what they say */
  readonly releasedByCommit: number;
  /** frames of the SVM */
  readonly secondaryFrames: number;
};

/** What was seen since the first of the epochs in a row: none of `releasedFrames` matched one of `secondaryFrames`. */
export type Unmatched = {
  epochs: number;
  releasedFrames: number;
  secondaryFrames: number;
  forMs: number;
};

export type MatchEvents = {
  unmatched(seen: Unmatched): void;
  /** It ended after `forMs`. */
  over(cause: 'match' | 'pair-ended', forMs: number): void;
};

export class MatchWatch {
  private readonly events: MatchEvents;
  /** at the last commit; null before the pair's first one */
  private last: MatchTotals | null = null;
  /** at the beginning of the epochs in a row, if there are any */
  private base: MatchTotals = { matched: 0, releasedByCommit: 0, secondaryFrames: 0 };
  private baseMs = 0;
  private inRow = 0;

  constructor(events: MatchEvents) {
    this.events = events;
  }

  /** Whether there is a pair: at least one checkpoint has committed. */
  get isWatching(): boolean {
    return this.last !== null;
  }

  /** Epochs in a row of which a commit released output and nothing matched. */
  get epochs(): number {
    return this.inRow;
  }

  get isUnmatched(): boolean {
    return this.inRow >= EPOCHS_UNMATCHED_MAX;
  }

  /** How many of `matched` frames have matched since the last commit. */
  matchedSince(matched: number): number {
    return this.last === null ? 0 : matched - this.last.matched;
  }

  /** How many of `secondaryFrames` frames came since the first of the epochs in a row began; 0 if there are none. */
  secondaryFramesSince(secondaryFrames: number): number {
    return this.inRow === 0 ? 0 : secondaryFrames - this.base.secondaryFrames;
  }

  /** A checkpoint has committed: an epoch is over, or the pair's first one begins. */
  committed(totals: MatchTotals, nowMs: Instant): void {
    const last = this.last ?? totals;
    const matched = totals.matched - last.matched;
    const released = totals.releasedByCommit - last.releasedByCommit;
    invariant(matched >= 0 && released >= 0, 'counts of released frames went back while a pair lived');
    this.last = totals;
    if (matched > 0) this.end('match', nowMs);
    else if (released > 0) {
      this.inRow++;
      if (this.inRow === EPOCHS_UNMATCHED_MAX) this.report(totals, nowMs);
    }
    if (this.inRow > 0) return;
    this.base = totals;
    this.baseMs = nowMs;
  }

  /** There is no pair any more. Its successor begins from nothing. */
  pairEnded(nowMs: Instant): void {
    this.end('pair-ended', nowMs);
    this.last = null;
  }

  private report(totals: MatchTotals, nowMs: Instant): void {
    const { base } = this;
    this.events.unmatched({
      epochs: this.inRow,
      releasedFrames: totals.releasedByCommit - base.releasedByCommit,
      secondaryFrames: totals.secondaryFrames - base.secondaryFrames,
      forMs: nowMs - this.baseMs,
    });
  }

  private end(cause: 'match' | 'pair-ended', nowMs: Instant): void {
    if (this.isUnmatched) this.events.over(cause, nowMs - this.baseMs);
    this.inRow = 0;
  }
}
