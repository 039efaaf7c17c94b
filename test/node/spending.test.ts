import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import { Spending } from '../../src/node/spending.ts';
import type { Instant } from '../../src/units.ts';
import { REPORT } from '../observe/fake-node.ts';

const report = (about: Partial<CheckpointReport>): CheckpointReport => ({
  ...REPORT,
  pauseMs: 5,
  totalMs: 8,
  ...about,
});

test('nothing was spent before the first checkpoint', () => {
  assert.deepEqual(new Spending().summary(5000 as Instant), { forMs: 0, rows: [] });
});

test('checkpoints are added up by reason, class and service, the dearest first', () => {
  const spending = new Spending();
  const add = (about: Partial<CheckpointReport>, atMs: number): void =>
    spending.add(report(about), atMs as Instant);
  add({ reason: 'initial', pauseMs: 9 }, 1000);
  for (let i = 0; i < 3; i++) add({ reason: 'diverged-bytes', class: 'order', service: 'tcp 6379' }, 2000);
  add({ reason: 'diverged-bytes', class: 'clock', service: 'tcp 6379' }, 2000);
  add({ reason: 'wait-primary', service: 'tcp 22', pauseMs: 1 }, 3000);
  assert.deepEqual(spending.summary(4000 as Instant), {
    forMs: 3000,
    rows: [
      {
        reason: 'diverged-bytes',
        class: 'order',
        service: 'tcp 6379',
        checkpoints: 3,
        pausedMs: 15,
        totalMs: 24,
      },
      { reason: 'initial', class: null, service: null, checkpoints: 1, pausedMs: 9, totalMs: 8 },
      {
        reason: 'diverged-bytes',
        class: 'clock',
        service: 'tcp 6379',
        checkpoints: 1,
        pausedMs: 5,
        totalMs: 8,
      },
      { reason: 'wait-primary', class: null, service: 'tcp 22', checkpoints: 1, pausedMs: 1, totalMs: 8 },
    ],
  });
});

test('more services than there are rows count together', () => {
  const spending = new Spending();
  for (let port = 1; port <= 1000; port++)
    spending.add(report({ reason: 'wait-primary', service: `tcp ${port}` }), 0 as Instant);
  const { rows } = spending.summary(0 as Instant);
  assert.equal(rows.length, 65);
  assert.deepEqual(
    rows.filter(({ service }) => service === null).map(({ checkpoints }) => checkpoints),
    [936],
  );
  assert.equal(
    rows.reduce((sum, { checkpoints }) => sum + checkpoints, 0),
    1000,
  );
});
