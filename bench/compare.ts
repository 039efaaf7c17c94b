/**
 * `npm run bench -- compare`: matched TCP output through a comparator, in over two unix sockets and out over a third.
 *
 * Four programs, in turns: a relay that copies the primary's stream and discards the secondary's (the floor: the cost
 * of the sockets alone), QEMU's colo-compare of 7.2 and of 11.1, standalone, and `colo compare`. The generator is
 * the same for all. It needs a processor of its own, and so does the comparator.
 */
import { parseArgs } from 'node:util';
import { installOldQemu, installQemu } from '../lab/qemu.ts';
import { ColoError } from '../src/error.ts';
import { type BenchResult, medianOf, tableHead, tableRow } from './bench.ts';
import { againstBefore } from './compare/before.ts';
import { LATE_MS } from './compare/load.ts';
import { memory } from './compare/memory.ts';
import { colocompare, FLOOR, OURS, type Peer } from './compare/peers.ts';
import { rateTable, ShapeRates } from './compare/rates.ts';
import type { Shape } from './compare/shape.ts';
import { fullSpeedMinute, type Latency, latency } from './compare/steady.ts';

const USAGE = `usage: npm run bench -- compare [--rounds N] [--only TEXT] [--steady | --latency] [--seconds N]
       npm run bench -- compare --before CHECKOUT [--rounds N] [--only TEXT]

Without options: a table of rates, then a minute at full speed (garbage collection, heap), latency at half speed, and
the memory of flows and held frames. It takes about 11 minutes, and needs two processors to itself.

  --rounds N     rounds over all shapes; the median of each rate counts (default 3; each costs 3 minutes);
                 with --before at least 3, and up to 9 until a shape's ratio is known to 1.5 %
  --only TEXT    the table alone, with only the shapes whose key contains TEXT, e.g. 1448-16-v4; several
                 TEXTs are separated by commas
  --steady       everything but the table: about 4 minutes
  --latency      latency alone: about 2 minutes
  --seconds N    length of the minute at full speed (default 60)
  --before DIR   this build against the one in DIR, a checkout that is set up, in turns: rates of the shapes, and
                 memory; the claims are those of a change that must cost nothing

Exit codes: 0 every claim held, 1 one did not, 2 wrong usage.
`;

const FOR_MS = 1000;
/** A ratio of two runs of one build varies by about this much. */
const BEFORE_RATIO_MIN = 0.97;
const MEMORY_RATIO_MIN = 0.97;

const plain = { version: 4, vnet: false } as const;
const SHAPES: Readonly<Record<string, Shape>> = {
  ...Object.fromEntries(
    [64, 512, 1448].flatMap((payloadBytes) =>
      [1, 16, 1000, 100_000].map((flows) => [
        `${payloadBytes}-${flows}-v4`,
        { ...plain, payloadBytes, flows },
      ]),
    ),
  ),
  '64-16-v6': { ...plain, version: 6, payloadBytes: 64, flows: 16 },
  '1448-16-v6': { ...plain, version: 6, payloadBytes: 1448, flows: 16 },
  'vnet-16-v4': { ...plain, vnet: true, payloadBytes: 65_480, flows: 16 },
  'vnet-16-v6': { ...plain, vnet: true, version: 6, payloadBytes: 65_480, flows: 16 },
  'mix-16-v4': { ...plain, payloadBytes: 1448, secondaryBytes: 1000, flows: 16 },
};

const MIDDLE = SHAPES['1448-16-v4'];

export async function compareBench(
  args: string[],
  print: (line: string) => void,
): Promise<BenchResult | null> {
  const options = readOptions(args);
  if (options === null) {
    process.stdout.write(USAGE);
    return null;
  }
  if (options.before !== '') return await beforeAndAfter(options, print);
  const current = await installQemu();
  const old = await installOldQemu();
  const qemus = [colocompare(`QEMU ${old.version}`, old), colocompare(`QEMU ${current.version}`, current)];
  const peers = [FLOOR, ...qemus, OURS];
  const result = { ok: true, claims: [] as Claim[] };
  const add = ({ claims, ...figures }: Part): void => {
    for (const { text, ratio, least, holds, floor } of claims) {
      const bound = floor === undefined ? '' : `; the floor itself is at ${floor.toFixed(2)}`;
      print(`${text}: ${ratio.toFixed(2)}${holds ? ', holds' : ` (needs ${least}${bound}), DOES NOT HOLD`}`);
    }
    print('');
    Object.assign(result, figures);
    result.claims.push(...claims);
  };
  if (options.latency) {
    add(await latencies(qemus[1], print));
    return result;
  }
  if (!options.steady) add(await rates(peers, qemus, options, print));
  if (options.only === '') {
    add(await steady(options.seconds, print));
    add(await latencies(qemus[1], print));
    add(await footprint(print));
  }
  return { ...result, ok: result.claims.every(({ holds }) => holds) };
}

