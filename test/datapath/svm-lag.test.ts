import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LAG_SAMPLES, SvmLag } from '../../src/datapath/svm-lag.ts';
import type { Instant } from '../../src/units.ts';
import { Rig, udp } from '../compare/rig.ts';
import { TwoPaths } from './two-paths.ts';

function protectedPair(): TwoPaths {
  const pair = new TwoPaths();
  pair.checkpoint();
  return pair;
}

/** One frame of each VM, the second one `lagMs` after the first. */
function reply(pair: TwoPaths, text: string, lagMs: number): void {
  const [first, second] = lagMs < 0 ? [pair.svm, pair.pvm] : [pair.pvm, pair.svm];
  first.send(text);
  pair.settle();
  pair.nowMs += Math.abs(lagMs);
  second.send(text);
  pair.settle();
}

test('an SVM that is late has a lag above zero, one that is ahead below zero', () => {
  const pair = protectedPair();
  assert.deepEqual(pair.primary.lag.quantiles(), { p50: null, p99: null });
  for (let i = 0; i < 99; i++) reply(pair, `late ${i}`, 3.5);
  reply(pair, 'very late', 40);
  assert.deepEqual(pair.primary.lag.quantiles(), { p50: 3.5, p99: 3.5 });
  for (let i = 0; i < LAG_SAMPLES; i++) reply(pair, `ahead ${i}`, -2);
  assert.deepEqual(pair.primary.lag.quantiles(), { p50: -2, p99: -2 });
  pair.assertNoLeak();
});

test('what a checkpoint releases is no sample, unless it was overdue: then the SVM is at least as late', () => {
  const pair = protectedPair();
  pair.pvm.send('differs');
  pair.settle();
  pair.nowMs += 15;
  pair.checkpoint();
  assert.equal(pair.primary.lag.quantiles().p50, null);
  pair.pvm.send('without counterpart');
  pair.settle();
  pair.nowMs += 25;
  const waits = { dataMs: 20, ackMs: 300, owedMs: 1000, secondaryMs: 2000, workMs: 20 };
  assert.equal(pair.primary.overdue(pair.nowMs as Instant, waits), 'wait-primary');
  pair.checkpoint();
  assert.deepEqual(pair.primary.lag.quantiles(), { p50: 25, p99: 25 });
  pair.assertNoLeak();
});

test('several frames that wait give one sample for each batch that releases the oldest', () => {
  const pair = protectedPair();
  for (const text of ['1', '2', '3']) {
    pair.pvm.send(text);
    pair.settle();
    pair.nowMs += 1;
  }
  pair.svm.send('1', '2');
  pair.settle();
  pair.nowMs += 10;
  pair.svm.send('3');
  pair.settle();
  assert.deepEqual(pair.primary.lag.quantiles(), { p50: 3, p99: 11 });
});

test('a frame in the row of the one that was oldest before is another one, with a wait of its own', () => {
  const rig = new Rig();
  const lag = new SvmLag(rig.comparator);
  const batchEnd = () => lag.batchEnd(rig.nowMs as Instant);
  rig.pvm(udp('first'));
  batchEnd();
  rig.nowMs = 10;
  rig.svm(udp('first'));
  rig.svm(udp('in the row of its counterpart', 9));
  rig.pvm(udp('second'));
  batchEnd();
  assert.deepEqual(lag.quantiles(), { p50: 10, p99: 10 });
  rig.nowMs = 12;
  rig.svm(udp('second'));
  batchEnd();
  assert.deepEqual(lag.quantiles(), { p50: 2, p99: 10 });
});

test('released frames are counted by their cause, and the counts add up', () => {
  const pair = new TwoPaths();
  pair.pvm.send('before the pair');
  pair.settle();
  pair.checkpoint();
  pair.pvm.send('both');
  pair.svm.send('both');
  pair.settle();
  pair.pvm.send('only one', 'only two');
  pair.settle();
  pair.checkpoint();
  pair.primary.goAlone(2);
  pair.pvm.send('after the pair');
  pair.settle();
  const by = pair.primary.releasedBy;
  assert.deepEqual(by, {
    match: 1,
    made: 0,
    repeat: 0,
    harmless: 0,
    exempt: 0,
    commit: 2,
    alone: 2,
    promotion: 0,
  });
  const sum = Object.values(by).reduce((all, count) => all + count, 0);
  assert.equal(sum, pair.primary.counters.releasedFrames);
});
