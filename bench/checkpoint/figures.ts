/** What the bench makes of its measurements: quantiles, ratios, claims, and the lines of the table. */
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import { type Spread, spread, tableHead, tableRow } from '../bench.ts';
import type { Steps } from './pauses.ts';

/** The claim: our median is this many times shorter than stock's. */
const STOCK_RATIO_MIN = 5;
/** The claim: with an idle guest our median is at most this many times the limit's. */
const LIMIT_RATIO_MAX = 1.3;
/** A change that must cost nothing: the median of the build before is at least this part of ours. */
const BEFORE_RATIO_MIN = 0.97;
/** Linux: TCP_DELACK_MIN. QEMU leaves Nagle's algorithm on, so a small write waits for the ACK of the one before. */
const DELAYED_ACK_MS = 40;

/** One column's checkpoints. */
export type Measured = {
  readonly pausesMs: number[];
  readonly steps: Steps[];
  /** from the request until the primary runs again */
  readonly totalsMs: number[];
  /** of nodes alone */
  readonly reports: CheckpointReport[];
};

export type Columns<T> = {
  readonly ours: T;
  readonly stock: T;
  /** two QEMUs that a unix socket joins */
  readonly limit: T;
  readonly before: T | null;
};

export type Claim = { readonly text: string; readonly holds: boolean };

export type Figures = {
  readonly pauses: Columns<Spread>;
  readonly steps: Columns<StepSpreads>;
  readonly totals: Columns<Spread>;
  /** of medians */
  readonly stockRatio: number;
  readonly limitRatio: number;
  readonly beforeRatio: number | null;
  /** how many of stock's pauses held two delayed ACKs, and one */
  readonly delayedAcks: { readonly twice: number; readonly once: number };
  readonly reported: {
    readonly drain: Spread;
    /** from passing on QEMU's request until the secondary has stopped and its last output has arrived */
    readonly stop: Spread;
    readonly pause: Spread;
    readonly total: Spread;
  };
  readonly stateKb: Spread;
  readonly claims: readonly Claim[];
};

type StepSpreads = { readonly [step in keyof Steps]: Spread };

export function figuresOf(columns: Columns<Measured>, guest: 'idle' | 'load'): Figures {
  const { ours, stock, limit, before } = columns;
  const each = <T>(figure: (column: Measured) => T): Columns<T> => ({
    ours: figure(ours),
    stock: figure(stock),
    limit: figure(limit),
    before: before === null ? null : figure(before),
  });
  const reported = (pick: (one: CheckpointReport) => number) => spread(ours.reports.map(pick));
  const pauses = each(({ pausesMs }) => spread(pausesMs));
  const stockRatio = pauses.stock.p50 / pauses.ours.p50;
  const limitRatio = pauses.ours.p50 / pauses.limit.p50;
  const beforeRatio = pauses.before === null ? null : pauses.before.p50 / pauses.ours.p50;
  const twice = stock.pausesMs.filter((ms) => ms >= 2 * DELAYED_ACK_MS).length;
  const claims: Claim[] = [];
  if (guest === 'idle') {
    claims.push({
      text: `at least ${STOCK_RATIO_MIN} times shorter than stock's at the median`,
      holds: stockRatio >= STOCK_RATIO_MIN,
    });
    claims.push({
      text: `at most ${LIMIT_RATIO_MAX} times the limit at the median`,
      holds: limitRatio <= LIMIT_RATIO_MAX,
    });
  }
  if (beforeRatio !== null)
    claims.push({
      text: `at least ${BEFORE_RATIO_MIN} of the build before`,
      holds: beforeRatio >= BEFORE_RATIO_MIN,
    });
  return {
    pauses,
    steps: each(({ steps }) => ({
      reply: spread(steps.map(({ reply }) => reply)),
      state: spread(steps.map(({ state }) => state)),
      loaded: spread(steps.map(({ loaded }) => loaded)),
    })),
    totals: each(({ totalsMs }) => spread(totalsMs)),
    stockRatio,
    limitRatio,
    beforeRatio,
    delayedAcks: { twice, once: stock.pausesMs.filter((ms) => ms >= DELAYED_ACK_MS).length - twice },
    reported: {
      drain: reported(({ drainMs }) => drainMs),
      stop: reported(({ totalMs, drainMs, pauseMs }) => totalMs - drainMs - pauseMs),
      pause: reported(({ pauseMs }) => pauseMs),
      total: reported(({ totalMs }) => totalMs),
    },
    stateKb: reported(({ stateBytes }) => stateBytes / 1e3),
    claims,
  };
}

const TITLES: { readonly [column in keyof Columns<unknown>]: string } = {
  ours: 'ours, relay across TCP',
  before: 'the build before, the same',
  limit: 'limit: two QEMUs, one unix socket',
  stock: "stock, QEMU's migration across TCP",
};

export function tableOf(figures: Figures): string[] {
  const { pauses, steps, totals, reported, beforeRatio, delayedAcks } = figures;
  const rows = (columns: Columns<Spread>): string[] =>
    Object.entries(TITLES).flatMap(([name, title]) => {
      const column = columns[name as keyof Columns<unknown>];
      return column === null ? [] : [tableRow(`  ${title}`, column)];
    });
  const step = (name: keyof Steps): Columns<Spread> => ({
    ours: steps.ours[name],
    stock: steps.stock[name],
    limit: steps.limit[name],
    before: steps.before === null ? null : steps.before[name],
  });
  return [
    tableHead('primary VM stopped (STOP to RESUME, by QEMU)'),
    ...rows(pauses),
    `  ours against the limit, medians: ${figures.limitRatio.toFixed(2)}`,
    `  stock against ours, medians: ${figures.stockRatio.toFixed(1)}`,
    ...(beforeRatio === null ? [] : [`  the build before against ours, medians: ${beforeRatio.toFixed(3)}`]),
    `  stock waited for two delayed ACKs in ${delayedAcks.twice} of ${pauses.stock.count}, for one in ${delayedAcks.once}`,
    '',
    tableHead('before it: secondary stops to primary stops'),
    ...rows(step('reply')),
    tableHead('in it: primary stops to secondary resumes'),
    ...rows(step('state')),
    tableHead('in it: secondary resumes to primary resumes'),
    ...rows(step('loaded')),
    '',
    tableHead('the parts of ours, from its reports'),
    tableRow('  drain: inputs gated and read by both VMs', reported.drain),
    tableRow('  secondary stops, its output is read', reported.stop),
    tableRow('  pause: REPLY passed to LOADED passed', reported.pause),
    tableRow('  total: decision to inputs open', reported.total),
    tableRow('  state copied, kB', figures.stateKb, 0),
    '',
    tableHead('from the request to RESUME'),
    ...rows(totals),
  ];
}
