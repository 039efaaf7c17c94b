/** For how long held output waits for an SVM that works, sleeps, or cannot be seen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SvmSleep } from '../../src/datapath/svm-sleep.ts';
import { SvmWait } from '../../src/datapath/svm-wait.ts';
import type { Instant } from '../../src/units.ts';

const WAITS = { dataMs: 20, ackMs: 300, owedMs: 1000, secondaryMs: 2000, workMs: 200 };

class Bed {
  asks = 0;
  nowMs = 1000;
  readonly svm = new SvmSleep(() => {
    this.asks++;
  });
  readonly wait = new SvmWait(this.svm);

  /** Output waits from now on until it is taken for a checkpoint: returns after how many ms. `asleepAt`: the SVM is seen asleep then. */
  waitsFor(asleepAt = Number.POSITIVE_INFINITY): number {
    const { svm, wait } = this;
    for (let waitedMs = 0; waitedMs < 5000; waitedMs += 2, this.nowMs += 2) {
      if (waitedMs >= asleepAt) svm.asleep(this.nowMs as Instant);
      if (waitedMs < WAITS.dataMs) wait.waits(waitedMs, WAITS);
      else if (wait.isOver(this.nowMs as Instant, waitedMs, WAITS)) return waitedMs;
    }
    return assert.fail('it waits for ever');
  }
}

test('an SVM that sleeps in silence is waited for as long as a checkpoint costs from then on', () => {
  assert.equal(new Bed().waitsFor(60), 80);
});

test('an SVM that works is waited for until the bound', () => {
  assert.equal(new Bed().waitsFor(), WAITS.workMs);
});

test('an SVM that slept and then sent something, or got more input, has not slept in silence', () => {
  for (const wakes of ['outputSeen', 'forget'] as const) {
    const bed = new Bed();
    bed.svm.ask();
    bed.svm.asleep(bed.nowMs as Instant);
    bed.nowMs += 100;
    bed.svm[wakes]();
    assert.equal(bed.waitsFor(), WAITS.workMs);
  }
});

test('short waits ask nothing', () => {
  const bed = new Bed();
  for (let i = 0; i < 10; i++) bed.wait.waits(9, WAITS);
  assert.equal(bed.asks, 0);
  bed.wait.waits(10, WAITS);
  bed.wait.waits(12, WAITS);
  assert.equal(bed.asks, 1);
});

test('where sleep cannot be seen, the cost of a checkpoint decides', () => {
  const bed = new Bed();
  bed.svm.blindness = 'hidden';
  assert.equal(bed.waitsFor(), WAITS.dataMs);
  assert.equal(bed.asks, 0);
});

test('a guest that never sleeps is waited for less and less, until it is seen asleep', () => {
  const bed = new Bed();
  const waits = () => {
    const ms = bed.waitsFor();
    bed.svm.forget();
    return ms;
  };
  assert.deepEqual([waits(), waits(), waits(), waits(), waits()], [200, 100, 50, 26, 20]);
  bed.svm.ask();
  bed.svm.asleep(bed.nowMs as Instant);
  bed.wait.waits(0, WAITS);
  bed.svm.forget();
  assert.equal(waits(), 200);
});

test('a notification that nobody has asked for, or of an earlier question, counts for nothing', () => {
  const { svm } = new Bed();
  assert.equal(svm.asleep(1000 as Instant), false);
  svm.ask();
  svm.forget();
  assert.equal(svm.asleep(1000 as Instant), false);
  assert.equal(svm.sleptMs(2000 as Instant), 0);
});
