/**
 * The rule of the fence: only a node that has won cuts the other one off, one run at a time; and a node whose record says
 * `fencing` neither speaks nor goes on before a run of that generation has succeeded.
 */
import type { PairRecord } from '../../../src/pair/arbiter.ts';
import type { SimHost } from '../sim-host.ts';
import type { Scene } from './scene.ts';

type End = 'done' | 'failed' | 'ended';

export class FenceRuns {
  private readonly scene: Scene;
  private readonly running = new Map<string, unknown>();
  private before: PairRecord | null = null;
  /** The generation whose fence is done. */
  private doneOf = 0;

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** A node begins a run. To be called with how it ended. */
  began(host: SimHost, peer: string): (end: End) => void {
    const { journal, record } = this.scene;
    const { record: stored } = record.stored;
    const { life, side } = host;
    if (stored?.state !== 'fencing' || stored.primary !== side || stored.secondary !== peer)
      journal.violation('fence', `${side} cuts ${peer} off while the record is ${JSON.stringify(stored)}`);
    if (life !== null && this.running.get(side) === life)
      journal.violation('fence', `${side} runs two fence commands at once`);
    this.running.set(side, life);
    return (end) => {
      this.running.delete(side);
      journal.count(`fences ${end}`);
      if (end === 'done' && stored !== null) this.doneOf = stored.generation;
    };
  }

  recordChanged(record: PairRecord): void {
    const { before } = this;
    this.before = record;
    if (before?.state !== 'fencing' || this.doneOf === before.generation) return;
    this.scene.journal.violation('fence', `${record.primary} went on before its fence was done`);
  }

  /** Looked at often. */
  check(): void {
    const { record, hosts, journal } = this.scene;
    if (record.stored.record?.state !== 'fencing') return;
    for (const { life, side } of Object.values(hosts))
      if (life?.audit.maySpeak(life.process.now()) === true)
        journal.violation('fence', `${side} may speak while the fence is not done`);
  }
}
