/**
 * Every second world gives input in portions (datapath/portions.ts) from the first protection on, as if order had parted its
 * VMs. In most of these the guest serves its connections with epoll; in some it never sleeps, or a node cannot see it
 * sleep; in some, clients send without pause.
 *
 * All of it is drawn from a die of its own: what a seed means otherwise does not depend on it.
 */
import type { Side } from './faults.ts';
import { UdpEchoClient } from './guest/datagram-clients.ts';
import { Die } from './guest/die.ts';
import { GUEST_ADDRESS4, type HostSpec, hostAt } from './guest/mix.ts';

import type { Sleeper } from './sim-vm.ts';

export type Portioned = {
  readonly sleeper: Readonly<Record<Side, Sleeper>>;
  /** What one request takes of the guest's process; null: requests are served apart, each after a delay of its own. */
  readonly stepMs: number | null;
  /** Each sends from a port of its own. */
  readonly hostile: number;
};

const SEED_SALT = 0x2545f491;
const HOSTILE_FROM_MS = 2000;
const HOSTILE_PORT = 30_000;
const HOSTILE_DATAGRAMS = 1500;

export function drawPortioned(seed: number): Portioned | null {
  const die = new Die(seed ^ SEED_SALT);
  if (die.chance(0.5)) return null;
  const sleeper = (): Sleeper => (die.chance(0.1) ? 'hidden' : die.chance(0.2) ? 'never-sleeps' : 'sleeps');
  return {
    sleeper: { a: sleeper(), b: sleeper() },
    stepMs: die.chance(0.7) ? die.pick([0.3, 2, 8]) : null,
    hostile: die.chance(0.3) ? die.within(2, 3) : 0,
  };
}

/** Returns a host of clients that send one datagram after the other, whatever comes back. */
export function hostileHost({ hostile }: Portioned): HostSpec {
  const clients = Array.from({ length: hostile }, (_, i) => {
    return new UdpEchoClient({
      name: `hostile ${i}`,
      address: GUEST_ADDRESS4,
      port: HOSTILE_PORT + i,
      datagrams: HOSTILE_DATAGRAMS,
      everyMs: 1 + i / 2,
      bytes: 200,
      startMs: HOSTILE_FROM_MS,
    });
  });
  return hostAt(200, '200', clients);
}