async function beforeAndAfter(
  options: { before: string; rounds: number; only: string },
  print: (line: string) => void,
): Promise<BenchResult> {
  const figures = await againstBefore(options.before, chosenShapes(options.only), options.rounds, print);
  const claims = [
    ...Object.entries(figures.rates).map(([key, { ratio }]) =>
      claim(`${key}: at least ${BEFORE_RATIO_MIN} of the rate before`, ratio, BEFORE_RATIO_MIN),
    ),
    ...Object.entries(figures.memory).map(([what, { ratio }]) =>
      claim(
        `memory per ${what}: before against now at least ${MEMORY_RATIO_MIN}`,
        1 / ratio,
        MEMORY_RATIO_MIN,
      ),
    ),
  ];
  for (const { text, ratio, holds } of claims)
    print(`${text}: ${ratio.toFixed(3)}, ${holds ? 'holds' : 'DOES NOT HOLD'}`);
  return { ok: claims.every(({ holds }) => holds), ...figures, claims };
}

/** `floor`: the relay's ratio, where that bounds ours. */
type Claim = { text: string; ratio: number; least: number; holds: boolean; floor: number | undefined };
type Part = { claims: Claim[]; [figure: string]: unknown };

async function rates(
  peers: readonly Peer[],
  qemus: readonly Peer[],
  options: { rounds: number; only: string },
  print: (line: string) => void,
): Promise<Part> {
  const shapes = new Map<string, ShapeRates>();
  for (const [key, shape] of Object.entries(chosenShapes(options.only)))
    shapes.set(key, new ShapeRates(shape, peers));
  for (let round = 1; round <= options.rounds; round++) {
    print(`round ${round} of ${options.rounds}${round === 1 ? '' : ', medians so far'}`);
    const [head] = rateTable([], peers);
    print(head);
    for (const shape of shapes.values()) {
      await shape.round(FOR_MS);
      for (const line of rateTable([shape.row], peers).slice(1)) print(line);
    }
    print('');
  }
  const rows = Object.fromEntries([...shapes].map(([key, { row }]) => [key, row]));
  const rate = (key: string, peer: Peer): number => rows[key]?.kPairsPerS[peer.name] ?? Number.NaN;
  const best = (key: string): number => Math.max(...qemus.map((peer) => rate(key, peer)));
  const claims = [
    claim(
      '1448 bytes, 16 flows: at least 10 times QEMU 11.1',
      rate('1448-16-v4', OURS) / rate('1448-16-v4', qemus[1]),
      10,
      rate('1448-16-v4', FLOOR) / rate('1448-16-v4', qemus[1]),
    ),
    claim(
      '1448 bytes, 16 flows: at least 0.65 of the floor',
      rate('1448-16-v4', OURS) / rate('1448-16-v4', FLOOR),
      0.65,
    ),
    claim(
      '64 bytes, 16 flows: at least 15 times the faster QEMU',
      rate('64-16-v4', OURS) / best('64-16-v4'),
      15,
    ),
    claim(
      '64 bytes, 100 000 flows: more than 0.5 of one flow',
      rate('64-100000-v4', OURS) / rate('64-1-v4', OURS),
      0.5,
    ),
    claim(
      '1448 bytes, 100 000 flows: more than 0.5 of one flow',
      rate('1448-100000-v4', OURS) / rate('1448-1-v4', OURS),
      0.5,
    ),
  ].filter(({ ratio }) => Number.isFinite(ratio));
  return { rows, claims };
}

function chosenShapes(only: string): Record<string, Shape> {
  const texts = only.split(',');
  return Object.fromEntries(
    Object.entries(SHAPES).filter(([key]) => texts.some((text) => key.includes(text))),
  );
}

function claim(text: string, ratio: number, least: number, floor?: number): Claim {
  return { text, ratio, least, holds: ratio >= least, floor };
}

async function steady(seconds: number, print: (line: string) => void): Promise<Part> {
  const minute = await fullSpeedMinute(MIDDLE, seconds);
  const { kPairsPerS, collections, longestPauseMs, pausedPercent, heapEarlyMb, heapLateMb } = minute;
  print(
    `${seconds} s at full speed, 1448 bytes, 16 flows: ${kPairsPerS.toFixed(0)} thousand pairs per second`,
  );
  print(
    `  ${collections} collections, ${pausedPercent.toFixed(2)}% of the time; longest pause ${longestPauseMs.toFixed(2)} ms`,
  );
  print(
    `  alive on the heap: ${heapEarlyMb.toFixed(1)} MB after the first second, ${heapLateMb.toFixed(1)} MB at the end`,
  );
  const claims = [
    claim(
      `the heap after the first second, and ${HEAP_NOISE_MB} MB, against the heap after ${seconds} s: at least 1`,
      (heapEarlyMb + HEAP_NOISE_MB) / heapLateMb,
      1,
    ),
  ];
  return { minute, claims };
}

