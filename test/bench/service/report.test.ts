/** What `npm run bench -- service` prints and returns of what it has measured. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BenchResult } from '../../../bench/bench.ts';
import { type Cell, median } from '../../../bench/service/table.ts';
import { type Options, report } from '../../../bench/service.ts';

const OPTIONS: Options = {
  rows: ['redis-incr10', 'dns'],
  columns: ['unprotected', 'ours'],
  before: null,
  rounds: 1,
  ms: 1000,
  vcpus: 1,
};

const cell = (rate: number, divergences = 0): Cell => ({
  rate,
  p50: 1,
  p99: 2,
  requests: 1000,
  errors: 0,
  divergences,
  checkpoints: [],
  processorMs: { VM: 1 },
});

const FAILURE = { row: 'dns', column: 'ours', why: 'no reply' } as const;

function reported(
  cells: Record<string, Cell>,
  failures: (typeof FAILURE)[] = [],
): BenchResult & { printed: string } {
  const lines: string[] = [];
  const measured = new Map(Object.entries(cells).map(([key, one]) => [key, [one]]));
  const result = report(OPTIONS, { cells: measured, failures }, (line) => lines.push(line));
  return { ...result, printed: lines.join('\n') };
}

test('claims that hold are printed and returned, and the bench was right', () => {
  const result = reported({ 'redis-incr10 unprotected': cell(1000), 'redis-incr10 ours': cell(500, 1) });
  assert.equal(result.ok, true);
  assert.deepEqual(result.claims, [
    { text: 'redis-incr10: divergences per 1000, at most 1', ratio: 1, holds: true },
    { text: "redis-incr10: rate, at least 0.45 times unprotected's", ratio: 0.5, holds: true },
  ]);
  assert.match(result.printed, /^redis-incr10: divergences per 1000, at most 1: 1\.000, holds$/m);
});

test('one claim that does not hold fails the bench', () => {
  const result = reported({ 'redis-incr10 unprotected': cell(1000), 'redis-incr10 ours': cell(500, 2) });
  assert.equal(result.ok, false);
  assert.match(result.printed, /^redis-incr10: divergences per 1000, at most 1: 2\.000, DOES NOT HOLD$/m);
  assert.match(result.printed, /unprotected's: 0\.500, holds$/m);
});

test('a cell that could not be measured fails the bench, though all claims hold', () => {
  const result = reported({ 'redis-incr10 ours': cell(500) }, [FAILURE]);
  assert.equal(result.ok, false);
  assert.match(result.printed, /^FAILED: dns, ours: no reply$/m);
});

test('the last line has the rows alone, each cell with five figures', () => {
  const one = cell(500, 2);
  const { rate, p50, p99, div1000, cp1000 } = median([one]);
  const { lastLine } = reported({ 'redis-incr10 ours': one });
  const rows = { 'redis-incr10': { ours: { rate, p50, p99, div1000, cp1000 } }, dns: {} };
  assert.equal(JSON.stringify(lastLine), JSON.stringify({ rows }));
});
