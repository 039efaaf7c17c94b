/** The lanes against the general way: the same frames to a comparator with the lanes and to one without. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STEP } from '../../../src/compare/comparator.ts';
import type { Instant } from '../../../src/units.ts';
import { PACKET, PacketView, parsePacket } from '../../../src/wire/packet.ts';
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

/** Two VMs that send plain data, and cut it differently. */
const CUT: Theme = { ...PLAIN, acks: true, pureAcks: true, flowsMax: 2 };
const SEED = Number(process.env.COLO_LANES_SEED ?? 1);
const CASES = Number(process.env.COLO_LANES ?? 900);

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

test('with the lanes and without, random traffic has the same releases, verdicts, confirms and waits', () => {
  let matched = 0;
  for (let seed = SEED; seed < SEED + CASES; seed++) {
    const theme = [randomTheme, () => IN_STEP, () => CUT][seed % 3];
    const two = play(seed, theme, (dice, frame) => withOtherWindow(dice, frame));
    matched += two.lane.comparator.counters.matched;
    two.close();
  }
  assert.ok(matched > 1.5 * CASES, `only ${matched} frames matched`);
});

test('so has traffic with hostile frames in it, and frames with changed bytes', () => {
  for (let seed = SEED; seed < SEED + CASES / 3; seed++) {
    const two = play(seed, seed % 2 === 0 ? () => CUT : randomTheme, (dice, frame) => {
      if (dice.chance(8)) return mutate(dice, frame);
      return dice.chance(8) ? hostileFrame(dice) : frame;
    });
    two.close();
  }
});

/** Now and then, another window in a TCP segment. */
function withOtherWindow(dice: Dice, frame: Buffer): Buffer {
  const view = new PacketView();
  if (!dice.chance(3) || parsePacket(frame, 0, frame.length, view) !== PACKET.tcp) return frame;
  const changed = Buffer.from(frame);
  changed.writeUInt16BE(dice.roll(1000), view.l4 + 14);
  return changed;
}

test('a PVM segment that queued SVM segments have together is never held', () => {
  const two = new TwoRigs();
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  two.pvm(synAck);
  two.svm(synAck);
  for (const [seq, text] of [
    [1001, 'ab'],
    [1003, 'cde'],
    [1006, 'fgh'],
  ] as const)
    two.svm(tcp({ seq, ack: 501, text }));
  const { lane } = two;
  two.pvm(tcp({ seq: 1001, ack: 501, text: 'abcd' }));
  assert.equal(lane.held, 0);
  assert.equal(lane.comparator.secondary.frames, 2, 'the first SVM segment is done with');
  two.pvm(tcp({ seq: 1005, ack: 501, text: 'efgh' }));
  lane.assertConfirmed(4);
  two.close();
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
  const frame = tcp({ seq: 1001, ack: 501, text: 'both' });
  rig.confirmed.length = 0;
  assert.equal(rig.pairOff(frame, frame, 77), STEP.matched);
  assert.deepEqual(rig.confirmed, [77]);
  rig.assertEmpty();
});

test('without the lanes, frames that could pair off go the general way', () => {
  const rig = new Rig(2048, 16, {}, 'plain', 'no-lane');
  const frame = tcp({ seq: 1, ack: 1, text: 'x' });
  assert.equal(rig.pairOff(frame, frame), STEP.bothAlone, 'both must be handed in');
  assert.equal(rig.pvm(frame), 0);
  assert.equal(rig.svm(frame), 1);
});
