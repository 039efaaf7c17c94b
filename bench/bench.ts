/** The type of a bench, and how figures become a table. */

/**
 * `ok`: the bench's claim held in this run. `lastLine`: what --json prints, where scripts rely on less than all figures; it
 * is in no file.
 */
export type BenchResult = {
  readonly ok: boolean;
  readonly lastLine?: unknown;
  readonly [figure: string]: unknown;
};

/** Runs a bench. Returns null if it only printed its help. Throws COLO_USAGE for arguments that it does not know. */
export type Bench = (args: string[], print: (line: string) => void) => Promise<BenchResult | null>;

export type Spread = {
  count: number;
  min: number;
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  max: number;
};

/** Quantiles by nearest rank: each is a value that was measured. */
export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (q: number) => round(sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN);
  return {
    count: sorted.length,
    min: at(0),
    p50: at(0.5),
    p90: at(0.9),
    p99: at(0.99),
    p999: at(0.999),
    max: at(1),
  };
}

/** Returns each quantile's median over several runs, so that a disturbance of one run has no effect. */
export function medianOf(runs: readonly Spread[]): Spread {
  const median = (figure: keyof Spread): number => spread(runs.map((run) => run[figure])).p50;
  return {
    count: median('count'),
    min: median('min'),
    p50: median('p50'),
    p90: median('p90'),
    p99: median('p99'),
    p999: median('p999'),
    max: median('max'),
  };
}

export function tableHead(title: string): string {
  const columns = ['count', 'min', 'p50', 'p90', 'p99', 'p99.9', 'max'];
  return `${title.padEnd(TITLE)}${columns.map((name) => name.padStart(COLUMN)).join('')}`;
}

export function tableRow(name: string, { count, ...figures }: Spread, digits = 2): string {
  const cells = [String(count), ...Object.values(figures).map((value) => value.toFixed(digits))];
  return `${name.padEnd(TITLE)}${cells.map((cell) => cell.padStart(COLUMN)).join('')}`;
}

const TITLE = 44;
const COLUMN = 9;

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
