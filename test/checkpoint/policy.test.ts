import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CheckpointPolicy } from '../../src/checkpoint/policy.ts';
import type { Overdue, Pressure } from '../../src/compare/comparator.ts';
import type { Instant } from '../../src/units.ts';
import { differing } from '../divergence/differing.ts';

const LIMITS = { intervalMsMax: 1000, waitMsMin: 10, waitMsMax: 100, ackWaitMsMax: 60 };

function policy(): CheckpointPolicy {
  const one = new CheckpointPolicy(LIMITS);
  one.committed(0 as Instant, LIMITS.waitMsMin);
  return one;
}

for (const [nowMs, divergence, overdue, pressure, due] of [
  [0, null, null, null, null],
  [999, null, null, null, null],
  [1000, null, null, null, 'interval'],
  [5, null, 'wait-primary', null, 'wait-primary'],
  [5, null, 'wait-secondary', null, 'wait-secondary'],
  [5, null, null, 'limit-frames', 'limit-frames'],
  [5, null, 'wait-primary', 'limit-flows', 'limit-flows'],
  [5, 'diverged-bytes', 'wait-primary', 'limit-bytes', 'diverged-bytes'],
  [5000, 'diverged-flags', null, null, 'diverged-flags'],
] as const) {
  test(`due at ${nowMs} ms with ${divergence ?? 'no divergence'}, ${overdue ?? 'nothing overdue'}, ${pressure ?? 'no pressure'}: ${due}`, () => {
    const one = policy();
    if (divergence !== null) one.diverged(differing(divergence));
    assert.equal(one.due(nowMs as Instant, overdue, pressure), due);
  });
}

test('the first divergence is the reason, until a commit', () => {
  const one = policy();
  one.diverged(differing('diverged-length'));
  one.diverged(differing('diverged-bytes'));
  assert.equal(one.due(1 as Instant, null, null), 'diverged-length');
  assert.equal(one.divergence?.reason, 'diverged-length');
  one.committed(700 as Instant, 20);
  assert.equal(one.divergence, null);
  assert.equal(one.due(1699 as Instant, null, null), null);
  assert.equal(one.due(1700 as Instant, null, null), 'interval');
});

test('in periodic mode a difference or a wait is due when the VMs have run for as long as the last checkpoint took', () => {
  const one = new CheckpointPolicy(LIMITS, { isPeriodic: true });
  one.committed(1000 as Instant, 30);
  assert.equal(one.periodMs, 30);
  one.diverged(differing('diverged-bytes'));
  const dueAt = (nowMs: number, overdue: Overdue = null, pressure: Pressure = null) =>
    one.due(nowMs as Instant, overdue, pressure);
  assert.deepEqual([dueAt(1029.9, 'wait-primary'), dueAt(1030)], [null, 'diverged-bytes']);
  assert.deepEqual(
    [dueAt(1001, 'wait-primary', 'limit-bytes'), dueAt(1030, null, 'limit-bytes')],
    ['limit-bytes', 'diverged-bytes'],
  );
  one.committed(2000 as Instant, 30);
  assert.deepEqual([dueAt(2029, 'wait-primary'), dueAt(2030, 'wait-primary')], [null, 'wait-primary']);
  one.committed(3000 as Instant, 400);
  assert.equal(one.periodMs, 100, 'no longer than output may wait');
  assert.deepEqual([one.isTooSoon(3099 as Instant), one.isTooSoon(3100 as Instant)], [true, false]);
});

test('periodic mode changes no wait for a counterpart, and at once nothing is too soon', () => {
  const periodic = new CheckpointPolicy(LIMITS, { isPeriodic: true });
  const atOnce = new CheckpointPolicy(LIMITS);
  for (const totalMs of [3, 40, 40, 5000, 12]) {
    for (const one of [periodic, atOnce]) one.committed(0 as Instant, totalMs);
    assert.deepEqual(periodic.waits, atOnce.waits);
    assert.deepEqual([atOnce.isTooSoon(1 as Instant), periodic.isTooSoon(1 as Instant)], [false, true]);
  }
});

test('data waits as long as a checkpoint costs, smoothed and within waitMsMin and waitMsMax', () => {
  const one = new CheckpointPolicy(LIMITS);
  assert.equal(one.waits.dataMs, 10);
  one.committed(0 as Instant, 90);
  assert.equal(one.waits.dataMs, 20, 'an eighth of the way from 10 to 90');
  for (let i = 0; i < 100; i++) one.committed(i as Instant, 50);
  assert.ok(Math.abs(one.waits.dataMs - 50) < 0.1);
  for (let i = 0; i < 100; i++) one.committed(i as Instant, 10_000);
  assert.equal(one.waits.dataMs, 100);
  for (let i = 0; i < 200; i++) one.committed(i as Instant, 0);
  assert.equal(one.waits.dataMs, 10);
});

test('an ACK waits longer than data, data of an SVM that works until waitMsMax, and SVM output longest', () => {
  const one = policy();
  assert.deepEqual(one.waits, { dataMs: 10, ackMs: 60, owedMs: 1000, secondaryMs: 2000, workMs: 100 });
  for (let i = 0; i < 100; i++) one.committed(i as Instant, 10_000);
  assert.deepEqual(one.waits, { dataMs: 100, ackMs: 100, owedMs: 1000, secondaryMs: 2000, workMs: 100 });
});

test('a divergence of a delayed flow waits for its interval since the last commit; one of another flow does not', () => {
  const one = policy();
  one.diverged(differing('diverged-length'), 500);
  assert.equal(one.due(499 as Instant, null, null), null);
  assert.equal(one.due(499 as Instant, null, 'limit-frames'), 'limit-frames');
  assert.equal(one.due(499 as Instant, 'wait-primary', null), 'wait-primary');
  assert.equal(one.due(500 as Instant, null, null), 'diverged-length');
  one.diverged(differing('diverged-flags'), 200);
  assert.equal(one.due(199 as Instant, null, null), null);
  assert.equal(one.due(200 as Instant, null, null), 'diverged-flags', 'the one that waits least');
  one.diverged(differing('diverged-bytes'));
  assert.equal(one.due(1 as Instant, null, null), 'diverged-bytes');
  one.diverged(differing('diverged-length'), 500);
  assert.equal(one.due(1 as Instant, null, null), 'diverged-bytes');
  one.committed(700 as Instant, 20);
  assert.equal(one.divergence, null);
  assert.equal(one.waitsAt(750 as Instant).ranMs, 50);
});

test('a requested checkpoint is due at once', () => {
  assert.equal(policy().due(1 as Instant, null, 'requested'), 'requested');
});
