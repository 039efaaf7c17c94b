/**
 * The rule of a useless secondary: a primary whose secondary's VM sends nothing, while checkpoints release output, says so.
 *
 * The world counts epochs in a row in which the secondary's VM sent no frame at all and a checkpoint released some: nothing can
 * have matched in them. A frame that was sent shortly before a commit may count for the epoch after it, so the node has one
 * epoch more than its own limit.
 */
import { EPOCHS_UNMATCHED_MAX } from '../../../src/checkpoint/match-watch.ts';
import { type Life, otherOf, type SimHost } from '../sim-host.ts';
import type { SimQemu } from '../sim-qemu.ts';
import type { Scene } from './scene.ts';

type Count = { epochs: number; qemu: SimQemu | null; sentFrames: number };

const NONE: Count = { epochs: 0, qemu: null, sentFrames: 0 };

export class UselessSecondary {
  private readonly scene: Scene;
  private readonly counts = new WeakMap<Life, Count>();

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** A node emits an event. */
  event(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    if (host.life === null) return;
    if (type === 'checkpoint.committed') this.committed(host, host.life, Number(details.releasedFrames));
    else if (type === 'link.lost') this.counts.delete(host.life);
  }

  /** Between two events, so that the node has handled its last commit. */
  check(host: SimHost, life: Life): void {
    const { epochs } = this.counts.get(life) ?? NONE;
    if (epochs <= EPOCHS_UNMATCHED_MAX) return;
    const { phase, secondary } = life.node.status();
    if (phase !== 'protected' || secondary === null) return;
    this.scene.journal.count('checks of a useless secondary');
    if (!secondary.unmatched)
      this.scene.journal.violation(
        'useless secondary',
        `${host.side} does not say that nothing has matched in ${epochs} epochs`,
      );
  }

  private committed(host: SimHost, life: Life, releasedFrames: number): void {
    const { qemu } = otherOf(this.scene.hosts, host);
    const last = this.counts.get(life) ?? NONE;
    const sentFrames = qemu?.vm.sentFrames ?? 0;
    const silent = qemu !== null && qemu === last.qemu && sentFrames === last.sentFrames;
    const more = silent && releasedFrames > 0 ? 1 : 0;
    this.counts.set(life, { epochs: silent ? last.epochs + more : 0, qemu, sentFrames });
  }
}
