/**
 * This build against another one, which is a set-up checkout: rates of every chosen shape, and memory.
 *
 * Both builds' processes run at the same time, and take turns of a quarter of a second: while one is measured, the other
 * waits. Other users of the physical machine only take speed away, so the upper quartile of the turns counts. What V8 makes
 * of the code differs from process to process, so each round starts new ones, and the median of the rounds' ratios counts.
 */
import { removeWorkFolder, workFolder } from '../../lab/process.ts';
import { spread } from '../bench.ts';
import { Load } from './load.ts';
import { type Memory, memory } from './memory.ts';
import { OURS, oursOf, type Peer, startPeer } from './peers.ts';
import { type Shape, shapeName } from './shape.ts';

export type Compared = { readonly before: number; readonly ours: number; readonly ratio: number };

export type AgainstBefore = {
  /** thousand pairs per second, by shape */
  readonly rates: Readonly<Record<string, Compared>>;
  /** bytes */
  readonly memory: Readonly<Record<'idleFlow' | 'heldFrame', Compared>>;
};

type Both<T> = { before: T; ours: T };

const RUN_UP_MS = 700;
const TURNS = 8;
const TURN_RUN_UP_MS = 50;
const TURN_MS = 250;
/** The least of several: a heap that was not collected yet only adds. */
const MEMORY_RUNS = 3;

export async function againstBefore(
  checkout: string,
  shapes: Readonly<Record<string, Shape>>,
  rounds: number,
  print: (line: string) => void,
): Promise<AgainstBefore> {
  const peers = { before: oursOf(checkout, 'before'), ours: OURS };
  print(row('thousand pairs per second', ['before', 'ours', 'ratio', 'least', 'most']));
  const rates: Record<string, Compared> = {};
  for (const [key, shape] of Object.entries(shapes)) {
    const measured: Both<number>[] = [];
    for (let round = 0; round < rounds; round++) measured.push(await inTurns(shape, peers));
    const ratios = spread(measured.map(({ before, ours }) => ours / before));
    const median = (who: keyof Both<number>) => spread(measured.map((one) => one[who])).p50;
    rates[key] = { before: median('before'), ours: median('ours'), ratio: ratios.p50 };
    const cells = [rates[key].before.toFixed(0), rates[key].ours.toFixed(0)];
    const parts = [ratios.p50, ratios.min, ratios.max].map((ratio) => ratio.toFixed(3));
    print(row(shapeName(shape), [...cells, ...parts]));
  }
  print('');
  return { rates, memory: await memories(peers, print) };
}

/** Returns the upper quartile of each build's turns, in thousand pairs per second. */
async function inTurns(shape: Shape, peers: Both<Peer>): Promise<Both<number>> {
  const rates: Both<number[]> = { before: [], ours: [] };
  await withLoadOn(shape, peers.before, (before) =>
    withLoadOn(shape, peers.ours, async (ours) => {
      const loads = { before, ours };
      for (const load of [before, ours]) await load.rate({ runUpMs: RUN_UP_MS, forMs: TURN_MS });
      for (let turn = 0; turn < TURNS; turn++) {
        const order = turn % 2 === 0 ? (['before', 'ours'] as const) : (['ours', 'before'] as const);
        for (const who of order) {
          const { pairsPerS } = await loads[who].rate({ runUpMs: TURN_RUN_UP_MS, forMs: TURN_MS });
          rates[who].push(pairsPerS / 1000);
        }
      }
    }),
  );
  return { before: upperQuartile(rates.before), ours: upperQuartile(rates.ours) };
}

function upperQuartile(values: readonly number[]): number {
  return values.toSorted((a, b) => b - a)[Math.floor(values.length / 4)];
}

async function withLoadOn(shape: Shape, peer: Peer, work: (load: Load) => Promise<void>): Promise<void> {
  const folder = workFolder();
  try {
    const running = await startPeer(peer, folder, { vnet: shape.vnet });
    try {
      const load = await Load.open(shape, running.sockets);
      try {
        await work(load);
      } finally {
        load.close();
      }
    } finally {
      await running.stop();
    }
  } finally {
    removeWorkFolder(folder);
  }
}

async function memories(peers: Both<Peer>, print: (line: string) => void): Promise<AgainstBefore['memory']> {
  const shape: Shape = { version: 4, vnet: false, payloadBytes: 1448, flows: 16 };
  const runs: Both<Memory[]> = { before: [], ours: [] };
  for (let run = 0; run < MEMORY_RUNS; run++) {
    for (const who of ['before', 'ours'] as const) runs[who].push(await memory(shape, peers[who]));
  }
  const compared = (figure: 'bytesPerIdleFlow' | 'bytesPerHeldFrame'): Compared => {
    const least = (who: keyof Both<Memory[]>) => Math.min(...runs[who].map((one) => one[figure]));
    return { before: least('before'), ours: least('ours'), ratio: least('ours') / least('before') };
  };
  const result = { idleFlow: compared('bytesPerIdleFlow'), heldFrame: compared('bytesPerHeldFrame') };
  print(row(`bytes of memory, the least of ${MEMORY_RUNS} runs`, ['before', 'ours', 'ratio']));
  for (const [name, { before, ours, ratio }] of Object.entries(result)) {
    const title = name === 'idleFlow' ? 'an idle flow' : 'a held frame';
    print(row(`  ${title}`, [before.toFixed(0), ours.toFixed(0), ratio.toFixed(3)]));
  }
  print('');
  return result;
}

function row(title: string, cells: readonly string[]): string {
  return title.padEnd(36) + cells.map((cell) => cell.padStart(12)).join('');
}
