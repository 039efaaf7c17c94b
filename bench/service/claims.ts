/**
 * The claims of `npm run bench -- service`: bounds on figures of ours, alone or against another column of the same row.
 * A bound is checked where its row and its columns were measured; where not, it claims nothing.
 */
import { HALF, rowOf } from './rows.ts';
import type { Column } from './side.ts';
import type { Figures } from './table.ts';

export type RowFigures = Pick<Figures, 'rate' | 'p50' | 'p99' | 'div1000' | 'cp1000'>;
/** What was measured, by row and column. */
export type Rows = Readonly<Record<string, Readonly<Partial<Record<Column, RowFigures>>>>>;

/** `ratio`: ours against the other column; the figure itself where there is none. */
export type Claim = { readonly text: string; readonly ratio: number; readonly holds: boolean };

/** `of`: the bound is a multiple of that column's figure. */
type Bound = { readonly figure: keyof RowFigures; readonly of?: Exclude<Column, 'ours'> } & (
  | { readonly least: number }
  | { readonly most: number }
);

const FULL_LOAD: readonly Bound[] = [
  { figure: 'rate', least: 1, of: 'stock' },
  { figure: 'rate', least: 0.45, of: 'unprotected' },
];
/** A row of one client has nothing to gain from what is done for several, and must not pay for it. */
const ONE_CLIENT: readonly Bound[] = [{ figure: 'rate', least: 0.97, of: 'before' }];
/** The rate is given there, so that it says nothing. */
const HALF_LOAD: readonly Bound[] = [
  { figure: 'p50', most: 1.5, of: 'unprotected' },
  { figure: 'p99', most: 3, of: 'unprotected' },
];

/** By the guest's number of vCPUs: two of them part the VMs in ways that one cannot. */
export const OF_ROWS: Readonly<Partial<Record<number, Readonly<Record<string, readonly Bound[]>>>>> = {
  1: {
    'redis-incr10': [
      { figure: 'rate', least: 2, of: 'before' },
      { figure: 'p99', most: 0.6, of: 'before' },
      { figure: 'div1000', most: 1 },
      { figure: 'rate', least: 2.5, of: 'stock' },
      { figure: 'cp1000', most: 1 / 20, of: 'stock' },
    ],
    'http-keep8': [{ figure: 'rate', least: 1.3, of: 'before' }],
    'tls-new': [{ figure: 'div1000', most: 10 }],
    'tls-new8': [
      { figure: 'rate', least: 1.7, of: 'before' },
      { figure: 'p99', most: 1 / 3, of: 'before' },
      { figure: 'div1000', most: 10 },
    ],
    'ssh-new': [{ figure: 'cp1000', most: 500 }],
    'redis-beside-tls': [{ figure: 'p99', most: 2, of: 'before' }],
    'redis-beside-upload': [{ figure: 'p99', most: 2, of: 'before' }],
  },
  2: {
    'redis-incr10': [{ figure: 'div1000', most: 5 }],
  },
};

const NAMES: Readonly<Record<keyof RowFigures, string>> = {
  rate: 'rate',
  p50: 'p50',
  p99: 'p99',
  div1000: 'divergences per 1000',
  cp1000: 'checkpoints per 1000',
};

/** Returns the claims about what was measured, in the order of the rows. `vcpus`: of the guest. */
export function claimsOf(rows: Rows, vcpus: number): Claim[] {
  return Object.entries(rows).flatMap(([row, { ours, ...others }]) => {
    if (ours === undefined) return [];
    return boundsOf(row, vcpus).flatMap((bound) => {
      const { figure, of } = bound;
      const other = of === undefined ? 1 : others[of]?.[figure];
      if (other === undefined) return [];
      // Nothing against nothing, as with two columns without a checkpoint, is a ratio of 0.
      const ratio = ours[figure] === 0 ? 0 : ours[figure] / other;
      const holds = 'least' in bound ? ratio >= bound.least : ratio <= bound.most;
      return [{ text: `${row}: ${textOf(bound)}`, ratio, holds }];
    });
  });
}

function boundsOf(row: string, vcpus: number): readonly Bound[] {
  if (HALF.test(row)) return HALF_LOAD;
  const bounds = [...(OF_ROWS[vcpus]?.[row] ?? []), ...FULL_LOAD];
  return rowOf(row).clients === 1 ? [...bounds, ...ONE_CLIENT] : bounds;
}

function textOf(bound: Bound): string {
  const limit = 'least' in bound ? `at least ${short(bound.least)}` : `at most ${short(bound.most)}`;
  return `${NAMES[bound.figure]}, ${limit}${bound.of === undefined ? '' : ` times ${bound.of}'s`}`;
}

function short(value: number): number {
  return Math.round(value * 1000) / 1000;
}
