/**
 * `npm run bench -- compare`: matched TCP output through a comparator, in over two unix sockets and out over a third.
 *
 * Side by side, in turns: a relay that copies the primary's stream and throws the secondary's away (the floor: what
 * the sockets alone cost), QEMU's colo-compare of 7.2 and of 11.1, standalone, and `colo compare`. The generator is
 * the same for all and needs a processor of its own; so does the comparator.
 */
import { parseArgs } from 'node:util';
import { installOldQemu, installQemu } from '../lab/qemu.ts';
import { ColoError } from '../src/error.ts';
import type { BenchResult } from './bench.ts';
import { colocompare, FLOOR, OURS, type Peer } from './compare/peers.ts';
import { measureShape, type Row, rateTable } from './compare/rates.ts';
import type { Shape } from './compare/shape.ts';
import { fullSpeedMinute, latency } from './compare/steady.ts';

const USAGE = `usage: npm run bench -- compare [--rounds N] [--only TEXT] [--steady] [--seconds N]

  --rounds N     measurements of each figure, of which the median counts (default 3)
  --only TEXT    only the shapes whose key has TEXT in it, e.g. 1448-16-v4
  --steady       instead of the table: a minute at full speed (garbage collection, heap), and latency at half speed
  --seconds N    how long that minute is (default 60)
`;

const FOR_MS = 1000;

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

export async function compareBench(args: string[], say: (line: string) => void): Promise<BenchResult | null> {
  const options = readOptions(args);
  if (options === null) {
    process.stdout.write(USAGE);
    return null;
  }
  const current = await installQemu();
  const old = await installOldQemu();
  const qemus = [colocompare(`QEMU ${old.version}`, old), colocompare(`QEMU ${current.version}`, current)];
  const peers = [FLOOR, ...qemus, OURS];
  return options.steady
    ? await steady(qemus[1], options.seconds, say)
    : await rates(peers, qemus, options, say);
}

async function rates(
  peers: readonly Peer[],
  qemus: readonly Peer[],
  options: { rounds: number; only: string },
  say: (line: string) => void,
): Promise<BenchResult> {
  const rows = new Map<string, Row>();
  for (const [key, shape] of Object.entries(SHAPES)) {
    if (!key.includes(options.only)) continue;
    const row = await measureShape(shape, peers, { rounds: options.rounds, forMs: FOR_MS });
    rows.set(key, row);
    const [head, ...lines] = rateTable([row], peers);
    if (rows.size === 1) say(head);
    for (const line of lines) say(line);
  }
  const rate = (key: string, peer: Peer): number => rows.get(key)?.kPairsPerS[peer.name] ?? Number.NaN;
  const best = (key: string): number => Math.max(...qemus.map((peer) => rate(key, peer)));
  const claims = [
    claim(
      '1448 bytes, 16 flows: at least 10 times QEMU 11.1',
      rate('1448-16-v4', OURS) / rate('1448-16-v4', qemus[1]),
      10,
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
  say('');
  for (const { text, ratio, holds } of claims)
    say(`${text}: ${ratio.toFixed(2)}, ${holds ? 'holds' : 'DOES NOT HOLD'}`);
  return { ok: claims.every(({ holds }) => holds), rows: Object.fromEntries(rows), claims };
}

function claim(text: string, ratio: number, least: number): { text: string; ratio: number; holds: boolean } {
  return { text, ratio, holds: ratio >= least };
}

async function steady(qemu: Peer, seconds: number, say: (line: string) => void): Promise<BenchResult> {
  const shape = SHAPES['1448-16-v4'];
  const minute = await fullSpeedMinute(shape, seconds);
  say(
    `${seconds} s at full speed, 1448 bytes, 16 flows: ${minute.kPairsPerS.toFixed(0)} thousand pairs per second`,
  );
  say(`  garbage collections ${minute.collections}, longest pause ${minute.longestPauseMs.toFixed(2)} ms`);
  say(
    `  heap ${minute.heapEarlyMb.toFixed(1)} MB after the first second, ${minute.heapLateMb.toFixed(1)} MB at the end`,
  );
  const latencies: Record<string, unknown> = {};
  for (const peer of [FLOOR, qemu, OURS]) {
    const row = await measureShape(shape, [peer], { rounds: 1, forMs: FOR_MS });
    const half = (row.kPairsPerS[peer.name] ?? 0) * 500;
    const ms = await latency(shape, peer, half, 5000);
    latencies[peer.name] = { pairsPerS: half, ms };
    say(
      `latency at half speed, ${peer.name} (${(half / 1000).toFixed(0)} thousand pairs per second): ` +
        `p50 ${ms.p50.toFixed(2)} ms, p99 ${ms.p99.toFixed(2)} ms, p99.9 ${ms.p999.toFixed(2)} ms`,
    );
  }
  const grew = minute.heapLateMb - minute.heapEarlyMb;
  return { ok: grew < HEAP_GROWTH_MB_MAX, minute, latencies };
}

/** What a heap of a few megabytes may differ by between two collections. */
const HEAP_GROWTH_MB_MAX = 1;

function readOptions(
  args: string[],
): { rounds: number; only: string; steady: boolean; seconds: number } | null {
  const known = {
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
    steady: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '60' },
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
    if (!Object.keys(SHAPES).some((key) => key.includes(values.only)))
      throw new Error(
        `--only: there is no shape with ${values.only}; choose from ${Object.keys(SHAPES).join(', ')}`,
      );
    return { rounds: number('rounds'), only: values.only, steady: values.steady, seconds: number('seconds') };
  } catch (error) {
    throw new ColoError('COLO_USAGE', (error as Error).message, { cause: error });
  }
}
