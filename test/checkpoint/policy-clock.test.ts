import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CheckpointPolicy } from '../../src/checkpoint/policy.ts';
import { PolicyClock } from '../../src/checkpoint/policy-clock.ts';
import type { Overdue, Pressure } from '../../src/compare/comparator.ts';
import { differing } from '../divergence/differing.ts';
import { FakeTime } from './fake-time.ts';

class Rig {
  readonly time = new FakeTime();
  readonly pacing = { isPeriodic: false };
  readonly policy = new CheckpointPolicy(
    { intervalMsMax: 60_000, waitMsMin: 5, waitMsMax: 50, ackWaitMsMax: 50 },
    this.pacing,
  );
  readonly started: string[] = [];
  readonly asked: number[] = [];
  readonly questionsAt: number[] = [];
  readonly overdueAskedAt: number[] = [];
  overdue: Overdue = null;
  pressure: Pressure = null;
  idle = false;
  may = true;
  onStart = (): void => {};
  readonly policyClock = new PolicyClock({
    policy: this.policy,
    output: {
      releaseDue: (nowMs) => this.questionsAt.push(nowMs),
      overdue: (nowMs) => {
        this.overdueAskedAt.push(nowMs);
        return this.overdue;
      },
      pressure: () => this.pressure,
    },
    isIdle: () => this.idle,
    mayStart: (nowMs) => {
      this.asked.push(nowMs);
      return this.may;
    },
    start: (reason, nowMs) => {
      this.started.push(`${reason} at ${nowMs}`);
      this.may = false;
      this.onStart();
    },
    clock: this.time,
    timers: this.time,
  });
}

test('the policy is asked at once and every 2 ms, or every 20 ms while no output is held', async () => {
  const rig = new Rig();
  rig.policyClock.run();
  assert.deepEqual(rig.asked.splice(0), [0]);
  await rig.time.pass(6);
  assert.deepEqual(rig.asked.splice(0), [2, 4, 6]);
  rig.idle = true;
  await rig.time.pass(42);
  assert.deepEqual(rig.asked, [8, 28, 48]);
});

test('questions of the SVM are released while no checkpoint may start, too', async () => {
  const rig = new Rig();
  rig.may = false;
  rig.policyClock.run();
  await rig.time.pass(4);
  assert.deepEqual(rig.questionsAt, [0, 2, 4]);
});

test('a checkpoint starts for the policy’s reason once mayStart allows it', async () => {
  const rig = new Rig();
  rig.policyClock.run();
  rig.may = false;
  rig.overdue = 'wait-primary';
  await rig.time.pass(4);
  assert.deepEqual(rig.started, []);
  rig.may = true;
  await rig.time.pass(2);
  assert.deepEqual(rig.started, ['wait-primary at 6']);
});

test('until the period is over nobody asks what is overdue, and what waits for a time leaves', async () => {
  const rig = new Rig();
  rig.pacing.isPeriodic = true;
  rig.overdue = 'wait-primary';
  rig.policy.committed(rig.time.now(), 7);
  rig.policyClock.run();
  await rig.time.pass(10);
  assert.deepEqual(rig.questionsAt, [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(rig.overdueAskedAt, [8]);
  assert.deepEqual(rig.started, ['wait-primary at 8']);
});

test('a difference is due at the end of the period, though no output was held before', async () => {
  const rig = new Rig();
  rig.pacing.isPeriodic = true;
  rig.idle = true;
  rig.policy.committed(rig.time.now(), 9);
  rig.policyClock.run();
  await rig.time.pass(3);
  rig.idle = false;
  rig.policy.diverged(differing('diverged-bytes'));
  rig.policyClock.hurry();
  rig.time.turn();
  await rig.time.pass(10);
  assert.deepEqual(rig.started, ['diverged-bytes at 9']);
});

test('hurry asks the policy once when the current events have been handled', () => {
  const rig = new Rig();
  rig.policy.diverged(differing('diverged-bytes'));
  rig.policyClock.hurry();
  rig.policyClock.hurry();
  assert.deepEqual(rig.started, []);
  rig.time.turn();
  assert.deepEqual(rig.started, ['diverged-bytes at 0']);
  rig.may = true;
  rig.policyClock.hurry();
  rig.time.turn();
  assert.equal(rig.started.length, 2);
});

test('a stopped clock asks the policy no more, even if a question was due', async () => {
  const rig = new Rig();
  rig.policy.diverged(differing('diverged-bytes'));
  rig.policyClock.hurry();
  rig.policyClock.stop();
  await rig.time.pass(50);
  rig.policyClock.hurry();
  rig.policyClock.run();
  assert.deepEqual([rig.asked, rig.time.waiting], [[], 0]);

  // The checkpoint that it starts may stop it.
  const ends = new Rig();
  ends.onStart = () => ends.policyClock.stop();
  ends.policy.diverged(differing('diverged-bytes'));
  ends.policyClock.run();
  assert.deepEqual([ends.started.length, ends.time.waiting], [1, 0]);
});
