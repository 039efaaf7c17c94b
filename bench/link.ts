/**
 * `npm run bench -- link`: what TLS costs a frame and a checkpoint, and what the delay of a link costs a service.
 *
 * Plain and TLS, and the delays, take turns, first to last and last to first, so that a drift of the machine meets all alike; only
 * one runs at a time.
 */
import { join } from 'node:path';
import type { LinkKind } from '../lab/pair.ts';
import { removeWorkFolder, workFolder } from '../lab/process.ts';
import { type Bench, type Spread, spread, tableHead, tableRow } from './bench.ts';
import { DELAY_ROWS, type DelayCell, type DelayRow, measureDelay, withoutPortions } from './link/delay.ts';
import { makeBenchCertificates } from './link/ends.ts';
import { type FrameFigures, measureFrames, SHAPES } from './link/frames.ts';
import { HELP, type Options, readOptions } from './link/options.ts';
import { measurePauses, type Pauses } from './link/pause.ts';

const RATIO_MAX = 1.25;
const KINDS: readonly LinkKind[] = ['plain', 'tls'];

type FrameRows = Record<string, Record<LinkKind, FrameFigures>>;
type PauseFigures = { readonly plain: Spread; readonly tls: Spread; readonly ratio: number };
type DelayFigures = Pick<DelayCell, 'rate' | 'p50' | 'p99'> & {
  readonly div1000: number;
  readonly cp1000: number;
  /** rounds at whose end portions were on */
  readonly portions: number;
  readonly rounds: readonly Pick<DelayCell, 'rate' | 'p50' | 'p99' | 'portions'>[];
};
/** This build, and one in which portions stay off. */
const BUILDS = ['with', 'without'] as const;
type Build = (typeof BUILDS)[number];
/** By delay in ms. */
type DelayRows = Record<DelayRow, Record<string, Record<Build, DelayFigures>>>;

export const linkBench: Bench = async (args, print) => {
  const options = readOptions(args);
  if (options === null) {
    print(HELP);
    return null;
  }
  const has = (part: Options['parts'][number]): boolean => options.parts.includes(part);
  const frames = has('frames') ? await frameRows(options) : null;
  const pause = has('pause') ? await pauses(options) : null;
  const delay = has('delay') ? await delayRows(options) : null;
  if (frames !== null) for (const line of frameLines(frames)) print(line);
  if (pause !== null) for (const line of pauseLines(pause)) print(line);
  if (delay !== null) for (const line of delayLines(delay)) print(line);
  return { ok: pause === null || pause.ratio <= RATIO_MAX, frames, pause, delay };
};

/** Returns the turns of a round: every second one is in reverse. */
function inTurns<T>(all: readonly T[], round: number): readonly T[] {
  return round % 2 === 0 ? all : all.toReversed();
}

function medianOf<T>(all: readonly T[], figure: (one: T) => number): number {
  return spread(all.map(figure)).p50;
}

async function frameRows({ rounds, ms }: Options): Promise<FrameRows> {
  const folder = workFolder();
  try {
    await makeBenchCertificates(folder);
    const rows: FrameRows = {};
    for (const shape of SHAPES) {
      const all: Record<LinkKind, FrameFigures[]> = { plain: [], tls: [] };
      for (let round = 0; round < rounds; round++)
        for (const kind of inTurns(KINDS, round))
          all[kind].push(await measureFrames(kind, shape, ms, folder));
      const figuresOf = (kind: LinkKind): FrameFigures => ({
        perSecond: medianOf(all[kind], (one) => one.perSecond),
        senderUs: medianOf(all[kind], (one) => one.senderUs),
        receiverUs: medianOf(all[kind], (one) => one.receiverUs),
      });
      rows[shape.name] = { plain: figuresOf('plain'), tls: figuresOf('tls') };
    }
    return rows;
  } finally {
    removeWorkFolder(folder);
  }
}

/** Two turns of each, so that none is always first. */
async function pauses({ count }: Options): Promise<PauseFigures> {
  const all: Record<LinkKind, Pauses> = { plain: newPauses(), tls: newPauses() };
  for (const kind of [...KINDS, ...KINDS.toReversed()])
    await measurePauses(kind, Math.ceil(count / 2), all[kind]);
  const [plain, tls] = [spread(all.plain.pausesMs), spread(all.tls.pausesMs)];
  return { plain, tls, ratio: Math.round((1000 * tls.p50) / plain.p50) / 1000 };
}

