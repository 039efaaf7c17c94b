/** The lock-step lane against the general way: the same frames to a comparator with the lane and to one without. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instant, SlabId } from '../../../src/units.ts';
import { Dice } from '../../dice.ts';
import { ACK, SYN } from '../../frames.ts';
import { hostileFrame, mutate } from '../../fuzz/hostile.ts';
import { Voice } from '../oracle/script.ts';
import { PLAIN, randomTheme, render, type Theme, traffic } from '../oracle/traffic.ts';
import { Rig, tcp } from '../rig.ts';

/** So that making one costs little. */
const SMALL = { heldFramesMax: 512, flowsMax: 64 };
const WAITS = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };
/** Two VMs in lock-step: one segmentation, nothing lost. */
const IN_STEP: Theme = { ...PLAIN, segmentation: false, acks: true, pureAcks: true, flowsMax: 3 };

class TwoRigs {
  readonly lane = new Rig(2048, 512, SMALL);
  readonly general = new Rig(2048, 512, SMALL, 'plain', 'no-lane');

  pvm(frame: Buffer): void {
    this.both((rig) => rig.pvm(frame));
  }

  svm(frame: Buffer): void {
    this.both((rig) => rig.svm(frame));
  }

  commit(): void {
    this.both((rig) => rig.commit());
  }

  close(): void {
    this.commit();
    this.lane.assertEmpty();
    this.general.assertEmpty();
  }

  private both(act: (rig: Rig) => number): void {
    const { lane, general } = this;
    lane.nowMs = ++general.nowMs;
    assert.equal(act(lane), act(general));
    assert.deepEqual(lane.released, general.released);
    assert.deepEqual(lane.diverged, general.diverged);
    assert.deepEqual(lane.divergedFrames, general.divergedFrames);
    assert.deepEqual(lane.syns, general.syns);
    // Two confirms of one frame may change places.
    assert.deepEqual(sorted(lane.confirmed), sorted(general.confirmed));
    const [one, other] = [lane.comparator, general.comparator];
    assert.deepEqual(one.counters, other.counters);
    assert.deepEqual(
      [one.primary.frames, one.secondary.frames],
      [other.primary.frames, other.secondary.frames],
    );
    assert.equal(one.pressure(), other.pressure());
    for (const laterMs of [WAITS.dataMs, WAITS.ackMs, WAITS.secondaryMs]) {
      const nowMs = (lane.nowMs + laterMs) as Instant;
      assert.equal(one.overdue(nowMs, WAITS), other.overdue(nowMs, WAITS));
    }
    for (const list of [lane.released, general.released]) list.length = 0;
  }
}

const sorted = (numbers: number[]): number[] => [...numbers].sort((a, b) => a - b);

function play(
  seed: number,
  theme: (dice: Dice) => Theme,
  change: (dice: Dice, frame: Buffer) => Buffer,
): TwoRigs {
  const dice = new Dice(seed);
  const two = new TwoRigs();
  for (const step of render(traffic(dice, theme(dice)), new Voice())) {
    if (step.who === 'checkpoint') two.commit();
    else two[step.who](change(dice, step.frame));
  }
  return two;
}

test('with the lane and without, random traffic has the same releases, verdicts, confirms and waits', () => {
  let matched = 0;
  for (let seed = 1; seed <= 600; seed++) {
    const two = play(seed, seed % 2 === 0 ? () => IN_STEP : randomTheme, (_, frame) => frame);
    matched += two.lane.comparator.counters.matched;
    two.close();
  }
  assert.ok(matched > 1000, `only ${matched} frames matched`);
});

test('so has traffic with hostile frames in it, and frames with changed bytes', () => {
  for (let seed = 1; seed <= 300; seed++) {
    const two = play(seed, randomTheme, (dice, frame) => {
      if (dice.chance(8)) return mutate(dice, frame);
      return dice.chance(8) ? hostileFrame(dice) : frame;
    });
    two.close();
  }
});

test('an SVM retransmission that was queued after a segment is confirmed with it', () => {
  const two = new TwoRigs();
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  two.pvm(synAck);
  two.svm(synAck);
  const segment = tcp({ seq: 1001, ack: 501, text: 'sent' });
  two.svm(segment);
  two.svm(tcp({ seq: 1004, ack: 501, text: 't' }));
  two.pvm(segment);
  two.lane.assertConfirmed(3);
  two.close();
});

test('a pair that matches confirms the SVM frame by its index', () => {
  const rig = new Rig();
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  rig.pvm(synAck);
  rig.svm(synAck);
  const slab = rig.place(tcp({ seq: 1001, ack: 501, text: 'both' }));
  const length = tcp({ seq: 1001, ack: 501, text: 'both' }).length;
  const at = rig.prefixBytes;
  rig.confirmed.length = 0;
  assert.equal(rig.comparator.pairOff(slab, at, length, slab as SlabId, at, length, 77, 0 as Instant), 0);
  rig.pool.unref(slab);
  assert.deepEqual(rig.confirmed, [77]);
  rig.assertEmpty();
});

test('without the lane, frames that could pair off go the general way', () => {
  const rig = new Rig(2048, 16, {}, 'plain', 'no-lane');
  const frame = tcp({ seq: 1, ack: 1, text: 'x' });
  const slab = rig.place(frame);
  const at = rig.prefixBytes;
  const step = rig.comparator.pairOff(slab, at, frame.length, slab, at, frame.length, 0, 0 as Instant);
  assert.equal(step, 3, 'both must be handed in');
  rig.pool.unref(slab);
  assert.equal(rig.pvm(frame), 0);
  assert.equal(rig.svm(frame), 1);
});
