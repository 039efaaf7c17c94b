/** Faults of a VM whose QEMU lives: it hangs, its VM stands, or its guest switches itself off. */
import type { Fault, Side } from './faults.ts';
import type { Die } from './guest/die.ts';
import type { Journal } from './journal.ts';
import type { Loop } from './loop.ts';
import type { ArbiterRecord } from './sim-arbiter.ts';
import { type Hosts, otherOf, type SimHost } from './sim-host.ts';
import type { Standing } from './standing.ts';

/** A VM that a checkpoint has stopped does something of its own when it runs again. */
const AGAIN_MS = 5;
/** One guest is ahead of the other by so much at most. */
const APART_MS = 40;

type Role = 'primary' | 'secondary';

/** The part of a world that these faults reach. */
type Scene = {
  readonly loop: Loop;
  readonly die: Die;
  readonly record: ArbiterRecord;
  readonly hosts: Hosts;
  readonly journal: Journal;
};

/** The part of a world that learns of it. */
export type VmFaultEvents = {
  /** The guest of a primary switches itself off. */
  switchedOff(): void;
  /** A VM is no copy of the service any more. */
  died(): void;
};

export class VmFaults {
  private readonly scene: Scene;
  private readonly events: VmFaultEvents;

  constructor(scene: Scene, events: VmFaultEvents) {
    this.scene = scene;
    this.events = events;
  }

  hang(role: Role, ms: number): void {
    const host = this.hostOf(role);
    if (host === null) return;
    this.scene.journal.count(`hung VMs of a ${role}`);
    host.qemu?.process.pause(ms);
  }

  stand({ role, why }: Extract<Fault['what'], { kind: 'standing-vm' }>, ms: number): void {
    const host = this.hostOf(role);
    if (host === null) return;
    const other = otherOf(this.scene.hosts, host).qemu;
    // The service could not outlive that.
    if (why === 'guest-panicked' && (other === null || other.standsFor !== null || !other.hasState)) return;
    this.standSoon(host, why, ms, () => {
      const { qemu } = host;
      this.scene.journal.count(`VMs of a ${role} that stand: ${why}`);
      if (why === 'guest-panicked') this.events.died();
      else if (qemu !== null) this.scene.loop.after(ms, qemu.process, () => qemu.standNoMore(why));
    });
  }

  switchOff(who: 'both' | Role): void {
    const primary = this.hostOf('primary');
    const secondary = this.hostOf('secondary');
    const protectedPair = [primary, secondary].every(
      (host) => host?.life?.node.status().phase === 'protected',
    );
    if (primary === null || secondary === null || !protectedPair) return;
    this.scene.journal.count(`guests switched off: ${who}`);
    const { die, loop } = this.scene;
    const hosts = who === 'both' ? [primary, secondary] : [who === 'primary' ? primary : secondary];
    for (const host of hosts)
      loop.after(die.next() * APART_MS, null, () =>
        this.standSoon(host, 'shutdown', APART_MS, () => {
          // The pair may have ended meanwhile.
          if (this.scene.record.stored.record?.primary === host.side) this.events.switchedOff();
        }),
      );
  }

  /** Stops a VM when it runs, within `ms`, and calls `done` then. */
  private standSoon(host: SimHost, why: Standing, ms: number, done: () => void): void {
    const { loop } = this.scene;
    const { qemu } = host;
    const endMs = loop.nowMs + ms;
    const attempt = (): void => {
      if (qemu === null || !qemu.process.alive || host.qemu !== qemu || loop.nowMs > endMs) return;
      if (qemu.process.continuesAtMs <= loop.nowMs && qemu.stand(why)) done();
      else loop.after(AGAIN_MS, null, attempt);
    };
    attempt();
  }

  private hostOf(role: Role): SimHost | null {
    const { record } = this.scene.record.stored;
    const side = record?.state === 'pair' ? record[role] : null;
    return side === null ? null : this.scene.hosts[side as Side];
  }
}
