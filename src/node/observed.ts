/** Counts and reports of a node since it started, over all its roles: its status shows them. */
import type { CheckpointReport, FirstCopyReport } from '../checkpoint/report.ts';
import { DIVERGENCE_CLASSES, type Divergence } from '../divergence/explained.ts';
import type { FailoverReport, NodeStatus } from '../observe/status.ts';
import type { Instant } from '../units.ts';
import { ArbiterHistory } from './arbiter-history.ts';
import { CheckpointHistory } from './checkpoint-history.ts';
import { Spending } from './spending.ts';

export class Observed {
  readonly history = new CheckpointHistory();
  readonly arbiter = new ArbiterHistory();
  readonly spending = new Spending();
  divergences: NodeStatus['divergences'] = { count: 0, byClass: noneOfAnyClass(), last: null };
  failover: FailoverReport | null = null;
  firstCopy: FirstCopyReport | null = null;
  /** the latest peer, connected or not */
  peerName: string | null = null;
  onCheckpoint: (report: CheckpointReport) => void = () => {};

  diverged({ flow, reason, class: one, why }: Divergence, atMs: number): void {
    const { count, byClass } = this.divergences;
    this.divergences = {
      count: count + 1,
      byClass: { ...byClass, [one]: byClass[one] + 1 },
      last: { flow, reason, class: one, why, atMs },
    };
  }

  checkpoint(report: CheckpointReport, nowMs: Instant): void {
    this.history.add(report);
    this.spending.add(report, nowMs);
    this.onCheckpoint(report);
  }
}

function noneOfAnyClass(): NodeStatus['divergences']['byClass'] {
  return Object.fromEntries(
    DIVERGENCE_CLASSES.map((one) => [one, 0]),
  ) as NodeStatus['divergences']['byClass'];
}
