/**
 * When the wait for the SVM's output is over.
 *
 * Output of the PVM that has waited as long as a checkpoint costs is due for one (checkpoint/policy.ts): nobody can know whether its
 * counterpart is about to come. But an SVM that works is about to send something, and one that has slept in silence for so long is
 * not. So the wait goes on while the SVM works, for at most `workMs`, and until it has slept for as long as a checkpoint costs.
 *
 * The SVM is asked a little before that (svm-sleep.ts), so that short waits cost no question. Where its sleep cannot be seen, the
 * cost of a checkpoint alone decides. A guest that never sleeps shows nothing either: each wait that reaches the bound
 * halves it, until the SVM is seen asleep again.
 */
import type { Comparator, Overdue, WaitLimits } from '../compare/comparator.ts';
import type { Instant } from '../units.ts';
import type { SvmSleep } from './svm-sleep.ts';

/** `workMs`: how long held output may wait for an SVM that works. */
export type WorkWaits = WaitLimits & { readonly workMs: number };

type Held = Pick<Comparator, 'overdue' | 'overdueMs' | 'oldestWaitMs'>;

/** Part of a checkpoint's cost after which the SVM is asked. */
const ASK_SHARE = 1 / 2;

export class SvmWait {
  private readonly svm: SvmSleep;
  /** part of `workMs` for which an SVM that works is waited for */
  private share = 1;

  constructor(svm: SvmSleep) {
    this.svm = svm;
  }

  /** As the comparator's own, but that output may wait longer for an SVM that works. */
  overdue(comparator: Held, nowMs: Instant, limits: WorkWaits): Overdue {
    const overdue = comparator.overdue(nowMs, limits);
    if (overdue === 'wait-primary') return this.isOver(nowMs, comparator.overdueMs, limits) ? overdue : null;
    if (overdue === null) this.waits(comparator.oldestWaitMs(nowMs), limits);
    return overdue;
  }

  /** Output has waited for `waitedMs`, and is not due yet. */
  waits(waitedMs: number, { dataMs }: WorkWaits): void {
    if (this.svm.isAsleep) this.share = 1;
    else if (waitedMs >= dataMs * ASK_SHARE) this.svm.ask();
  }

  /** Output that has waited for `waitedMs` is due for a checkpoint: returns whether to take it. */
  isOver(nowMs: Instant, waitedMs: number, { dataMs, workMs }: WorkWaits): boolean {
    const { svm } = this;
    if (svm.blindness !== null) return true;
    if (svm.isAsleep) {
      this.share = 1;
      if (svm.sleptMs(nowMs) >= dataMs) return true;
    } else svm.ask();
    if (waitedMs < Math.max(dataMs, workMs * this.share)) return false;
    this.share /= 2;
    return true;
  }
}
