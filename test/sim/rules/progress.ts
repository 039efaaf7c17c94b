/**
 * The rules of clients, waiting and liveness: what each client has been sent is right, held output leaves in time, and in
 * a protected pair every client makes progress.
 */
import type { ClientHost } from '../guest/client.ts';
import { type Life, noneStands, type SimHost } from '../sim-host.ts';
import type { Intervals } from './intervals.ts';
import type { Lineage } from './lineage.ts';
import type { Scene } from './scene.ts';

/** Longer than any client rests. */
const PROGRESS_MS = 5000;
/** The limits of waiting are 200 ms (schema.ts); a checkpoint and its retries take the rest. */
const WAIT_MS_MAX = 1000;
const WAIT_CALM_MS = 5000;
/** Retransmissions may be seconds apart. */
const STARVED_MS = 15_000;

export class Progress {
  private readonly scene: Scene;
  private readonly lineage: Lineage;
  private readonly clients: readonly ClientHost[];
  /** By how much longer than STARVED_MS clients may make no progress, where they may. */
  private readonly patienceMs: ReadonlyMap<ClientHost, number>;
  private readonly intervals: Intervals;

  constructor(
    scene: Scene,
    lineage: Lineage,
    clients: readonly ClientHost[],
    patienceMs: ReadonlyMap<ClientHost, number>,
    intervals: Intervals,
  ) {
    this.scene = scene;
    this.lineage = lineage;
    this.clients = clients;
    this.patienceMs = patienceMs;
    this.intervals = intervals;
  }

  /** Reports what clients have found wrong. */
  checkClients(): void {
    for (const host of this.clients) {
      for (const { name, violations } of host.clients)
        for (const text of violations) this.scene.journal.violation('client', `${name}: ${text}`);
    }
  }

  /** Held output waits for its counterpart or for a checkpoint, and for nothing else. */
  checkWait(host: SimHost, life: Life): void {
    const { journal } = this.scene;
    // A status is expensive.
    if (journal.stats.heldMs !== undefined && !this.isCalm(WAIT_CALM_MS)) return;
    if (life.node.status().phase !== 'protected') return;
    const heldMs = this.intervals.heldMs(host, life);
    // A VM that is off takes part in no checkpoint, until its node ends the pair (vm-trouble.ts). That it stands is no fault (injector.ts).
    const calm = this.isCalm(WAIT_CALM_MS) && noneStands(this.scene.hosts);
    journal.noteMax('heldMs', Math.round(calm ? heldMs : 0));
    if (heldMs > WAIT_MS_MAX && calm)
      journal.violation('waiting', `${host.side} has held a frame for ${heldMs.toFixed(0)} ms too long`);
  }

  checkStarved(): void {
    const { nowMs } = this.scene.loop;
    for (const host of this.clients) {
      const starvedMs = STARVED_MS + (this.patienceMs.get(host) ?? 0);
      const sinceMs = nowMs - starvedMs;
      if (this.lineage.serviceSinceMs > sinceMs) continue;
      for (const client of host.clients) {
        if (client.lastProgressMs >= sinceMs || client.finished()) continue;
        if (!this.isCalm(starvedMs) || !this.isProtected) continue;
        this.scene.journal.violation(
          'liveness',
          `${client.name} has made no progress for ${starvedMs} ms in a protected pair without a fault`,
        );
      }
    }
  }

  /** The pair is protected, and every client is done or makes progress. */
  isWell(): boolean {
    const sinceMs = this.scene.loop.nowMs - PROGRESS_MS;
    return (
      this.isProtected &&
      this.clients.every(({ clients }) =>
        clients.every((client) => client.finished() || client.lastProgressMs > sinceMs),
      )
    );
  }

  whatIsMissing(): string {
    const clients = this.clients
      .flatMap((host) => host.clients)
      .filter((client) => !client.finished())
      .map((client) => `${client.name}: last progress at ${client.lastProgressMs.toFixed(0)} ms`);
    const nodes = Object.values(this.scene.hosts).map(
      (host) => `${host.side} ${host.life?.node.status().phase ?? 'down'}`,
    );
    return [...nodes, ...clients].join('; ');
  }

  /** Neither host has had a fault for `ms`. */
  isCalm(ms: number): boolean {
    const { hosts, loop } = this.scene;
    const sinceMs = loop.nowMs - ms;
    return hosts.a.faultUntilMs < sinceMs && hosts.b.faultUntilMs < sinceMs;
  }

  get isProtected(): boolean {
    const { hosts, record } = this.scene;
    const phases = Object.values(hosts).map((host) => host.life?.node.status().phase);
    return record.stored.record?.state === 'pair' && phases.every((phase) => phase === 'protected');
  }
}
