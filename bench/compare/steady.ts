/** A minute at full speed: the cost of garbage collection, and whether the heap grows. Then latency at half speed. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import { type Spread, spread } from '../bench.ts';
import { COLLECT_SIGNAL, OURS_TRACED, type Peer } from './peers.ts';
import { ProcessorWaits } from './processor-waits.ts';
import { withLoad } from './rates.ts';
import type { Shape } from './shape.ts';

export type Minute = {
  readonly kPairsPerS: number;
  readonly collections: number;
  readonly longestPauseMs: number;
  /** Share of the time that collections took. */
  readonly pausedPercent: number;
  /** The heap after a full collection, MB, after the first second and at the end. */
  readonly heapEarlyMb: number;
  readonly heapLateMb: number;
};

type Collection = { full: boolean; pauseMs: number; heapMb: number };

/** V8's `--trace-gc`: "[pid:0x...]  1234 ms: Scavenge 6.1 (8.2) -> 4.4 (8.2) MB, pooled: 0 MB, 0.31 / 0.00 ms ..." */
const COLLECTION = /\d+ ms: ([^>]*)-> ([\d.]+) \([\d.]+\) MB,.*?([\d.]+) \/ [\d.]+ ms/;
const COLLECT_MS_MAX = 10_000;

export async function fullSpeedMinute(shape: Shape, seconds: number): Promise<Minute> {
  const collections: Collection[] = [];
  let rest = '';
  const onOutput = (text: string): void => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const one of lines) {
      const found = COLLECTION.exec(one);
      if (found === null) continue;
      const full = found[1].includes('Mark-Compact');
      collections.push({ full, heapMb: Number(found[2]), pauseMs: Number(found[3]) });
    }
  };
  return await withLoad(shape, OURS_TRACED, { onOutput }, async (load, { child }) => {
    /** Megabytes alive. */
    const alive = async (): Promise<number> => {
      const from = collections.length;
      child.kill(COLLECT_SIGNAL);
      for (let waitedMs = 0; waitedMs < COLLECT_MS_MAX; waitedMs += 100) {
        const last = collections.at(-1);
        await sleep(100);
        const next = collections.at(-1);
        // V8 collects several times, until nothing more can be freed.
        if (collections.length > from && next?.full === true && next === last) return next.heapMb;
      }
      throw new ColoError('COLO_BENCH_PEER', `no full collection in ${COLLECT_MS_MAX / 1000} s`);
    };
    await load.rate({ runUpMs: 0, forMs: 1000 });
    const heapEarlyMb = await alive();
    const from = collections.length;
    const rate = await load.rate({ runUpMs: 0, forMs: seconds * 1000 });
    const pausesMs = collections.slice(from).map(({ pauseMs }) => pauseMs);
    const heapLateMb = await alive();
    return {
      kPairsPerS: rate.pairsPerS / 1000,
      collections: pausesMs.length,
      longestPauseMs: Math.max(0, ...pausesMs),
      pausedPercent: pausesMs.reduce((sum, ms) => sum + ms, 0) / (seconds * 10),
      heapEarlyMb,
      heapLateMb,
    };
  });
}

/** Least time between two batches. The frames of a batch are sent together, as a read of the VM's socket finds them. */
const BATCHES_PER_S = 2000;
const SETTLED_MS = 100;

export type Latency = {
  readonly took: Spread;
  readonly late: number;
  readonly lateForWantOfProcessor: number;
};

/** Milliseconds from the write of a batch on both sides to its last frame's return. */
export async function latency(shape: Shape, peer: Peer, pairsPerS: number, forMs: number): Promise<Latency> {
  const batchPairsMax = Math.max(1, Math.floor(pairsPerS / BATCHES_PER_S));
  return await withLoad(shape, peer, { batchPairsMax }, async (load, { child }) => {
    await load.rate({ runUpMs: 500, forMs: 200 });
    // Frames that were still under way are not part of the pace.
    await sleep(SETTLED_MS);
    const waits = new ProcessorWaits(child.pid!);
    const { tookMs, ...counts } = await load.paced({ pairsPerS, forMs, waitedMs: () => waits.ms() });
    return { took: spread(tookMs), ...counts };
  });
}
