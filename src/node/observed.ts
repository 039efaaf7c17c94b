/** Counts and reports of a node since it started, over all its roles: its status shows them. */
import type { CheckpointReport, FirstCopyReport } from '../checkpoint/report.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import type { FailoverReport, NodeStatus } from '../observe/status.ts';
import { CheckpointHistory } from './checkpoint-history.ts';

export class Observed {
  readonly history = new CheckpointHistory();
  divergences: NodeStatus['divergences'] = { count: 0, last: null };
  failover: FailoverReport | null = null;
  firstCopy: FirstCopyReport | null = null;
  /** the latest peer, connected or not */
  peerName: string | null = null;
  onCheckpoint: (report: CheckpointReport) => void = () => {};

  diverged(flow: string, reason: DivergenceReason, atMs: number): void {
    this.divergences = { count: this.divergences.count + 1, last: { flow, reason, atMs } };
  }

  checkpoint(report: CheckpointReport): void {
    this.history.add(report);
    this.onCheckpoint(report);
  }
}
