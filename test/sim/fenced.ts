/**
 * Every fifth world has a fence command in its nodes' configuration. A run of it takes a while, and may fail several times in a
 * row; one that succeeds takes the power of the other host, which starts again later.
 *
 * All of it is drawn from a die of its own: what a seed means otherwise does not depend on it.
 */
import { ColoError } from '../../src/error.ts';
import type { Fencer } from '../../src/node/peer-fence.ts';
import { Die } from './guest/die.ts';
import type { Loop } from './loop.ts';
import type { FenceRuns } from './rules/fence-runs.ts';
import type { SimHost } from './sim-host.ts';

export type Fenced = {
  readonly tookMs: readonly number[];
  /** The part of the runs that fail. */
  readonly failing: number;
  /** How long the other host stays off. */
  readonly offMs: number;
};

const SEED_SALT = 0x3c6ef372;

export function drawFenced(seed: number): Fenced | null {
  const die = new Die(seed ^ SEED_SALT);
  if (!die.chance(0.2)) return null;
  return {
    tookMs: die.pick([[1], [20, 300], [500, 2000]]),
    failing: die.pick([0, 0.3, 0.6]),
    offMs: die.pick([50, 1000]),
  };
}

/** Returns the fence command of a host's node. The run outlives the node that began it, as a command may. */
export function simFencer(
  { tookMs, failing, offMs }: Fenced,
  world: {
    readonly loop: Loop;
    readonly die: Die;
    readonly host: SimHost;
    readonly runs: FenceRuns;
    cutOff(peer: string, offMs: number): void;
  },
): Fencer {
  const { loop, die, host, runs } = world;
  return (peer, signal) =>
    new Promise((resolve, reject) => {
      const end = runs.began(host, peer);
      const owner = host.life?.process ?? null;
      signal.addEventListener('abort', () => {
        end('ended');
        reject(new ColoError('COLO_FENCE_ENDED', 'the node stopped'));
      });
      loop.after(die.pick(tookMs) * (0.5 + die.next()), null, () => {
        if (signal.aborted) return;
        const failed = die.chance(failing);
        end(failed ? 'failed' : 'done');
        if (!failed) world.cutOff(peer, offMs);
        loop.after(0, owner, () => {
          if (failed) reject(new ColoError('COLO_FENCE_FAILED', 'no reply'));
          else resolve();
        });
      });
    });
}
