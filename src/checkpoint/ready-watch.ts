/**
 * Notices a secondary's QEMU that never sends READY: one whose replication cannot begin reports that to its own node only, and the
 * PVM would stand for ever.
 */
import type { Timers } from '../io/clock.ts';

/** The secondary's QEMU begins within some milliseconds of the last byte of the first state. */
const READY_MS_MAX = 10_000;

/** Calls `late` with the reason if no byte has moved for READY_MS_MAX. Returns how to stop watching: READY has come, or nobody waits. */
export function watchForReady(timers: Timers, moved: () => number, late: (why: string) => void): () => void {
  let cancel = (): void => {};
  const watch = (): void => {
    const before = moved();
    cancel = timers.after(READY_MS_MAX, () => {
      if (moved() !== before) watch();
      else late(`the secondary's QEMU did not begin within ${READY_MS_MAX} ms: see its node's log`);
    });
  };
  watch();
  return () => cancel();
}
