/**
 * How the TCPs of two VMs differ after they have lived for a while.
 *
 * The kernels are the same, and so is all that a SYN settles. But each has its own history: congestion windows that have grown at
 * other moments, receive buffers that were tuned otherwise, room or none for data after a gap, timeouts measured under
 * another load. In a world these are properties of a VM, which a checkpoint does not change: the differences begin at once.
 */
import type { Die } from './die.ts';
import type { TcpOptions } from './tcp-options.ts';

export type Habits = Partial<TcpOptions>;

const UNLIMITED = Number.POSITIVE_INFINITY;

export function drawHabits(die: Die): Habits {
  return {
    receiveBufferBytes: die.pick([4096, 16_384, 65_535]),
    ackDelayMsMax: die.pick([0, 40, 200]),
    ackEvery: die.pick([1, 2, 2, 4]),
    splitChance: die.pick([0, 0, 0.1, 0.5]),
    initialWindowSegments: die.pick([2, 4, 10]),
    windowSegmentsMax: die.pick([4, 16, UNLIMITED]),
    retransmitBytesMax: die.pick([200, 700, UNLIMITED, UNLIMITED]),
    keepsOutOfOrder: die.chance(0.7),
    rtoMsMin: die.pick([200, 200, 300, 600]),
  };
}
