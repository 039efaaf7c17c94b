/** Runs many worlds on all cores, and reduces the faults of a bad one to those that matter. */
import { availableParallelism } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { runWorld, type WorldResult } from './world.ts';

/**
 * For the heaps of the threads. A world's garbage is short-lived, but its buffers lie outside the heap, and by default
 * every few of them start a collection of the old generation.
 */
const HEAP_FLAGS = ['--initial-old-space-size=128', '--external-memory-accounted-in-global-limit'];

/**
 * Runs the seeds `from` to `to` and calls `onResult` with each result as it comes, in any order. A thread runs one world
 * after the other: its first ones take several times as long, while the code is not compiled yet. When `stop` is aborted,
 * the worlds that run are given up.
 */
export async function runMany(
  from: number,
  to: number,
  onResult: (result: WorldResult) => void,
  stop: AbortSignal,
): Promise<void> {
  const threads = availableParallelism();
  for (const flag of HEAP_FLAGS) setFlagsFromString(flag);
  let next = from;
  const run = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./worker.ts', import.meta.url));
      const end = () => {
        resolve();
        void worker.terminate();
      };
      const giveOne = () => {
        if (next <= to && !stop.aborted) worker.postMessage(next++);
        else end();
      };
      stop.addEventListener('abort', end);
      worker.on('message', (result: WorldResult) => {
        onResult(result);
        giveOne();
      });
      worker.on('error', reject);
      giveOne();
    });
  await Promise.all(Array.from({ length: Math.min(threads, to - from + 1) }, run));
}

/** Leaves out one fault after the other if the world then still breaks the same rule. Returns those left out. */
export async function minimise(bad: WorldResult): Promise<{ without: Set<number>; result: WorldResult }> {
  const [{ rule }] = bad.violations;
  let without = new Set<number>();
  let result = bad;
  for (let i = bad.faults.length - 1; i >= 0; i--) {
    const fewer = new Set([...without, i]);
    const again = await runWorld(bad.seed, { without: fewer });
    if (again.violations[0]?.rule !== rule) continue;
    without = fewer;
    result = again;
  }
  return { without, result };
}
