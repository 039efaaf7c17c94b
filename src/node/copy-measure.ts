/** Measures how long the VM is stopped by a first copy; reports that when the VM runs after its first checkpoint. */
import type { Clock } from '../io/clock.ts';
import type { EventSink } from '../observe/events.ts';
import type { VmPauses } from '../qemu/vm-pauses.ts';
import type { Observed } from './observed.ts';

/** Begins to measure: call one of the two when the copy has ended. */
export function measureCopy(
  pauses: VmPauses,
  { clock, events, observed }: { clock: Clock; events: EventSink; observed: Observed },
): { done(): void; failed(): void } {
  const startMs = clock.now();
  const measure = pauses.measure();
  const done = () => {
    const endMs = clock.now();
    pauses.afterNextResume(() => {
      measure.end();
      const { count, totalMs, longestMs } = measure.pauses;
      const report = {
        tookMs: endMs - startMs,
        pauses: count,
        pausedMs: totalMs,
        longestPauseMs: longestMs,
        standMs: endMs - (pauses.beforeLastMs ?? endMs),
        atMs: clock.wall(),
      };
      observed.firstCopy = report;
      events.emit('sync.done', { peer: observed.peerName, ...report });
    });
  };
  return { done, failed: () => measure.end() };
}
