/**
 * Decides when a difference takes its checkpoint: at once, or, where nearly everything differs, a period after the last one.
 *
 * Goal: a pair whose traffic always differs shall serve as many clients as it can. At once, each difference stops both VMs: with
 * several clients one reply's checkpoint also stops the work on all other requests, and the VMs stand for most of the
 * time. In periodic mode, as in Remus, they run for at least as long as the last checkpoint took (policy.ts), so that they
 * stand for at most half of the time, and one checkpoint releases the replies of many clients. A client that is alone
 * would only wait for longer. Which of the two is cheaper is therefore measured, not computed.
 *
 * The mode changes only when checkpoints are taken, never what may leave: comparison goes on, and output that matches leaves at
 * once. Flows of which all output matches therefore have the VMs for their half of the time.
 *
 * Tracked: a window of some seconds: how long checkpoints took that a difference or a wait asked for, and what was released. Each
 * window is judged at the first commit after its end, and a new one begins.
 *
 * | mode     | ends by                                                                                                |
 * |----------|--------------------------------------------------------------------------------------------------------|
 * | at-once  | checkpoints took ENTER_SHARE of a window: periodic, unless it rests (REST_MS)                            |
 * | periodic | `no-gain`: a window released less than GAIN_MIN times what the last one at once did, per second        |
 * |          | `not-needed`: checkpoints took less than LEAVE_SHARE of a window; at once they would not take much more |
 * |          | `again`: PERIODIC_MS_MAX are over, so that what is compared with is old                                 |
 *
 * Limits: from a change to periodic until the next change at least WINDOW_MS pass, and from then on at least REST_MS. So the
 * mode changes at most twice within FLAP_MS, and a trial without a gain takes a thirtieth of the time.
 */
import { invariant } from '../error.ts';
import type { Instant } from '../units.ts';
import type { MatchTotals } from './match-watch.ts';
import type { CheckpointReason } from './report.ts';

/** At half, periodic mode would change nothing. Waits alone stay below it: each lasts for as long as a checkpoint takes. */
export const ENTER_SHARE = 2 / 3;
/** The VMs run three times as long as they stand: hardly a difference comes within a period of the last checkpoint. */
export const LEAVE_SHARE = 1 / 4;
/** Rates of equal windows differ by up to a tenth. */
export const GAIN_MIN = 1.2;
export const WINDOW_MS = 2000;
/** Fewer checkpoints give no steady rate, so that a window of slow ones is longer, */
const WINDOW_CHECKPOINTS_MIN = 8;
/** but no longer than this: an idle pair takes a checkpoint every few seconds. */
const WINDOW_MS_MAX = 4 * WINDOW_MS;
export const REST_MS = { 'no-gain': 60_000, 'not-needed': 10_000, again: 10_000 } as const;
export const FLAP_MS = WINDOW_MS + 10_000;
const PERIODIC_MS_MAX = 600_000;

/** Totals since the pair began: they only grow. `releasedBytes`: whatever the cause. */
export type ReleaseTotals = Pick<MatchTotals, 'matched' | 'releasedByCommit'> & {
  readonly releasedBytes: number;
};

/** What a window showed. */
export type PacingFigures = {
  /** part of the time in which a checkpoint was under way that a difference or a wait had asked for */
  timeShare: number;
  checkpointsPerS: number;
  /** part of the frames which matched, or a commit released, that a commit released; null without any */
  commitShare: number | null;
  releasedBytesPerS: number;
};

export type AtOnceReason = keyof typeof REST_MS;
/** `figures`: of the window that was judged. A pair that ends in periodic mode also ends the mode. */
export type PacingChange =
  | ({ mode: 'periodic' } & PacingFigures)
  | ({ mode: 'at-once'; why: AtOnceReason; forMs: number } & PacingFigures)
  | { mode: 'at-once'; why: 'pair-ended'; forMs: number };

/** `figures`: of the last window; null before the end of the first one. `why`: null if it was never periodic. */
export type PacingStatus = { figures: PacingFigures | null } & (
  | { mode: 'at-once'; why: AtOnceReason | null }
  | { mode: 'periodic'; forMs: number; periodMs: number }
);

type State =
  | { readonly mode: 'at-once'; readonly why: AtOnceReason | null; readonly restUntilMs: number }
  | { readonly mode: 'periodic'; readonly sinceMs: Instant; readonly bytesPerSBefore: number };