async function latencies(qemu: Peer, print: (line: string) => void): Promise<Part> {
  const half: Record<string, number> = {};
  for (const peer of [FLOOR, qemu, OURS]) {
    const rates = new ShapeRates(MIDDLE, [peer]);
    for (let round = 0; round < LATENCY_RATE_ROUNDS; round++) await rates.round(FOR_MS);
    const { kPairsPerS, complaints } = rates.row;
    const rate = kPairsPerS[peer.name];
    if (rate === null) throw new ColoError('COLO_BENCH_PEER', `${peer.name}: ${complaints[peer.name]}`);
    half[peer.name] = rate * 500;
  }
  const rows = [
    ...[FLOOR, qemu, OURS].map((peer) => ({ peer, pairsPerS: half[peer.name] })),
    ...[FLOOR, OURS].map((peer) => ({ peer, pairsPerS: half[qemu.name] })),
  ].map((row) => ({ ...row, runs: [] as Latency[] }));
  for (let round = 0; round < LATENCY_ROUNDS; round++) {
    for (const { peer, pairsPerS, runs } of rows)
      runs.push(await latency(MIDDLE, peer, pairsPerS, LATENCY_FOR_MS));
  }
  print(
    tableHead(`latency at half of its own and of QEMU's full speed, ms; medians of ${LATENCY_ROUNDS} runs`),
  );
  const latency_ms = rows.map(({ peer, pairsPerS, runs }) => {
    const name = `${peer.name}, ${(pairsPerS / 1000).toFixed(0)} k pairs/s`;
    const median = medianOf(runs.map(({ took }) => took));
    const p999 = runs.map(({ took }) => took.p999);
    const count = (which: 'late' | 'lateForWantOfProcessor') =>
      runs.reduce((sum, run) => sum + run[which], 0);
    const [late, starved] = [count('late'), count('lateForWantOfProcessor')];
    print(tableRow(`  ${name}`, median));
    print(`    p99.9 of each run: ${p999.map((ms) => ms.toFixed(1)).join(' ')}`);
    print(`    later than ${LATE_MS} ms: ${late}, of which ${starved} for want of a free processor`);
    return { name: peer.name, pairsPerS, median, p999, late, lateForWantOfProcessor: starved };
  });
  return { latency_ms, claims: [] };
}

async function footprint(print: (line: string) => void): Promise<Part> {
  const figures = await memory(MIDDLE, OURS);
  const { restingMb, idleFlows, bytesPerIdleFlow, wholeBytesPerIdleFlow } = figures;
  const { heldFrames, bytesPerHeldFrame, wireBytes } = figures;
  print(`resident memory: ${restingMb.toFixed(0)} MB with a thousand flows and nothing held`);
  print(
    `  an idle flow, of ${idleFlows}: ${bytesPerIdleFlow.toFixed(0)} bytes; the whole process grew by ${wholeBytesPerIdleFlow.toFixed(0)} for each`,
  );
  print(
    `  a held frame, of ${heldFrames}: ${bytesPerHeldFrame.toFixed(0)} bytes, of which ${wireBytes} are the frame`,
  );
  return { memory: figures, claims: [] };
}

/** Two full collections of an unchanged heap differ by this much, because code is compiled and discarded. */
const HEAP_NOISE_MB = 1;
const LATENCY_FOR_MS = 3000;
const LATENCY_RATE_ROUNDS = 3;
const LATENCY_ROUNDS = 5;

function readOptions(args: string[]): {
  rounds: number;
  only: string;
  steady: boolean;
  latency: boolean;
  seconds: number;
  before: string;
} | null {
  const known = {
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
    steady: { type: 'boolean', default: false },
    latency: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '60' },
    before: { type: 'string', default: '' },
    help: { type: 'boolean', short: 'h', default: false },
  } as const;
  try {
    const { values } = parseArgs({ args, options: known });
    if (values.help) return null;
    const number = (name: 'rounds' | 'seconds'): number => {
      const value = Number(values[name]);
      if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} takes a whole number from 1 on`);
      return value;
    };
    if (Object.keys(chosenShapes(values.only)).length === 0)
      throw new Error(
        `--only: there is no shape with ${values.only}; choose from ${Object.keys(SHAPES).join(', ')}`,
      );
    const { only, steady, latency, before } = values;
    if ([steady, latency, before !== ''].filter(Boolean).length > 1)
      throw new Error('--steady, --latency and --before: choose one');
    return { rounds: number('rounds'), only, steady, latency, seconds: number('seconds'), before };
  } catch (error) {
    throw new ColoError('COLO_USAGE', (error as Error).message, { cause: error });
  }
}
