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

export class PlayedClock {
  nowMs = Number.NEGATIVE_INFINITY as Instant;
  private readonly comparator: Comparator;
  private readonly policy: CheckpointPolicy;
  private readonly onOverdue: (overdue: NonNullable<Overdue>) => void;
  private secondaryLookMs = Number.NEGATIVE_INFINITY;

  constructor(
    comparator: Comparator,
    policy: CheckpointPolicy,
    onOverdue: (overdue: NonNullable<Overdue>) => void,
  ) {
    this.comparator = comparator;
    this.policy = policy;
    this.onOverdue = onOverdue;
  }

  /** Moves on to `ms`, unless that has passed. `onOverdue` must settle what is overdue: it is called until nothing is. */
  advanceTo(ms: Instant): void {
    if (ms <= this.nowMs) return;
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
      this.onOverdue(overdue);
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
