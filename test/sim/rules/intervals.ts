/**
 * The rule of intervals: where a rule of the configuration delays the checkpoints of a service (`intervalMsMin`), no difference of that
 * service takes one before the interval is over, and no other flow waits for it.
 *
 * It is judged by the node's own clock and reports, and by what it holds: the port in each held frame tells whose it is.
 */
import { NO_FRAME } from '../../../src/compare/held-frames.ts';
import { ETHER_IPV4, get16, PROTOCOL_TCP } from '../guest/packets.ts';
import { RULED_PORT } from '../ruled.ts';
import type { Life, SimHost } from '../sim-host.ts';
import type { Scene } from './scene.ts';

/** Of sums of times. */
const ROUNDING_MS = 1e-6;

export class Intervals {
  private readonly scene: Scene;
  private readonly endMs = new WeakMap<Life, number>();

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** A node emits an event. */
  event(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    const { life } = host;
    if (life === null) return;
    if (type === 'link.lost') this.endMs.delete(life);
    if (type !== 'checkpoint.committed') return;
    const { journal } = this.scene;
    const nowMs = life.process.now();
    const lastMs = this.endMs.get(life);
    this.endMs.set(life, nowMs);
    const isOfService =
      details.service === `tcp ${RULED_PORT}` && String(details.reason).startsWith('diverged-');
    const intervalMs = intervalMsOf(host);
    if (intervalMs === 0 || lastMs === undefined || !isOfService) return;
    journal.count('delayed checkpoints');
    const ranMs = nowMs - Number(details.totalMs) - lastMs;
    if (ranMs < intervalMs - ROUNDING_MS)
      journal.violation(
        'intervals',
        `${host.side}: a checkpoint for ${details.service} after ${ranMs.toFixed(1)} of ${intervalMs} ms`,
      );
  }

  /** Returns for how long a frame has been held, beyond what its rule allows. */
  heldMs(host: SimHost, { node, process }: Life): number {
    const { role, parts } = node.inspect();
    if (role?.kind !== 'primary' || role.isOver) return 0;
    const { frames, primary } = role.path.comparator;
    const intervalMs = intervalMsOf(host);
    let most = 0;
    for (let id = primary.oldest; id !== NO_FRAME; id = frames.newerThan(id)) {
      const bytes = parts.slabs.buffer(frames.slabOf(id));
      const ms = process.now() - frames.since(id);
      most = Math.max(most, ms - (tcpPortOf(bytes, frames.offsetOf(id)) === RULED_PORT ? intervalMs : 0));
    }
    return most;
  }
}

function intervalMsOf({ config }: SimHost): number {
  return config.rules.find(({ intervalMsMin }) => intervalMsMin !== undefined)?.intervalMsMin ?? 0;
}

/** Returns the guest's port in a frame that it sent; 0 if it is not TCP. */
export function tcpPortOf(bytes: Uint8Array, at: number): number {
  const isIpv4 = get16(bytes, at + 12) === ETHER_IPV4;
  const protocol = bytes[at + (isIpv4 ? 23 : 20)];
  return protocol === PROTOCOL_TCP ? get16(bytes, at + (isIpv4 ? 34 : 54)) : 0;
}
