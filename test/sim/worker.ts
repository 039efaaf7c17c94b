/** One thread of a run over many seeds: receives a seed, and sends the result of its world. */
import { parentPort } from 'node:worker_threads';
import { runWorld } from './world.ts';

parentPort?.on('message', (seed: number) => {
  runWorld(seed).then(
    (result) => parentPort?.postMessage(result),
    (cause: unknown) =>
      parentPort?.postMessage({
        seed,
        violations: [
          { atMs: 0, rule: 'simulator', text: cause instanceof Error ? cause.stack : String(cause) },
        ],
        faults: [],
        left: [],
        virtualMs: 0,
        steps: 0,
        stats: {},
      }),
  );
});
