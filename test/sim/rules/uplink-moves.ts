/**
 * The rule of uplinks that go away: a primary offers its secondary to take over only after its own uplink has been away for as long as it
 * was told, while the secondary's is up, and not before it has held down since its promotion; and it does offer, and is relieved.
 *
 * The world knows when each uplink went away. A node learns of the peer's over the link, so it may be wrong for a moment.
 */
import { type Life, otherOf, type SimHost } from '../sim-host.ts';
import { WORLD_LIMITS } from '../world-limits.ts';
import type { Scene } from './scene.ts';

/** Clocks run at other speeds, by up to a thousandth. */
const CLOCKS = 0.995;
/** A link that is silent for a second is lost, and with it what the peer has said. */
const STALE_MS_MAX = 2000;
/** A look each tenth of a second, and what pauses and slow links cost. */
const LATE_MS_MAX = 3000;
/** One a second: paused nodes go on after five seconds. */
const OFFERS_MAX = 8;

type Primary = { life: Life; promotedAtMs: number | null; offers: number; awaySinceMs: number | null };

export class UplinkMoves {
  private readonly scene: Scene;
  private readonly primaries = new Map<SimHost, Primary>();
  /** since when all that a move needs has been there */
  private dueSinceMs: number | null = null;

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** A node emits an event. */
  event(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    const { loop } = this.scene;
    if (host.life === null) return;
    if (type === 'pair.state' && details.to === 'promoting')
      this.primaries.set(host, { ...this.of(host, host.life), promotedAtMs: loop.nowMs });
    else if (type === 'uplink.yields') this.offered(host, host.life);
  }

  /** Between two events. */
  check(): void {
    const { loop, record, hosts, journal } = this.scene;
    const stored = record.stored.record;
    const host = stored?.state === 'pair' ? hosts[stored.primary as 'a' | 'b'] : null;
    if (host?.life === null || host === null || !this.isDue(host, host.life)) {
      this.dueSinceMs = null;
      return;
    }
    this.dueSinceMs ??= loop.nowMs;
    if (loop.nowMs - this.dueSinceMs < LATE_MS_MAX || this.of(host, host.life).offers > 0) return;
    journal.violation('uplink moves', `${host.side} does not give way, though only its uplink is away`);
  }

  private isDue(host: SimHost, life: Life): boolean {
    const { loop } = this.scene;
    const { failover, awayMsMax } = host.config.uplink;
    const other = otherOf(this.scene.hosts, host);
    const { promotedAtMs } = this.of(host, life);
    return (
      failover &&
      host.uplinkAwaySinceMs !== null &&
      loop.nowMs - host.uplinkAwaySinceMs > awayMsMax &&
      other.uplinkAwaySinceMs === null &&
      loop.nowMs - other.uplinkUpSinceMs > awayMsMax + STALE_MS_MAX &&
      (promotedAtMs === null || loop.nowMs - promotedAtMs > WORLD_LIMITS.uplinkHoldDownMs / CLOCKS) &&
      loop.nowMs >= life.process.continuesAtMs &&
      life.node.status().peer.connected &&
      life.node.status().phase === 'protected'
    );
  }

  private offered(host: SimHost, life: Life): void {
    const { loop, journal } = this.scene;
    const other = otherOf(this.scene.hosts, host);
    const of = this.of(host, life);
    const { awayMsMax } = host.config.uplink;
    journal.count('offers to take over');
    const wrong = (text: string) => journal.violation('uplink moves', `${host.side} gives way ${text}`);
    const sinceMs = host.uplinkAwaySinceMs;
    if (sinceMs === null) {
      // A node knows of a change some milliseconds later.
      if (loop.nowMs - host.uplinkUpSinceMs > STALE_MS_MAX) wrong('though its uplink is up');
    } else if (loop.nowMs - sinceMs < awayMsMax * CLOCKS)
      wrong(`after ${(loop.nowMs - sinceMs).toFixed(0)} ms`);
    if (other.uplinkAwaySinceMs !== null && loop.nowMs - other.uplinkAwaySinceMs > STALE_MS_MAX)
      wrong(`to ${other.side}, whose uplink is away too`);
    if (of.promotedAtMs !== null && loop.nowMs - of.promotedAtMs < WORLD_LIMITS.uplinkHoldDownMs * CLOCKS)
      wrong(`${(loop.nowMs - of.promotedAtMs).toFixed(0)} ms after its promotion`);
    const offers = of.awaySinceMs === sinceMs ? of.offers + 1 : 1;
    this.primaries.set(host, { ...of, offers, awaySinceMs: sinceMs });
    if (offers > OFFERS_MAX && this.dueSinceMs !== null && loop.nowMs - this.dueSinceMs > 1000 * OFFERS_MAX)
      journal.violation(
        'uplink moves',
        `${other.side} does not take over, though it was offered ${offers} times`,
      );
  }

  /** Returns what is known of the node in this life. */
  private of(host: SimHost, life: Life): Primary {
    const known = this.primaries.get(host);
    if (known?.life === life)
      return known.awaySinceMs === host.uplinkAwaySinceMs ? known : { ...known, offers: 0 };
    return { life, promotedAtMs: null, offers: 0, awaySinceMs: null };
  }
}
