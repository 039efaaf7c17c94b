/** A minute at full speed: what garbage collection costs, and whether the heap grows. And the latency at half speed. */
import { type Spread, spread } from '../bench.ts';
import type { Load } from './load.ts';
import { OURS_TRACED, type Peer } from './peers.ts';
import { withLoad } from './rates.ts';
import type { Shape } from './shape.ts';

export type Minute = {
  readonly kPairsPerS: number;
  readonly collections: number;
  readonly longestPauseMs: number;
  /** Heap after a collection, MB: the least within the second after the first, and within the last ten. */
  readonly heapEarlyMb: number;
  readonly heapLateMb: number;
};

type Collection = { atMs: number; pauseMs: number; heapMb: number };

/** V8's `--trace-gc`: "[pid:0x...]  1234 ms: Scavenge 6.1 (8.2) -> 4.4 (8.2) MB, pooled: 0 MB, 0.31 / 0.00 ms ..." */
const COLLECTION =
  /(\d+) ms: (?:Scavenge|Mark-Compact)[^>]*-> ([\d.]+) \([\d.]+\) MB,.*?([\d.]+) \/ [\d.]+ ms/;

export async function fullSpeedMinute(shape: Shape, seconds: number): Promise<Minute> {
  const collections: Collection[] = [];
  let rest = '';
  const onOutput = (text: string): void => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const one of lines) {
      const found = COLLECTION.exec(one);
      if (found !== null)
        collections.push({ atMs: Number(found[1]), heapMb: Number(found[2]), pauseMs: Number(found[3]) });
    }
  };
  const rate = await withLoad(shape, OURS_TRACED, { onOutput }, (load) =>
    load.rate({ runUpMs: 1000, forMs: seconds * 1000 }),
  );
  const startMs = collections[0]?.atMs ?? 0;
  const endMs = collections.at(-1)?.atMs ?? 0;
  const least = (fromMs: number, toMs: number): number =>
    Math.min(...collections.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs).map(({ heapMb }) => heapMb));
  return {
    kPairsPerS: rate.pairsPerS / 1000,
    collections: collections.length,
    longestPauseMs: Math.max(0, ...collections.map(({ pauseMs }) => pauseMs)),
    heapEarlyMb: least(startMs + 1000, startMs + 3000),
    heapLateMb: least(endMs - 10_000, endMs),
  };
}

/** Milliseconds from the write of a batch on both sides to its last frame's return, at a share of the peer's own rate. */
export async function latency(shape: Shape, peer: Peer, pairsPerS: number, forMs: number): Promise<Spread> {
  return await withLoad(shape, peer, {}, async (load: Load) => {
    await load.rate({ runUpMs: 500, forMs: 200 });
    return spread(await load.paced({ pairsPerS, forMs }));
  });
}