type Window = {
  readonly sinceMs: Instant;
  readonly totals: ReleaseTotals;
  checkpoints: number;
  spentMs: number;
};

/** Whether periodic mode delays a checkpoint for this reason. Limits, intervals and requests do not wait. */
const isPaced = (reason: CheckpointReason): boolean =>
  reason.startsWith('diverged-') || reason.startsWith('wait-');

export class Pacing {
  private readonly changed: (change: PacingChange) => void;
  private state: State = { mode: 'at-once', why: null, restUntilMs: 0 };
  private window: Window | null = null;
  private figures: PacingFigures | null = null;

  constructor(changed: (change: PacingChange) => void) {
    this.changed = changed;
  }

  get isPeriodic(): boolean {
    return this.state.mode === 'periodic';
  }

  /** A checkpoint has committed, and the VMs run. */
  committed(
    { reason, totalMs }: { reason: CheckpointReason; totalMs: number },
    totals: ReleaseTotals,
    nowMs: Instant,
  ): void {
    const { window } = this;
    if (window === null) {
      this.window = windowAt(nowMs, totals);
      return;
    }
    invariant(
      totals.matched >= window.totals.matched &&
        totals.releasedByCommit >= window.totals.releasedByCommit &&
        totals.releasedBytes >= window.totals.releasedBytes,
      'totals of released output went back while a pair lived',
    );
    if (isPaced(reason)) {
      window.checkpoints++;
      window.spentMs += totalMs;
    }
    const ms = nowMs - window.sinceMs;
    if (ms < WINDOW_MS || (window.checkpoints < WINDOW_CHECKPOINTS_MIN && ms < WINDOW_MS_MAX)) return;
    this.figures = figuresOf(window, totals, ms);
    this.window = windowAt(nowMs, totals);
    this.judge(this.figures, nowMs);
  }

  /** There is no pair any more. */
  pairEnded(nowMs: Instant): void {
    const { state } = this;
    if (state.mode !== 'periodic') return;
    this.state = { mode: 'at-once', why: null, restUntilMs: 0 };
    this.changed({ mode: 'at-once', why: 'pair-ended', forMs: nowMs - state.sinceMs });
  }

  status(nowMs: Instant, periodMs: number): PacingStatus {
    const { state, figures } = this;
    if (state.mode === 'at-once') return { mode: 'at-once', why: state.why, figures };
    return { mode: 'periodic', forMs: nowMs - state.sinceMs, periodMs, figures };
  }

  private judge(figures: PacingFigures, nowMs: Instant): void {
    const { state } = this;
    const { timeShare, releasedBytesPerS } = figures;
    if (state.mode === 'at-once') {
      if (timeShare < ENTER_SHARE || nowMs < state.restUntilMs) return;
      this.state = { mode: 'periodic', sinceMs: nowMs, bytesPerSBefore: releasedBytesPerS };
      this.changed({ mode: 'periodic', ...figures });
      return;
    }
    const forMs = nowMs - state.sinceMs;
    let why: AtOnceReason;
    if (timeShare < LEAVE_SHARE) why = 'not-needed';
    else if (releasedBytesPerS < GAIN_MIN * state.bytesPerSBefore) why = 'no-gain';
    else if (forMs >= PERIODIC_MS_MAX) why = 'again';
    else return;
    this.state = { mode: 'at-once', why, restUntilMs: nowMs + REST_MS[why] };
    this.changed({ mode: 'at-once', why, forMs, ...figures });
  }
}

function windowAt(sinceMs: Instant, totals: ReleaseTotals): Window {
  return { sinceMs, totals, checkpoints: 0, spentMs: 0 };
}

function figuresOf(
  { totals: from, checkpoints, spentMs }: Window,
  to: ReleaseTotals,
  ms: number,
): PacingFigures {
  const byCommit = to.releasedByCommit - from.releasedByCommit;
  const frames = byCommit + to.matched - from.matched;
  return {
    timeShare: spentMs / ms,
    checkpointsPerS: (checkpoints * 1000) / ms,
    commitShare: frames === 0 ? null : byCommit / frames,
    releasedBytesPerS: ((to.releasedBytes - from.releasedBytes) * 1000) / ms,
  };
}
