/**
 * The rule of a hung VM: a node whose QEMU does nothing ends the pair in a stated time, so that the other VM goes on.
 *
 * A node notices by itself and acts on its own end of the link, so no fault of the network, the arbiter or the peer excuses it. Only
 * a checkpoint does, for as long as it may make no progress, and a pause of the node itself.
 */
import type { Life, SimHost } from '../sim-host.ts';
import type { SimQemu } from '../sim-qemu.ts';
import type { Scene } from './scene.ts';

/** Beside the node's own limit: a checkpoint without progress, the peer's silence in it, and turns of the loop. */
const SLACK_MS = 2500;

export class HungVm {
  private readonly scene: Scene;
  /** since when a QEMU does nothing while its node works */
  private readonly since = new WeakMap<SimQemu, number>();

  constructor(scene: Scene) {
    this.scene = scene;
  }

  check(host: SimHost, life: Life): void {
    const { qemu } = host;
    const { nowMs } = this.scene.loop;
    if (qemu === null) return;
    const hangs = qemu.process.continuesAtMs > nowMs && life.process.continuesAtMs <= nowMs;
    if (!hangs) {
      this.since.delete(qemu);
      return;
    }
    const sinceMs = this.since.get(qemu) ?? nowMs;
    this.since.set(qemu, sinceMs);
    const { silenceMsMax } = host.config.vm;
    if (nowMs - sinceMs < silenceMsMax * 1.125 + SLACK_MS) return;
    this.scene.journal.count('checks of a hung VM');
    const { name } = life.node.inspect().pair.state;
    if (name === 'primary' || name === 'secondary')
      this.scene.journal.violation(
        'hung VM',
        `${host.side} is ${name} of a pair, and its QEMU has done nothing for ${Math.round(nowMs - sinceMs)} ms`,
      );
  }
}
