/**
 * The service's copies, and the rule that no decision of a node gives up the last one.
 *
 * A VM carries the service if it was booted first or has got a whole state since, and the arbiter's record names its
 * host. A VM may start from nothing only when no copy is left. If both copies were lost by faults, the service is lost:
 * the clients then forget what they knew.
 */

import type { PairRecord } from '../../../src/pair/arbiter.ts';
import type { Side } from '../faults.ts';
import type { ClientHost } from '../guest/client.ts';
import type { Lost } from '../sim-arbiter.ts';
import type { Life, SimHost } from '../sim-host.ts';
import type { SimQemu } from '../sim-qemu.ts';
import type { Scene } from './scene.ts';

/** A loss this long after a fault counts as the fault's. */
const BLAME_MS = 15_000;

export class Lineage {
  /** When the service last started from nothing. */
  serviceSinceMs = 0;
  private readonly scene: Scene;
  private readonly clients: readonly ClientHost[];
  private readonly endLife: (host: SimHost, life: Life, how: string) => void;
  private booted = false;
  /** A copy of the service lives. */
  private covered = false;
  /** The guest has been switched off, and was not started since. */
  private off = false;

  constructor(
    scene: Scene,
    clients: readonly ClientHost[],
    endLife: (host: SimHost, life: Life, how: string) => void,
  ) {
    this.scene = scene;
    this.clients = clients;
    this.endLife = endLife;
  }

  vmStarted(host: SimHost, qemu: SimQemu): void {
    const { journal, loop, hosts } = this.scene;
    host.qemu = qemu;
    host.vmDied = false;
    journal.trace(qemu.name, `starts${qemu.incoming ? ', waiting for state' : ''}`);
    if (qemu.incoming) return;
    this.off = false;
    if (!this.booted) {
      this.booted = true;
      this.update();
      return;
    }
    journal.count('cold starts');
    this.serviceSinceMs = loop.nowMs;
    if (this.covered) {
      journal.violation(
        'nothing lost',
        `${host.side} starts its VM from nothing while a copy of the service lives`,
      );
      return;
    }
    // Both copies were lost. A node that is stopped in the middle of a write must not release old output later.
    for (const one of Object.values(hosts))
      if (one.life?.process.isMidway) this.endLife(one, one.life, 'killed with the service');
    for (const client of this.clients) client.forgive();
  }

  vmDied(host: SimHost, qemu: SimQemu): void {
    const { journal, injector } = this.scene;
    journal.trace(qemu.name, 'dies');
    if (host.qemu === qemu) host.qemu = null;
    host.vmDied = true;
    const { record } = this.scene.record.stored;
    if (
      !injector.injecting &&
      this.covered &&
      // Nobody is served by a guest that is off.
      qemu.standsFor !== 'shutdown' &&
      record !== null &&
      record.state !== 'pair' &&
      record.primary === host.side
    )
      journal.violation('nothing lost', `${host.side} is alone by the record, and its node ended its VM`);
    this.update(injector.injecting ? null : `${host.side}'s node ended its VM`, host);
  }

  /** The guest switches itself off: there is no service until somebody starts it. */
  switchedOff(): void {
    this.off = true;
    this.covered = false;
  }

  /** A guest has panicked: its VM is no copy any more. */
  guestDied(): void {
    this.update();
  }

  recordChanged(record: PairRecord, by: string): void {
    this.update(`${by} changed the record`, this.scene.hosts[record.primary as Side]);
  }

  /** A node that asks to be alone must have a living VM, however many faults there are: the other copy may be the last. */
  changeAsked(record: PairRecord): Lost {
    const { journal, hosts, injector } = this.scene;
    if (record.state === 'pair') return null;
    if (this.covered && hosts[record.primary as Side].vmDied)
      journal.violation('nothing lost', `${record.primary} claims to be alone, and its VM is dead`);
    return injector.lostOfClaim(record);
  }

  /** `decision`: what a node did that may have ended the last copy; null for a fault. */
  private update(decision: string | null = null, host: SimHost | null = null): void {
    if (this.off) return;
    const { journal, loop, hosts } = this.scene;
    const { record } = this.scene.record.stored;
    const carries = (side: string | null): boolean => {
      const one = side === null ? undefined : hosts[side as Side];
      const { qemu } = one ?? {};
      if (qemu === undefined || qemu === null || qemu.standsFor === 'guest-panicked') return false;
      return qemu.process.alive && (qemu.hasState || !qemu.incoming);
    };
    const before = this.covered;
    this.covered =
      record !== null && (carries(record.primary) || (record.state === 'pair' && carries(record.secondary)));
    if (!before || this.covered) return;
    journal.count('services lost');
    journal.trace('world', `no copy of the service is left (${decision ?? 'a fault'})`);
    if (decision === null) return;
    const sinceMs = loop.nowMs - BLAME_MS;
    if (Object.values(hosts).some((one) => one.faultUntilMs > sinceMs)) return;
    journal.violation(
      'nothing lost',
      `the last copy of the service was given up: ${decision} (${host?.side ?? '?'})`,
    );
  }
}
