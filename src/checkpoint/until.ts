/** Waits for a condition of which nothing notifies: polls it. */
import type { Clock, Timers } from '../io/clock.ts';

/** Polls in every turn of the event loop for this long, then once per millisecond: drains take about 1 ms. */
const BUSY_MS = 2;

/** Resolves with true when `isMet`, or with false after `msMax`. `isMet` may throw to end the wait. */
export function until(clock: Clock, timers: Timers, msMax: number, isMet: () => boolean): Promise<boolean> {
  const startMs = clock.now();
  return new Promise((resolve, reject) => {
    const poll = () => {
      try {
        if (isMet()) return resolve(true);
      } catch (cause) {
        return reject(cause);
      }
      const waitedMs = clock.now() - startMs;
      if (waitedMs >= msMax) return resolve(false);
      if (waitedMs < BUSY_MS) timers.soon(poll);
      else timers.after(1, poll);
    };
    poll();
  });
}
