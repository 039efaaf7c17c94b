/**
 * This build against another one, which is a set-up checkout: rates of every chosen shape, and memory.
 *
 * Both builds' processes run at the same time, and take turns of a quarter of a second: while one is measured, the other
 * waits. Other users of the physical machine only take speed away, so the upper quartile of the turns counts. What V8 makes
 * of the code, and where the kernel puts its memory, differs from process to process: two processes of one build are up to
 * 15 % apart. So each round starts new ones, in the other order, and the median of the rounds' ratios counts. A shape gets
 * rounds until that median is known to 1.5 %: three at least, since fewer do not show how they scatter, and nine at most.
 * How far the ratio is from its claim does not matter for that.
 */
import { spread } from '../bench.ts';
import type { Load } from './load.ts';
import { type Memory, memory } from './memory.ts';
import { OURS, oursOf, type Peer } from './peers.ts';
import { withLoad } from './rates.ts';
import { type Shape, shapeName } from './shape.ts';

export type Compared = { readonly before: number; readonly ours: number; readonly ratio: number };
/** `plusMinus`: the standard error of the ratio, a median. */
export type ComparedRate = Compared & { readonly plusMinus: number; readonly rounds: number };

export type AgainstBefore = {
  /** thousand pairs per second, by shape */
  readonly rates: Readonly<Record<string, ComparedRate>>;
  /** bytes, of the large tables */
  readonly memory: Readonly<Record<'idleFlow' | 'heldFrame', Compared>>;
  /** bytes by which the whole process grew per idle flow: medians; they scatter by a third, so nothing is claimed of them */
  readonly wholePerIdleFlow: Compared;
};

type Both<T> = { before: T; ours: T };

type MemoryFigure = 'bytesPerIdleFlow' | 'wholeBytesPerIdleFlow' | 'bytesPerHeldFrame';

const ROUNDS_MIN = 3;
const ROUNDS_MAX = 9;
const PLUS_MINUS_MAX = 0.015;
const TURNS = 8;
const TURN_RUN_UP_MS = 50;
const TURN_MS = 250;
const MEMORY_RUNS = 3;

/** `rounds`: of each shape at least, but no fewer than ROUNDS_MIN. */
export async function againstBefore(
  checkout: string,
  shapes: Readonly<Record<string, Shape>>,
  rounds: number,
  print: (line: string) => void,
): Promise<AgainstBefore> {
  const peers = { before: oursOf(checkout, 'before'), ours: OURS };
  print(row('thousand pairs per second', ['before', 'ours', 'ratio', '+-', 'least', 'most', 'rounds']));
  const rates: Record<string, ComparedRate> = {};
  for (const [key, shape] of Object.entries(shapes)) {
    const measured: Both<number>[] = [];
    const ratiosOf = () => measured.map(({ before, ours }) => ours / before);
    const isUnsettled = () => measured.length < ROUNDS_MAX && standardError(ratiosOf()) > PLUS_MINUS_MAX;
    while (measured.length < Math.max(rounds, ROUNDS_MIN) || isUnsettled())
      measured.push(await inTurns(shape, peers, measured.length));
    const ratios = spread(ratiosOf());
    const plusMinus = standardError(ratiosOf());
    const median = (who: keyof Both<number>) => spread(measured.map((one) => one[who])).p50;
    rates[key] = {
      before: median('before'),
      ours: median('ours'),
      ratio: ratios.p50,
      plusMinus,
      rounds: measured.length,
    };
    const cells = [rates[key].before.toFixed(0), rates[key].ours.toFixed(0)];
    const parts = [ratios.p50, plusMinus, ratios.min, ratios.max].map((ratio) => ratio.toFixed(3));
    print(row(shapeName(shape), [...cells, ...parts, String(measured.length)]));
  }
  print('');
  return { rates, ...(await memories(peers, print)) };
}

/** Estimates the standard error of a median of several values, as if they scattered normally, from their mean deviation. */
function standardError(values: readonly number[]): number {
  const middle = spread(values).p50;
  const meanDeviation =
    values.reduce((sum, value) => sum + Math.abs(value - middle), 0) / (values.length - 1);
  return ((Math.PI / 2) * meanDeviation) / Math.sqrt(values.length);
}

/** Returns the upper quartile of each build's turns, in thousand pairs per second. */
async function inTurns(shape: Shape, peers: Both<Peer>, round: number): Promise<Both<number>> {
  const rates: Both<number[]> = { before: [], ours: [] };
  const [first, second] = round % 2 === 0 ? (['before', 'ours'] as const) : (['ours', 'before'] as const);
  await withLoad(shape, peers[first], {}, (one) =>
    withLoad(shape, peers[second], {}, async (other) => {
      const turnOf = async (who: keyof Both<Peer>, load: Load): Promise<void> => {
        const { pairsPerS } = await load.rate({ runUpMs: TURN_RUN_UP_MS, forMs: TURN_MS });
        rates[who].push(pairsPerS / 1000);
      };
      for (const load of [one, other]) await load.warmUp();
      for (let turn = 0; turn < TURNS; turn += 2) {
        await turnOf(first, one);
        await turnOf(second, other);
        await turnOf(second, other);
        await turnOf(first, one);
      }
    }),
  );
  return { before: upperQuartile(rates.before), ours: upperQuartile(rates.ours) };
}

function upperQuartile(values: readonly number[]): number {
  return values.toSorted((a, b) => b - a)[Math.floor(values.length / 4)];
}

async function memories(
  peers: Both<Peer>,
  print: (line: string) => void,
): Promise<Omit<AgainstBefore, 'rates'>> {
  const shape: Shape = { version: 4, vnet: false, payloadBytes: 1448, flows: 16 };
  const runs: Both<Memory[]> = { before: [], ours: [] };
  for (let run = 0; run < MEMORY_RUNS; run++) {
    for (const who of ['before', 'ours'] as const) runs[who].push(await memory(shape, peers[who]));
  }
  const compared = (figure: MemoryFigure): Compared => {
    const median = (who: keyof Both<Memory[]>) => spread(runs[who].map((one) => one[figure])).p50;
    return { before: median('before'), ours: median('ours'), ratio: median('ours') / median('before') };
  };
  const idleFlow = compared('bytesPerIdleFlow');
  const heldFrame = compared('bytesPerHeldFrame');
  const wholePerIdleFlow = compared('wholeBytesPerIdleFlow');
  print(row(`bytes of memory, medians of ${MEMORY_RUNS} runs`, ['before', 'ours', 'ratio']));
  for (const [title, { before, ours, ratio }] of [
    ['an idle flow', idleFlow],
    ['  of the whole process', wholePerIdleFlow],
    ['a held frame', heldFrame],
  ] as const)
    print(row(`  ${title}`, [before.toFixed(0), ours.toFixed(0), ratio.toFixed(3)]));
  print('');
  return { memory: { idleFlow, heldFrame }, wholePerIdleFlow };
}

function row(title: string, cells: readonly string[]): string {
  return title.padEnd(36) + cells.map((cell) => cell.padStart(9)).join('');
}
