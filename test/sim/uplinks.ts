/**
 * Half of the worlds have nodes that give way while their uplink is away (pair/uplink-yield.ts), and their uplinks go away.
 *
 * All of it is drawn from a die of its own: what a seed means otherwise does not depend on it.
 */
import type { Fault, Side } from './faults.ts';
import { Die } from './guest/die.ts';

export type Uplinks = { readonly awayMsMax: number };

/** Where a host's uplink is. */
export const UPLINK_PATH = '/net/uplink';

const SEED_SALT = 0x1b873593;

export function drawUplinks(seed: number): Uplinks | null {
  const die = new Die(seed ^ SEED_SALT);
  return die.chance(0.5) ? { awayMsMax: die.pick([300, 1000]) } : null;
}

/** Uplinks that are away, one at a time or both. */
export function planAway(seed: number, fromMs: number, untilMs: number): Fault[] {
  const die = new Die(~(seed ^ SEED_SALT));
  const faults: Fault[] = [];
  const away = (side: Side, atMs: number): void => {
    const ms = die.pick([400, 1500, 4000, 12_000]);
    faults.push({ atMs, ms, what: { kind: 'uplink-away', side } });
  };
  for (let left = die.within(1, 4); left > 0; left--) {
    const atMs = Math.round(fromMs + die.next() * (untilMs - fromMs));
    const side: Side = die.pick(['a', 'b'] as const);
    away(side, atMs);
    // The other one too: before the first node has given way, or after.
    if (die.chance(0.4)) away(side === 'a' ? 'b' : 'a', atMs + die.pick([0, 100, 700, 3000]));
  }
  return faults;
}