const newPauses = (): Pauses => ({ pausesMs: [], totalsMs: [], stateBytes: [] });

async function delayRows({ delaysMs, rounds, ms }: Options): Promise<DelayRows> {
  const cases = delaysMs.flatMap((delayMs) =>
    BUILDS.map((build) => ({ delayMs, build, cells: [] as Record<DelayRow, DelayCell>[] })),
  );
  const folder = workFolder();
  try {
    const checkouts = { with: null, without: withoutPortions(join(folder, 'without-portions')) };
    for (let round = 0; round < rounds; round++)
      for (const { delayMs, build, cells } of inTurns(cases, round))
        cells.push(await measureDelay(delayMs, ms, checkouts[build]));
  } finally {
    removeWorkFolder(folder);
  }
  const rows = {} as DelayRows;
  for (const name of DELAY_ROWS) {
    rows[name] = {};
    for (const { delayMs, build, cells } of cases) {
      const figures = delayFigures(cells.map((cell) => cell[name]));
      rows[name][delayMs] = { ...rows[name][delayMs], [build]: figures };
    }
  }
  return rows;
}

function delayFigures(all: readonly DelayCell[]): DelayFigures {
  return {
    rate: medianOf(all, (cell) => cell.rate),
    p50: medianOf(all, (cell) => cell.p50),
    p99: medianOf(all, (cell) => cell.p99),
    div1000: medianOf(all, ({ divergences, requests }) => (1000 * divergences) / requests),
    cp1000: medianOf(all, ({ checkpoints, requests }) => (1000 * checkpoints) / requests),
    portions: all.filter(({ portions }) => portions).length,
    rounds: all.map(({ rate, p50, p99, portions }) => ({ rate, p50, p99, portions })),
  };
}

function frameLines(rows: FrameRows): string[] {
  const head = ['frames/s', 'send us', 'recv us'].map((name) => name.padStart(10)).join('');
  const cells = ({ perSecond, senderUs, receiverUs }: FrameFigures): string =>
    [String(perSecond), senderUs.toFixed(2), receiverUs.toFixed(2)].map((cell) => cell.padStart(10)).join('');
  return [
    'One data channel between two processes; us: processor time per frame',
    `${''.padEnd(36)}${head}`,
    ...Object.entries(rows).flatMap(([name, row]) =>
      KINDS.map((kind) => `${`${name}, ${kind}`.padEnd(36)}${cells(row[kind])}`),
    ),
    '',
  ];
}

function pauseLines({ plain, tls, ratio }: PauseFigures): string[] {
  return [
    tableHead('pause of a checkpoint of an idle guest, ms'),
    tableRow('plain TCP', plain),
    tableRow('TLS', tls),
    `Claim: TLS / plain, medians, at most ${RATIO_MAX}: ${ratio.toFixed(3)}, ${ratio <= RATIO_MAX ? 'holds' : 'DOES NOT HOLD'}`,
    '',
  ];
}

function delayLines(rows: DelayRows): string[] {
  const columns = ['delay ms', 'rate/s', 'p50 ms', 'p99 ms', 'div/1000', 'cp/1000', 'portions'];
  const cells = (
    delayMs: string,
    { rate, p50, p99, div1000, cp1000, portions, rounds }: DelayFigures,
  ): string[] => [
    ...[delayMs, rate.toFixed(1), p50.toFixed(1), p99.toFixed(1), div1000.toFixed(2), cp1000.toFixed(2)],
    `${portions} of ${rounds.length}`,
  ];
  const line = (texts: readonly string[]): string => texts.map((text) => text.padStart(10)).join('');
  return DELAY_ROWS.flatMap((name) => [
    `${name}: a pair whose link is late each way, inside TLS (portions: rounds in which they were on; without: a build in which they stay off)`,
    line(columns),
    ...byDelay(rows[name]).flatMap(([delayMs, builds]) =>
      BUILDS.map((build) => line(cells(build === 'with' ? delayMs : 'without', builds[build]))),
    ),
    '',
  ]);
}

/** An object has its whole numbers first. */
function byDelay<T>(rows: Record<string, T>): [string, T][] {
  return Object.entries(rows).toSorted(([a], [b]) => Number(a) - Number(b));
}
