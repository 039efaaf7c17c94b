/**
 * Every eighth world has clients of a service whose replies always differ: the guest's clock, in microseconds. There are several,
 * and they hardly rest, so that the primary paces its checkpoints (checkpoint/pacing.ts).
 *
 * All of it is drawn from a die of its own: what a seed means otherwise does not depend on it.
 */
import { Die } from './guest/die.ts';
import { TimeClient } from './guest/line-clients.ts';
import { GUEST_ADDRESS4, type HostSpec, hostAt } from './guest/mix.ts';

export type AlwaysDiffers = { readonly clients: number; readonly restMsMax: number };

const SEED_SALT = 0x1b873593;
const FROM_MS = 2000;
const REQUESTS = 200;

export function drawAlwaysDiffers(seed: number): AlwaysDiffers | null {
  const die = new Die(seed ^ SEED_SALT);
  if (!die.chance(0.125)) return null;
  return { clients: die.within(3, 8), restMsMax: die.pick([0, 2, 10]) };
}

/** Returns a host of these clients. */
export function differingHost({ clients: count, restMsMax }: AlwaysDiffers): HostSpec {
  const clients = Array.from({ length: count }, (_, i) => {
    return new TimeClient({
      name: `always differs ${i}`,
      address: GUEST_ADDRESS4,
      startMs: FROM_MS,
      requests: REQUESTS,
      restMsMax,
    });
  });
  return hostAt(201, '201', clients);
}
