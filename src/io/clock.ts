/** Time as the node sees it. Injected everywhere, so that a simulator can run it. */
import type { Instant } from '../units.ts';
export type Clock = {
  /** Monotonic milliseconds with a fraction. */
  now(): Instant;
  /** Unix time in milliseconds: only to be shown to people. */
  wall(): number;
};

export type Timers = {
  /** Calls once after `ms`; returns how to cancel. */
  after(ms: number, call: () => void): () => void;
  /** Calls when the current events have been handled: for short polls. */
  soon(call: () => void): void;
};

export const systemClock: Clock = { now: () => performance.now() as Instant, wall: () => Date.now() };

export const systemTimers: Timers = {
  after(ms, call) {
    const timer = setTimeout(call, ms);
    return () => clearTimeout(timer);
  },
  soon(call) {
    setImmediate(call);
  },
};

export function sleep(timers: Timers, ms: number): Promise<void> {
  return new Promise((resolve) => {
    timers.after(ms, resolve);
  });
}
