/** What the bench makes of its measurements. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Columns, figuresOf, type Measured, tableOf } from '../../../bench/checkpoint/figures.ts';
import type { CheckpointReport } from '../../../src/checkpoint/report.ts';

const REPORT: CheckpointReport = {
  epoch: 1,
  reason: 'requested',
  totalMs: 18,
  drainMs: 2,
  pauseMs: 13,
  stateBytes: 1_500_000,
  releasedFrames: 0,
  matchedFrames: 0,
  atMs: 0,
};

const measured = (pausesMs: number[], change: Partial<Measured> = {}): Measured => ({
  pausesMs,
  steps: pausesMs.map((ms) => ({ reply: 1, state: ms - 2, loaded: 2 })),
  totalsMs: pausesMs.map((ms) => ms + 5),
  reports: [],
  ...change,
});

const columns = (change: Partial<Columns<Measured>> = {}): Columns<Measured> => ({
  ours: measured([12, 13, 90], { reports: [REPORT] }),
  stock: measured([45, 86, 87]),
  limit: measured([9, 10, 11]),
  before: null,
  ...change,
});

test('ratios are of medians: ours to the limit, stock to ours', () => {
  const { limitRatio, stockRatio, beforeRatio } = figuresOf(columns(), 'idle');
  assert.equal(limitRatio, 1.3);
  assert.equal(stockRatio, 86 / 13);
  assert.equal(beforeRatio, null);
});

test('with idle guests the ratios to stock and to the limit are claims', () => {
  const holds = (change: Partial<Columns<Measured>>) =>
    figuresOf(columns(change), 'idle').claims.map((claim) => claim.holds);
  assert.deepEqual(holds({}), [true, true]);
  assert.deepEqual(holds({ ours: measured([13.1]) }), [true, false]);
  assert.deepEqual(holds({ stock: measured([64.9]) }), [false, true]);
  assert.deepEqual(figuresOf(columns(), 'load').claims, []);
});

test('the build before is a column and a claim of its own', () => {
  const slower = columns({ before: measured([12]) });
  const figures = figuresOf(slower, 'load');
  assert.equal(figures.beforeRatio, 12 / 13);
  assert.deepEqual(
    figures.claims.map((claim) => claim.holds),
    [false],
  );
  assert.match(tableOf(figures).join('\n'), /the build before, the same +1 +12\.00/);
});

test("stock's delayed ACKs are counted by the length of its pauses", () => {
  assert.deepEqual(figuresOf(columns(), 'idle').delayedAcks, { twice: 2, once: 1 });
});

test('the time until the secondary has stopped is what drain and pause leave of the total', () => {
  const { reported, stateKb } = figuresOf(columns(), 'idle');
  assert.equal(reported.stop.p50, 3);
  assert.equal(stateKb.p50, 1500);
});

test('the table has each column and its ratio to the limit', () => {
  const text = tableOf(figuresOf(columns(), 'idle')).join('\n');
  assert.match(text, /ours, relay across TCP +3 +12\.00 +13\.00/);
  assert.match(text, /limit: two QEMUs, one unix socket +3 +9\.00 +10\.00/);
  assert.match(text, /stock, QEMU's migration across TCP +3 +45\.00 +86\.00/);
  assert.match(text, /ours against the limit, medians: 1\.30/);
  assert.doesNotMatch(text, /the build before/);
});
