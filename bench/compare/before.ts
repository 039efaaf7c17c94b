/**
 * This build against another one, which is a set-up checkout: rates of every chosen shape, and memory.
 *
 * The two take turns, and change their order from round to round. Each round gives a ratio of two neighbours in time, and
 * the median of the ratios counts: so a drift of the machine's speed affects both builds alike.
 */
import { spread } from '../bench.ts';
import { memory } from './memory.ts';
import { OURS, oursOf } from './peers.ts';
import { measure } from './rates.ts';
import { type Shape, shapeName } from './shape.ts';

export type AgainstBefore = {
  readonly rates: Readonly<Record<string, { before: number; ours: number; ratio: number }>>;
  /** Bytes, ours and before. */
  readonly memory: Readonly<
    Record<'idleFlow' | 'heldFrame', { before: number; ours: number; ratio: number }>
  >;
};

export async function againstBefore(
  checkout: string,
  shapes: Readonly<Record<string, Shape>>,
  options: { rounds: number; forMs: number },
  print: (line: string) => void,
): Promise<AgainstBefore> {
  const peers = { before: oursOf(checkout, 'before'), ours: OURS };
  const kPairsPerS: Record<string, { before: number[]; ours: number[] }> = {};
  for (let round = 1; round <= options.rounds; round++) {
    print(`round ${round} of ${options.rounds}`);
    const order = round % 2 === 1 ? (['before', 'ours'] as const) : (['ours', 'before'] as const);
    for (const [key, shape] of Object.entries(shapes)) {
      kPairsPerS[key] ??= { before: [], ours: [] };
      for (const who of order)
        kPairsPerS[key][who].push((await measure(shape, peers[who], options.forMs)).pairsPerS / 1000);
    }
  }
  print('');
  print(row('thousand pairs per second, medians', ['before', 'ours', 'ratio', 'least', 'most']));
  const rates = Object.fromEntries(
    Object.entries(kPairsPerS).map(([key, { before, ours }]) => {
      const ratios = spread(ours.map((rate, i) => rate / before[i]));
      const result = { before: spread(before).p50, ours: spread(ours).p50, ratio: ratios.p50 };
      const cells = [result.before.toFixed(0), result.ours.toFixed(0)];
      const parts = [ratios.p50, ratios.min, ratios.max].map((ratio) => ratio.toFixed(3));
      print(row(shapeName(shapes[key]), [...cells, ...parts]));
      return [key, result];
    }),
  );
  print('');
  return { rates, memory: await memories(peers, print) };
}

async function memories(
  peers: { before: typeof OURS; ours: typeof OURS },
  print: (line: string) => void,
): Promise<AgainstBefore['memory']> {
  const shape: Shape = { version: 4, vnet: false, payloadBytes: 1448, flows: 16 };
  const before = await memory(shape, peers.before);
  const ours = await memory(shape, peers.ours);
  const compared = (figure: 'bytesPerIdleFlow' | 'bytesPerHeldFrame') => ({
    before: before[figure],
    ours: ours[figure],
    ratio: ours[figure] / before[figure],
  });
  const result = { idleFlow: compared('bytesPerIdleFlow'), heldFrame: compared('bytesPerHeldFrame') };
  print(row('bytes of memory', ['before', 'ours', 'ratio']));
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
