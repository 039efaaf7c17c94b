/**
 * The clock of a replay: it moves from frame to frame, and stops on its way at each moment at which a wait is over.
 *
 * A node asks its policy every few milliseconds. A replay knows the next frame's time, so it looks only whether anything
 * is overdue then, and finds the moment by bisection, to OVERDUE_STEP_MS.
 */
import type { CheckpointPolicy } from '../checkpoint/policy.ts';
import type { Comparator, Overdue } from '../compare/comparator.ts';
import { invariant } from '../error.ts';
import type { Instant } from '../units.ts';

const OVERDUE_STEP_MS = 0.05;
/** How often SVM frames, which wait for seconds, are looked at. */
const SECONDARY_LOOK_MS = 50;
/** A pause in a recording may be longer than the bisection should take steps for. */
const BISECTED_MS_MAX = 86_400_000;

export type ClockHost = {
  /** Settles what is overdue, or says that it cannot be settled yet. It is called until nothing is overdue. */
  onOverdue(overdue: NonNullable<Overdue>): 'settled' | 'later';
  /** A moment that must not be passed without a call of `onDeadline`, which then moves it. */
  deadlineMs(): number;
  onDeadline(): void;
};

export class PlayedClock {
  nowMs = Number.NEGATIVE_INFINITY as Instant;
  private readonly comparator: Comparator;
  private readonly policy: CheckpointPolicy;
  private readonly host: ClockHost;
  private secondaryLookMs = Number.NEGATIVE_INFINITY;

  constructor(comparator: Comparator, policy: CheckpointPolicy, host: ClockHost) {
    this.comparator = comparator;
    this.policy = policy;
    this.host = host;
  }

  /** Moves on to `ms`, unless that has passed. */
  advanceTo(ms: Instant): void {
    const { host } = this;
    if (ms <= this.nowMs) return;
    for (let due = host.deadlineMs(); due <= ms; due = host.deadlineMs()) {
      if (due > this.nowMs) this.moveTo(due as Instant);
      host.onDeadline();
    }
    this.moveTo(ms);
  }

  private moveTo(ms: Instant): void {
    const { comparator } = this;
    const { waits } = this.policy;
    while (comparator.oldestWaitMs(ms) >= waits.dataMs || ms >= this.secondaryLookMs) {
      this.secondaryLookMs = ms + SECONDARY_LOOK_MS;
      const overdue = comparator.overdue(ms, waits);
      if (overdue === null) break;
      const moment = this.momentOverdue(ms);
      invariant(
        moment >= this.nowMs && moment <= ms,
        'a wait was over before the replay last looked, or is not yet',
      );
      this.nowMs = moment;
      if (this.host.onOverdue(overdue) === 'later') break;
    }
    this.nowMs = ms;
  }

  private momentOverdue(untilMs: Instant): Instant {
    const { comparator, policy } = this;
    let early = Math.max(this.nowMs, untilMs - BISECTED_MS_MAX);
    let late: number = untilMs;
    while (late - early > OVERDUE_STEP_MS) {
      const middle = (early + late) / 2;
      if (comparator.overdue(middle as Instant, policy.waits) === null) early = middle;
      else late = middle;
    }
    return late as Instant;
  }
}
