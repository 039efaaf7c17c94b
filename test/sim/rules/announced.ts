/**
 * The rule of announcements: a node that may speak when its uplink comes up announces its VM there.
 *
 * Not judged: where another fault strikes before it has had the time, or the node loses the right to speak.
 */
import type { Life, SimHost } from '../sim-host.ts';
import type { Scene } from './scene.ts';

/** The node dials every 100 ms, and a look is never late by more. */
const WITHIN_MS = 1000;

type Due = { life: Life; upSinceMs: number };

export class Announced {
  private readonly scene: Scene;
  private readonly seen = new Map<SimHost, number>();
  private readonly due = new Map<SimHost, Due>();

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** Between two events. */
  check(): void {
    const { hosts, loop, record, journal } = this.scene;
    for (const host of Object.values(hosts)) {
      const { life, uplinkUpSinceMs } = host;
      const speaks = record.stored.record?.primary === host.side && life?.audit.maySpeak(life.process.now());
      if (uplinkUpSinceMs !== (this.seen.get(host) ?? 0)) {
        this.seen.set(host, uplinkUpSinceMs);
        if (life !== null && speaks === true) this.due.set(host, { life, upSinceMs: uplinkUpSinceMs });
      }
      const due = this.due.get(host);
      if (due === undefined) continue;
      const spoiled = life !== due.life || speaks !== true || host.uplinkAwaySinceMs !== null;
      if (spoiled || host.faultUntilMs > due.upSinceMs) this.due.delete(host);
      else if (loop.nowMs - due.upSinceMs > WITHIN_MS) {
        this.due.delete(host);
        journal.count('uplinks that came up at a primary');
        if (host.announcedAtMs < due.upSinceMs)
          journal.violation('announced', `${host.side} does not announce its VM at the uplink that came up`);
      }
    }
  }
}
