/**
 * The rule of periods: in periodic mode no checkpoint for a difference or a wait begins before the VMs have run for as long as
 * the last one took, or for the longest wait of held output.
 *
 * It is judged by the node's own clock and reports: each says when its checkpoint ended, and how long it took.
 */
import type { Life, SimHost } from '../sim-host.ts';
import type { Scene } from './scene.ts';

type Pair = { mode: unknown; endMs: number; tookMs: number };

/** Of sums of times. */
const ROUNDING_MS = 1e-6;

export class Periods {
  private readonly scene: Scene;
  private readonly pairs = new WeakMap<Life, Pair>();

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** A node emits an event. */
  event(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    const { life } = host;
    if (life === null) return;
    const pair = this.pairs.get(life);
    if (type === 'link.lost') this.pairs.delete(life);
    else if (type === 'checkpoint.pacing' && pair !== undefined) pair.mode = details.mode;
    else if (type === 'checkpoint.committed') {
      const endMs = life.process.now();
      const tookMs = Number(details.totalMs);
      if (pair?.mode === 'periodic') this.judge(host, pair, String(details.reason), endMs - tookMs);
      this.pairs.set(life, { mode: pair?.mode ?? 'at-once', endMs, tookMs });
    }
  }

  private judge(host: SimHost, last: Pair, reason: string, startMs: number): void {
    const { journal } = this.scene;
    journal.count('checkpoints in periodic mode');
    if (!/^(diverged|wait)-/.test(reason)) return;
    const ranMs = startMs - last.endMs;
    const periodMs = Math.min(last.tookMs, host.config.checkpoint.waitMsMax);
    if (ranMs >= periodMs - ROUNDING_MS) return;
    journal.violation(
      'periods',
      `${host.side}: a checkpoint for ${reason} after ${ranMs.toFixed(1)} ms, and the last one took ${last.tookMs.toFixed(1)} ms`,
    );
  }
}
