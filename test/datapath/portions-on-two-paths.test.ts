/** Portions on both nodes' paths: both VMs get the same, through checkpoints and a promotion too. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../src/limits.ts';
import type { Instant } from '../../src/units.ts';
import { udpFrame } from '../frames.ts';
import { keyOfService, TwoPaths } from './two-paths.ts';

/** A protected pair with portions on, whose clients each have a port of their own. */
class Bed extends TwoPaths {
  constructor() {
    super();
    this.checkpoint();
    for (let i = 0; i < 5; i++)
      this.primary.portions.diverged(keyOfService(17, 53), 'order', (this.nowMs + 200 * i) as Instant);
    assert.equal(this.primary.portions.status.state, 'on');
  }

  /** One read of the uplink; a text's first letter is its client. */
  input(...texts: string[]): void {
    this.client.write(...texts.map(frameOf));
    this.settle();
  }

  /** Both VMs have worked, and sleep for a moment. */
  sleep(): void {
    this.asleep.svm = true;
    this.asleep.pvm = true;
    this.pass(10);
    this.asleep.svm = false;
    this.asleep.pvm = false;
  }

  /** What both VMs got since the last call, which must be the same. */
  given(): string[] {
    const pvm = this.pvm.received();
    assert.deepEqual(this.svm.received(), pvm, 'both VMs get the same');
    return pvm;
  }
}

const frameOf = (text: string) =>
  udpFrame({ sourcePort: 5000 + text.charCodeAt(0), payload: Buffer.from(text, 'latin1') });

test('the SVM’s sleep is notified over the link, and ends a portion with the PVM’s', () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  assert.deepEqual(bed.given(), []);
  bed.asleep.pvm = true;
  bed.pass(20);
  assert.deepEqual(bed.given(), [], 'the SVM works');
  bed.asleep.svm = true;
  bed.pass(10);
  assert.deepEqual(bed.given(), ['a1', 'b1']);
  bed.asleep.pvm = false;
  bed.asleep.svm = false;
  bed.pass(1);
  bed.input('a2');
  bed.asleep.svm = true;
  bed.pass(20);
  assert.deepEqual(bed.given(), [], 'the PVM works');
  bed.asleep.pvm = true;
  bed.pass(10);
  assert.deepEqual(bed.given(), ['a2']);
  bed.assertNoLeak();
});

test('a checkpoint in the middle of a portion neither ends it nor loses what waits', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.input('b1');
  bed.checkpoint();
  assert.deepEqual(bed.given(), ['a1']);
  bed.input('c1');
  assert.deepEqual(bed.given(), []);
  bed.sleep();
  assert.deepEqual(bed.given(), ['b1', 'c1']);
  bed.assertNoLeak();
});

test('sleep that was notified before a checkpoint does not count after it', () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  bed.asleep.svm = true;
  bed.pass(10);
  bed.asleep.svm = false;
  bed.checkpoint();
  bed.asleep.pvm = true;
  bed.pass(10);
  assert.deepEqual(bed.given(), []);
  bed.asleep.svm = true;
  bed.pass(10);
  assert.deepEqual(bed.given(), ['a1', 'b1']);
  bed.assertNoLeak();
});

test('output that the SVM sends arrives before the news of its sleep', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  assert.deepEqual(bed.given(), ['a1']);
  bed.input('b1');
  bed.pvm.send('answer');
  bed.asleep.pvm = true;
  bed.pass(5);
  bed.svm.send('answer');
  bed.asleep.svm = true;
  bed.pass(10);
  assert.deepEqual(bed.given(), ['b1']);
  assert.equal(bed.primary.comparator.primary.frames, 0, 'it has matched');
  bed.assertNoLeak();
});

test('input that waits when the primary dies reaches the promoted VM, once and in order', () => {
  const bed = new Bed();
  const send = (...texts: string[]) => {
    bed.secondaryNetwork.write(...texts.map(frameOf));
    bed.input(...texts);
  };
  send('a1');
  bed.sleep();
  send('b1', 'a2');
  bed.pass(LIMITS.portionMsMax / 2);
  send('c1');
  assert.deepEqual(bed.svm.received(), ['a1']);
  const { deliveredFrames } = bed.promote(() => {});
  bed.settle();
  assert.equal(deliveredFrames, 3);
  assert.deepEqual(bed.svm.received(), ['b1', 'a2', 'c1']);
  bed.assertNoLeak();
});

test('a VM that goes alone gets what waits', () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  bed.primary.goAlone(2);
  bed.settle();
  assert.deepEqual(bed.pvm.received(), ['a1', 'b1']);
  bed.input('c1', 'd1');
  assert.deepEqual(bed.pvm.received(), ['c1', 'd1']);
  bed.assertNoLeak();
});

test('a secondary that cannot see its VM says so, and input is not kept waiting', () => {
  const bed = new Bed();
  bed.blindness.svm = 'hidepid';
  bed.input('a1', 'b1');
  bed.settle();
  assert.deepEqual(bed.given(), ['a1', 'b1']);
  assert.equal(bed.primary.portions.status.blindness, 'hidepid');
  bed.input('c1', 'd1');
  assert.deepEqual(bed.given(), ['c1', 'd1']);
  bed.assertNoLeak();
});

test('held output waits for an SVM that works, and not for one that sleeps', () => {
  const waits = { dataMs: 20, ackMs: 300, owedMs: 1000, secondaryMs: 2000, workMs: 200 };
  for (const [vm, waitedMs] of [
    ['works', 200],
    // The question, its way, and the cost of a checkpoint.
    ['sleeps', 31],
  ] as const) {
    const bed = new Bed();
    bed.asleep.svm = vm === 'sleeps';
    bed.pvm.send('answer');
    bed.settle();
    const sinceMs = bed.nowMs;
    while (bed.primary.overdue(bed.nowMs as Instant, waits) === null) bed.pass(1);
    assert.equal(bed.nowMs - sinceMs, waitedMs, `an SVM that ${vm}`);
    bed.assertNoLeak();
  }
});
