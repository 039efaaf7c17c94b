/**
 * When to take a checkpoint, and how long held output may wait for its counterpart first.
 *
 * Waiting is the ski-rental problem: the policy cannot know whether the SVM's frame is about to arrive. Waiting as long as a
 * checkpoint costs, and taking one then, is at most twice as bad as knowing (Karlin et al. 1988). The cost of a checkpoint
 * is measured, smoothed (1/8 of each new value, as TCP smooths its round trips), and bounded on both sides. Only an SVM that works
 * is waited for until the upper bound (datapath/svm-wait.ts). ACKs wait
 * longer, because a VM's delayed ACK is no sign of a difference (compare/ack-rule.ts). Output of the SVM alone makes no
 * client wait, so it waits longest.
 *
 * In periodic mode (pacing.ts) no checkpoint for a difference or a wait starts before the VMs have run for a period: for as long as the
 * last checkpoint took, and at most `waitMsMax`. Limits do not wait for that, nor do requests.
 *
 * An operator's rule may delay the checkpoints for the flows that it covers in the same way, for longer (`intervalMsMin`). So of the
 * divergences since the last commit the one that has to wait least is the one that counts; others would come after it.
 */
import type { Overdue, Urgent } from '../compare/comparator.ts';
import type { WorkWaits } from '../datapath/svm-wait.ts';
import type { Divergence } from '../divergence/explained.ts';
import { invariant } from '../error.ts';
import type { Instant } from '../units.ts';
import type { Pacing } from './pacing.ts';
import type { CheckpointReason } from './report.ts';

export type PolicyLimits = {
  intervalMsMax: number;
  waitMsMin: number;
  waitMsMax: number;
  ackWaitMsMax: number;
};

/** No client waits for it, and the SVM may well be ahead by one or two of the scheduler's time slices. */
const SECONDARY_WAIT_MS = 2000;
/**
 * Clients have been told what both VMs have, and the SVM sends nothing. It may have lost the last segment, which a client repeats
 * after 200 to 600 ms on most paths.
 */
const OWED_WAIT_MS = 1000;
const SMOOTHING = 1 / 8;

const ALWAYS_AT_ONCE = { isPeriodic: false } as const;

export class CheckpointPolicy {
  private readonly limits: PolicyLimits;
  private readonly pacing: Pick<Pacing, 'isPeriodic'>;
  private costMs: number;
  private lastMs = 0;
  private lastCostMs = 0;
  private first: Divergence | null = null;
  /** for so long after the last checkpoint a rule delays the one for `first` */
  private firstIntervalMs = 0;

  constructor(limits: PolicyLimits, pacing: Pick<Pacing, 'isPeriodic'> = ALWAYS_AT_ONCE) {
    this.limits = limits;
    this.pacing = pacing;
    this.costMs = limits.waitMsMin;
  }

  /** How long output may wait at `nowMs`, also that of flows whose checkpoints a rule delays. */
  waitsAt(nowMs: Instant): WorkWaits {
    return { ...this.waits, ranMs: nowMs - this.lastMs };
  }

  /** How long output may wait now. */
  get waits(): WorkWaits {
    const dataMs = Math.min(Math.max(this.costMs, this.limits.waitMsMin), this.limits.waitMsMax);
    const ackMs = Math.max(dataMs, this.limits.ackWaitMsMax);
    return {
      dataMs,
      ackMs,
      owedMs: OWED_WAIT_MS,
      secondaryMs: SECONDARY_WAIT_MS,
      workMs: this.limits.waitMsMax,
    };
  }

  /** `intervalMs`: the least time between two checkpoints for its flow. */
  diverged(divergence: Divergence, intervalMs = 0): void {
    if (this.first !== null && this.firstIntervalMs <= intervalMs) return;
    this.first = divergence;
    this.firstIntervalMs = intervalMs;
  }

  /** The divergence since the last commit that takes a checkpoint first, or null. */
  get divergence(): Divergence | null {
    return this.first;
  }

  /** How long the VMs run in periodic mode before the next checkpoint for a difference or a wait. */
  get periodMs(): number {
    return Math.min(this.lastCostMs, this.limits.waitMsMax);
  }

  /** Returns true while periodic mode delays such a checkpoint. */
  isTooSoon(nowMs: Instant): boolean {
    return this.pacing.isPeriodic && nowMs - this.lastMs < this.periodMs;
  }

  /** A checkpoint committed at `nowMs` and took `totalMs`. */
  committed(nowMs: Instant, totalMs: number): void {
    invariant(totalMs >= 0, `a checkpoint took ${totalMs} ms`);
    this.lastMs = nowMs;
    this.lastCostMs = totalMs;
    this.first = null;
    this.costMs += (totalMs - this.costMs) * SMOOTHING;
  }

  /** Why a checkpoint is due now, or null. */
  due(nowMs: Instant, overdue: Overdue, urgent: Urgent): CheckpointReason | null {
    const tooSoon = this.isTooSoon(nowMs);
    if (this.first !== null && !tooSoon && nowMs - this.lastMs >= this.firstIntervalMs)
      return this.first.reason;
    if (urgent !== null) return urgent;
    if (overdue !== null && !tooSoon) return overdue;
    return nowMs - this.lastMs >= this.limits.intervalMsMax ? 'interval' : null;
  }
}
