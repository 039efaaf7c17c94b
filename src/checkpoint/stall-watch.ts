/**
 * Notices a checkpoint that makes no progress, and for how long it made none while only the secondary was waited for.
 *
 * The secondary's limit is short, because clients wait meanwhile and the primary can go on without it. The other one is for the
 * primary's own QEMU, the last resort after its own watch (qemu/vm-watch.ts).
 *
 * Time that this process itself was paused does not count.
 */
import type { Clock, Timers } from '../io/clock.ts';

/**
 * Clients notice a second, and TCP retransmits once or twice. A sound secondary takes milliseconds for each phase; one that does not get
 * a processor for a second cannot serve anybody either.
 */
export const SECONDARY_STALL_MS_MAX = 1000;
export const STALL_MS_MAX = 10_000;
/** How exactly both are measured. */
const STALL_POLL_MS = 50;

/** Calls `stalled` with the reason, once. Returns how to stop watching. */
export function watchForStall(options: {
  clock: Clock;
  timers: Timers;
  /** a number that changes with every progress */
  progress: () => number;
  waitsForSecondary: () => boolean;
  stalled: (why: string) => void;
}): () => void {
  const { clock, timers, progress, waitsForSecondary, stalled } = options;
  let seen = progress();
  let stillMs = 0;
  let secondaryMs = 0;
  let lastMs = clock.now();
  const watch = (): void => {
    const nowMs = clock.now();
    const passedMs = Math.min(nowMs - lastMs, 2 * STALL_POLL_MS);
    const moved = progress();
    lastMs = nowMs;
    if (moved !== seen) {
      stillMs = 0;
      secondaryMs = 0;
    } else {
      stillMs += passedMs;
      if (waitsForSecondary()) secondaryMs += passedMs;
    }
    seen = moved;
    if (secondaryMs >= SECONDARY_STALL_MS_MAX)
      stalled(`the secondary made no progress in a checkpoint for ${SECONDARY_STALL_MS_MAX} ms`);
    else if (stillMs >= STALL_MS_MAX)
      stalled(`a checkpoint made no progress for ${STALL_MS_MAX} ms: a QEMU hangs`);
    else cancel = timers.after(STALL_POLL_MS, watch);
  };
  let cancel = timers.after(STALL_POLL_MS, watch);
  return () => cancel();
}
