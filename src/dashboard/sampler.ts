/** Makes the samples that the page plots: differences of two statuses of the node, one second apart. */
import type { CheckpointReason } from '../checkpoint/report.ts';
import type { NodeEvent, NodeStatus } from '../observe/status.ts';
import type { Sample } from './messages.ts';

export class Sampler {
  private before: { status: NodeStatus; atMs: number } | null = null;
  private pauseMsMax: number | null = null;

  /** Notes the pause of a checkpoint. */
  event({ type, pauseMs }: NodeEvent): void {
    if (type !== 'checkpoint.committed' || typeof pauseMs !== 'number') return;
    this.pauseMsMax = Math.max(this.pauseMsMax ?? 0, pauseMs);
  }

  /** Forgets the last status: what comes next counts from there on. */
  away(): void {
    this.before = null;
    this.pauseMsMax = null;
  }

  /** Returns what happened since the last status. */
  sample(status: NodeStatus, atMs: number): Sample {
    const { before, pauseMsMax } = this;
    this.before = { status, atMs };
    this.pauseMsMax = null;
    const old = before?.status ?? status;
    const { held, secondary, traffic, phase } = status;
    return {
      atMs,
      forMs: before === null ? 0 : Math.max(0, atMs - before.atMs),
      phase,
      checkpoints: checkpointsSince(old, status),
      pauseMsMax,
      held: { ...held },
      matchedFrames: grown(old.traffic.releasedBy.match, traffic.releasedBy.match),
      committedFrames: grown(old.traffic.releasedBy.commit, traffic.releasedBy.commit),
      lagMs: secondary?.lagMs ?? { p50: null, p99: null },
    };
  }
}

function checkpointsSince(old: NodeStatus, { checkpoints }: NodeStatus): Sample['checkpoints'] {
  const counts: Sample['checkpoints'] = {};
  for (const [reason, count] of Object.entries(checkpoints.byReason) as [CheckpointReason, number][]) {
    const more = grown(old.checkpoints.byReason[reason] ?? 0, count);
    if (more > 0) counts[reason] = more;
  }
  return counts;
}

/** A node that has started again counts from 0. */
const grown = (before: number, now: number): number => (now < before ? now : now - before);
