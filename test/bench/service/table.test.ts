/** What the bench makes of the figures of several rounds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Cell, lines, median } from '../../../bench/service/table.ts';

const cell = (change: Partial<Cell>): Cell => ({
  rate: 100,
  p50: 1,
  p99: 2,
  requests: 500,
  errors: 0,
  divergences: 0,
  checkpoints: [],
  processorMs: { VM: 1 },
  ...change,
});

test('each figure is the median of its rounds', () => {
  const figures = median([
    cell({ rate: 90, p50: 3, p99: 9, divergences: 5, processorMs: { VM: 2 } }),
    cell({ rate: 120, p50: 1, p99: 8, divergences: 1, processorMs: { VM: 4 } }),
    cell({ rate: 100, p50: 2, p99: 7, divergences: 2, processorMs: { VM: 3 } }),
  ]);
  assert.deepEqual(figures.rates, [90, 120, 100]);
  const { rate, p50, p99, div1000, processorMs } = figures;
  assert.deepEqual(
    { rate, p50, p99, div1000, processorMs },
    { rate: 100, p50: 2, p99: 8, div1000: 4, processorMs: { VM: 3 } },
  );
});

test('checkpoints count per 1000 requests, and their reasons and pauses over all rounds', () => {
  const figures = median([
    cell({ requests: 250, checkpoints: [{ reason: 'interval', pauseMs: 10 }] }),
    cell({
      requests: 500,
      checkpoints: [
        { reason: 'interval', pauseMs: 30 },
        { reason: 'diverged-bytes', pauseMs: 20 },
      ],
    }),
    cell({ requests: 1250 }),
  ]);
  assert.equal(figures.cp1000, 4);
  assert.deepEqual(figures.reasons, { interval: 1, 'diverged-bytes': 0.5 });
  assert.deepEqual(figures.pauseMs, { p50: 20, p99: 30 });
  assert.equal(figures.requests, 2000);
});

test('without checkpoints there is no pause', () => {
  assert.equal(median([cell({})]).pauseMs, null);
});

test('a column is shown beside the unprotected rate of its row', () => {
  const [alone, ours] = lines(
    'dns',
    new Map([
      ['unprotected', [cell({ rate: 200 })]],
      ['ours', [cell({ rate: 90 })]],
    ]),
  );
  assert.match(alone, /^dns +unprotected +200\.0 +1\.00 /);
  assert.match(ours, /^ +ours +90\.0 +0\.45 /);
});
