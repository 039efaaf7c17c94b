import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CheckpointPolicy } from '../../src/checkpoint/policy.ts';
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
