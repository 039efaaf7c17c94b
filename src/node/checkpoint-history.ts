/** Committed checkpoints as status shows them: counts of all, pauses of the last thousand. */

import type { CheckpointReason, CheckpointReport } from '../checkpoint/report.ts';
import type { NodeStatus } from '../observe/status.ts';

const PAUSES_MAX = 1000;

export class CheckpointHistory {
  private count = 0;
  private readonly byReason: Partial<Record<CheckpointReason, number>> = {};
  private readonly pauses: number[] = [];
  private last: CheckpointReport | null = null;
  /** computed when a status first asks for it: checkpoints are far more frequent */
  private quantiles: NodeStatus['checkpoints']['pauseMs'] | null = null;

  add(report: CheckpointReport): void {
    this.pauses[this.count % PAUSES_MAX] = report.pauseMs;
    this.count++;
    this.byReason[report.reason] = (this.byReason[report.reason] ?? 0) + 1;
    this.last = report;
    this.quantiles = null;
  }

  summary(): Omit<NodeStatus['checkpoints'], 'firstCopy' | 'pacing'> {
    this.quantiles ??= this.quantilesNow();
    return {
      count: this.count,
      byReason: { ...this.byReason },
      pauseMs: { ...this.quantiles },
      last: this.last,
    };
  }

  private quantilesNow(): NodeStatus['checkpoints']['pauseMs'] {
    const sorted = [...this.pauses].sort((a, b) => a - b);
    return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99) };
  }
}

/** Nearest rank; null without values. */
export function quantile(sorted: number[], q: number): number | null {
  return sorted.length === 0 ? null : sorted[Math.ceil(q * sorted.length) - 1];
}
