/** The figures of one cell, their medians over the rounds, and the lines of the table. */
import { spread } from '../bench.ts';
import type { Column } from './side.ts';

/** One column's work on one row in one round. */
export type Cell = {
  /** requests per second */
  readonly rate: number;
  /** milliseconds per request */
  readonly p50: number;
  readonly p99: number;
  readonly requests: number;
  readonly errors: number;
  readonly divergences: number;
  readonly checkpoints: readonly { readonly reason: string; readonly pauseMs: number }[];
  /** per request, by process */
  readonly processorMs: Readonly<Record<string, number>>;
};

export type Figures = {
  readonly rate: number;
  /** of each round: how much the machine varied */
  readonly rates: readonly number[];
  readonly p50: number;
  readonly p99: number;
  /** divergences and checkpoints per 1000 requests */
  readonly div1000: number;
  readonly cp1000: number;
  /** checkpoints per 1000 requests of all rounds, by reason */
  readonly reasons: Readonly<Record<string, number>>;
  /** of all checkpoints of all rounds; null without any */
  readonly pauseMs: { readonly p50: number; readonly p99: number } | null;
  readonly processorMs: Readonly<Record<string, number>>;
  readonly requests: number;
  readonly errors: number;
};

/** Returns the median of each figure over the rounds. */
export function median(cells: readonly Cell[]): Figures {
  const of = (figure: (cell: Cell) => number): number => spread(cells.map(figure)).p50;
  const sum = (figure: (cell: Cell) => number): number => cells.reduce((all, cell) => all + figure(cell), 0);
  const requests = sum((cell) => cell.requests);
  const checkpoints = cells.flatMap((cell) => cell.checkpoints);
  const reasons: Record<string, number> = {};
  for (const { reason } of checkpoints) reasons[reason] = (reasons[reason] ?? 0) + 1;
  const pauses = spread(checkpoints.map(({ pauseMs }) => pauseMs));
  return {
    rate: of((cell) => cell.rate),
    rates: cells.map((cell) => rounded(cell.rate)),
    p50: of((cell) => cell.p50),
    p99: of((cell) => cell.p99),
    div1000: of((cell) => (1000 * cell.divergences) / cell.requests),
    cp1000: of((cell) => (1000 * cell.checkpoints.length) / cell.requests),
    reasons: Object.fromEntries(
      Object.entries(reasons).map(([reason, count]) => [reason, rounded((1000 * count) / requests)]),
    ),
    pauseMs: checkpoints.length === 0 ? null : { p50: pauses.p50, p99: pauses.p99 },
    processorMs: Object.fromEntries(
      Object.keys(cells[0].processorMs).map((name) => [name, of((cell) => cell.processorMs[name] ?? 0)]),
    ),
    requests,
    errors: sum((cell) => cell.errors),
  };
}

const HEADS = ['per s', 'share', 'p50', 'p99', 'div/1000', 'cp/1000', 'pause'];

export const TABLE_HEAD = `${''.padEnd(20)}${''.padEnd(13)}${HEADS.map((head) => head.padStart(10)).join('')}  CPU; checkpoints per 1000 by reason`;

/** Returns a line for each column. `share` is of the unprotected rate. */
export function lines(name: string, columns: ReadonlyMap<Column, readonly Cell[]>): string[] {
  const alone = columns.get('unprotected');
  const whole = alone === undefined ? null : median(alone).rate;
  return [...columns].map(([column, cells], index) => {
    const { rate, p50, p99, div1000, cp1000, reasons, pauseMs, processorMs } = median(cells);
    const figures = [
      rate.toFixed(1),
      whole === null ? '' : (rate / whole).toFixed(2),
      p50.toFixed(2),
      p99.toFixed(2),
      column === 'unprotected' ? '' : div1000.toFixed(1),
      column === 'unprotected' ? '' : cp1000.toFixed(1),
      pauseMs === null ? '' : pauseMs.p50.toFixed(1),
    ];
    const processors = Object.entries(processorMs).map(([process, ms]) => `${process} ${ms.toFixed(2)}`);
    const why = Object.entries(reasons).map(([reason, per1000]) => `${reason} ${per1000}`);
    const texts = [processors.join(', '), ...(why.length === 0 ? [] : [why.join(', ')])];
    const row = (index === 0 ? name : '').padEnd(20);
    return `${row}${column.padEnd(13)}${figures.map((text) => text.padStart(10)).join('')}  ${texts.join('; ')}`;
  });
}

function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}
