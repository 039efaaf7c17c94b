/**
 * Every second world has VMs whose TCPs differ (guest/habits.ts), clients whose network loses and reorders frames, and some of
 * its nodes wait long for a counterpart, so that a connection that stands is not healed at once.
 *
 * All of it is drawn from a die of its own: what a seed means otherwise does not depend on it.
 */
import type { Side } from './faults.ts';
import { Die } from './guest/die.ts';
import { drawHabits, type Habits } from './guest/habits.ts';
import type { PortQuality } from './network.ts';

export type DifferingTcps = {
  readonly habits: Readonly<Record<Side, Habits>>;
  /** Of a node's checkpoint settings, as YAML. */
  readonly waits: string;
  /** In place of what is drawn for every client. */
  readonly network: Pick<PortQuality, 'loss' | 'jitterMs'>;
};

const SEED_SALT = 0x5bd1e995;
/** Below the shortest interval of a world's checkpoints. */
const LONG_WAITS = ', waitMsMin: 450, waitMsMax: 450, ackWaitMsMax: 450';

export function drawDifferingTcps(seed: number): DifferingTcps | null {
  const die = new Die(seed ^ SEED_SALT);
  if (die.chance(0.5)) return null;
  return {
    habits: { a: drawHabits(die), b: drawHabits(die) },
    waits: die.chance(0.5) ? LONG_WAITS : '',
    network: { loss: die.pick([0.01, 0.02, 0.03, 0.05]), jitterMs: die.pick([0, 0.2, 3, 10]) },
  };
}
