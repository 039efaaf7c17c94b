/** When a VM that is watched is looked at, and what counts as sleep. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SleepWatch } from '../../src/datapath/sleep-watch.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

class Bed {
  readonly time = new FakeTime();
  readonly vm = { drained: true, exhausted: true, rests: false, blindness: null as string | null };
  sleeps = 0;
  readonly watch: SleepWatch;

  constructor() {
    this.watch = new SleepWatch({
      port: this.vm,
      sight: () => ({ isAsleep: () => this.vm.rests, blindness: () => this.vm.blindness }),
      clock: this.time,
      timers: this.time,
      asleep: () => {
        this.sleeps++;
      },
    });
  }
}

test('a VM that sleeps already is seen at once, and once', async () => {
  const bed = new Bed();
  bed.vm.rests = true;
  bed.watch.begin();
  assert.equal(bed.sleeps, 1);
  await bed.time.pass(100);
  assert.equal(bed.sleeps, 1);
  assert.equal(bed.watch.looks, 1);
  assert.equal(bed.time.waiting, 0, 'nobody looks at a VM that is not watched');
});

test('input that it has not taken, work, and output that is not read each keep it awake', async () => {
  const bed = new Bed();
  for (const [drained, rests, exhausted] of [
    [false, true, true],
    [true, false, true],
    [true, true, false],
  ]) {
    Object.assign(bed.vm, { drained, rests, exhausted });
    bed.watch.begin();
    await bed.time.pass(50);
    assert.equal(bed.sleeps, 0);
    bed.watch.end();
  }
});

test('a VM that goes to sleep without a word is noticed late by an eighth of its work, and with few looks', async () => {
  for (const workMs of [3, 40, 200]) {
    const bed = new Bed();
    bed.watch.begin();
    await bed.time.pass(workMs);
    bed.vm.rests = true;
    const looks = bed.watch.looks;
    await bed.time.pass(Math.ceil(Math.min(Math.max(1, workMs / 8), 8)));
    assert.equal(bed.sleeps, 1, `after ${workMs} ms of work`);
    assert.ok(looks <= 20 + workMs / 8, `${looks} looks in ${workMs} ms`);
  }
});

test('after output it is looked at in each turn for a moment', async () => {
  const bed = new Bed();
  bed.watch.begin();
  await bed.time.pass(100);
  bed.watch.outputSeen();
  assert.equal(bed.sleeps, 0);
  bed.vm.rests = true;
  bed.time.turn();
  assert.equal(bed.sleeps, 1, 'no time has passed');
});

test('output of a VM that is not watched is no reason to look', async () => {
  const bed = new Bed();
  bed.watch.outputSeen();
  await bed.time.pass(20);
  assert.equal(bed.watch.looks, 0);
  bed.watch.begin();
  bed.watch.end();
  const { looks } = bed.watch;
  bed.vm.rests = true;
  bed.watch.outputSeen();
  await bed.time.pass(20);
  assert.equal(bed.watch.looks, looks);
  assert.equal(bed.sleeps, 0);
});

test('a watch that begins again while a turn is due looks no more often than one', async () => {
  const bed = new Bed();
  for (let i = 0; i < 100; i++) {
    bed.watch.begin();
    bed.watch.end();
  }
  assert.equal(bed.time.waiting, 1);
  await bed.time.pass(5);
  assert.equal(bed.watch.looks, 100);
});
