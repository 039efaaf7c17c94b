import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckpointReason, CheckpointReport } from '../../src/checkpoint/report.ts';
import { CheckpointHistory } from '../../src/node/checkpoint-history.ts';

const report = (epoch: number, reason: CheckpointReason, pauseMs: number): CheckpointReport => ({
  epoch,
  reason,
  pauseMs,
  totalMs: pauseMs + 2,
  drainMs: 1,
  stateBytes: 1000,
  releasedFrames: 0,
  matchedFrames: 5,
  atMs: 1_000_000 + epoch,
});

test('without a checkpoint the quantiles are null', () => {
  assert.deepEqual(new CheckpointHistory().summary(), {
    count: 0,
    byReason: {},
    pauseMs: { p50: null, p99: null },
    last: null,
  });
});

test('a summary has counts by reason, quantiles by nearest rank, and the last report', () => {
  const history = new CheckpointHistory();
  for (let i = 1; i <= 100; i++) history.add(report(i, i % 4 === 0 ? 'interval' : 'diverged-bytes', i));
  const { count, byReason, pauseMs, last } = history.summary();
  assert.equal(count, 100);
  assert.deepEqual(byReason, { interval: 25, 'diverged-bytes': 75 });
  assert.deepEqual(pauseMs, { p50: 50, p99: 99 });
  assert.equal(last?.epoch, 100);
});

test('quantiles cover the last 1000 pauses, counts cover all', () => {
  const history = new CheckpointHistory();
  for (let i = 1; i <= 1000; i++) history.add(report(i, 'interval', 100));
  assert.deepEqual(history.summary().pauseMs, { p50: 100, p99: 100 });
  for (let i = 1; i <= 1000; i++) history.add(report(i, 'interval', 5));
  assert.equal(history.summary().count, 2000);
  assert.deepEqual(history.summary().pauseMs, { p50: 5, p99: 5 });
});
