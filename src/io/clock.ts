/** Time as the engine sees it. It is injected everywhere, so that a simulator can play it. */
import type { Instant } from '../units.ts';
export type Clock = {
  /** Returns monotonic milliseconds with a fraction. */
  now(): Instant;
  /** Returns Unix time in milliseconds: for people only. */
  wall(): number;
};

export type Timers = {
  /** Calls `call` once, after `ms`; returns how to cancel that. */
  after(ms: number, call: () => void): () => void;
  /** Calls `call` on the next turn of the event loop: for short polls. */
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
