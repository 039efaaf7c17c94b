/**
 * The rules of a VM in trouble.
 *
 * - A node whose QEMU does nothing, or whose VM stands for an error or is off, ends the pair in a stated time, so that the other VM
 *   goes on. It notices by itself and acts on its own end of the link, so no fault of the network, the arbiter or the peer excuses it.
 *   Only a checkpoint does, for as long as it may make no progress, and a pause of the node itself.
 * - A VM that stands for another reason than a checkpoint is not copied.
 * - A guest that switches itself off ends both nodes with 0, and nobody is promoted.
 */
import type { Life, SimHost } from '../sim-host.ts';
import type { SimQemu } from '../sim-qemu.ts';
import type { Scene } from './scene.ts';

/** Beside the node's own limit: a checkpoint without progress, the peer's silence in it, and turns of the loop. */
const SLACK_MS = 2500;
/** What QEMU says arrives and is handled meanwhile; a checkpoint cannot be called back. */
const STANDING_MS = 10;
/** The secondary's grace, the arbiter, and the turns of both. */
const OFF_MS = 4000;
/** For so long nothing else may have happened. */
const CALM_MS = 8000;

type PowerOff = { atMs: number; isCalm: boolean; ended: Set<string> };

export class VmTroubleRules {
  private readonly scene: Scene;
  /** since when a QEMU is of no use while its node works */
  private readonly since = new WeakMap<SimQemu, number>();
  private off: PowerOff | null = null;

  constructor(scene: Scene) {
    this.scene = scene;
  }

  check(host: SimHost, life: Life): void {
    const { qemu } = host;
    const { nowMs } = this.scene.loop;
    if (qemu === null) return;
    const works = life.process.continuesAtMs <= nowMs && !life.process.isMidway;
    const hangs = qemu.process.continuesAtMs > nowMs;
    const { standsFor } = qemu;
    if (!works || (!hangs && standsFor !== 'io-error' && standsFor !== 'shutdown')) {
      this.since.delete(qemu);
      return;
    }
    const sinceMs = this.since.get(qemu) ?? nowMs;
    this.since.set(qemu, sinceMs);
    const limitMs = (hangs ? host.config.vm.silenceMsMax * 1.125 : 0) + SLACK_MS;
    if (nowMs - sinceMs < limitMs) return;
    this.scene.journal.count('checks of a VM in trouble');
    const { name } = life.node.inspect().pair.state;
    if (name === 'primary' || name === 'secondary')
      this.scene.journal.violation(
        'VM in trouble',
        `${host.side} is ${name} of a pair, and its VM has been of no use for ${Math.round(nowMs - sinceMs)} ms`,
      );
  }

  /** QEMU's state is copied as it is now. */
  stateTaken(qemu: SimQemu): void {
    if (qemu.standsFor === null) return;
    const ms = this.scene.loop.nowMs - qemu.standsSinceMs;
    if (ms > STANDING_MS)
      this.scene.journal.violation(
        'standing VM',
        `a VM that has stood for ${ms.toFixed(0)} ms (${qemu.standsFor}) is copied`,
      );
  }

  /** The guest of a primary switches itself off. `isCalm`: nothing else is broken. */
  switchedOff(): void {
    const { loop, hosts, journal } = this.scene;
    const isCalm = Object.values(hosts).every(({ faultUntilMs }) => faultUntilMs < loop.nowMs - CALM_MS);
    const off: PowerOff = { atMs: loop.nowMs, isCalm, ended: new Set() };
    this.off = off;
    loop.after(OFF_MS, null, () => {
      this.off = null;
      // Another fault may have come since.
      const others = Object.values(hosts).some(({ faultUntilMs }) => faultUntilMs > off.atMs);
      if (!off.isCalm || others) return;
      journal.count('guests switched off in peace');
      if (off.ended.size !== 2)
        journal.violation(
          'power-off',
          `${2 - off.ended.size} nodes have not ended ${OFF_MS} ms after their guest`,
        );
    });
  }

  /** A node has ended. */
  ended(host: SimHost, how: string): void {
    const { off } = this;
    if (off === null) return;
    off.ended.add(host.side);
    if (off.isCalm && how.startsWith('exit') && how !== 'exit 0' && host.faultUntilMs < off.atMs)
      this.scene.journal.violation('power-off', `${host.side} ends with ${how} because its guest is off`);
  }

  promoted(host: SimHost): void {
    const { off } = this;
    const { hosts } = this.scene;
    if (off === null || !off.isCalm) return;
    if (Object.values(hosts).some(({ faultUntilMs }) => faultUntilMs > off.atMs)) return;
    this.scene.journal.violation('power-off', `${host.side} is promoted because the guest is off`);
  }
}
