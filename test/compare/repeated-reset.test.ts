/** RSTs of a connection that both VMs have reset: one VM may answer several late segments of the client with one, the other each. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../src/limits.ts';
import { ACK, FIN, RST, SYN, URG } from '../frames.ts';
import { data, flowOf, opened, Rig, tcp } from './rig.ts';

const rst = (seq: number, flags = RST) => tcp({ flags, seq });
const abort = tcp({ flags: RST | ACK, seq: 1006, ack: 501 });

/** Both VMs have sent data and closed, and have then answered the client's late data with an RST. */
function reset(): Rig {
  const rig = opened();
  const last = data(1001, 'done', 501, ACK | FIN);
  rig.pvm(last);
  assert.equal(rig.svm(last), 1);
  assert.equal(rig.pvm(rst(1006)), 0, 'the first one waits for the SVM');
  assert.equal(rig.svm(rst(1006)), 1);
  return rig;
}

/** The PVM's RST waits, and then one of the SVM releases it. */
function assertCompared(rig: Rig, frame = rst(1006)): void {
  assert.equal(rig.pvm(frame), 0, 'an RST of the PVM alone left');
  assert.equal(rig.svm(frame), 1);
  rig.assertEmpty();
}

test('what the PVM repeats leaves without a counterpart, whatever its number', () => {
  const rig = reset();
  for (const seq of [1006, 1006, 900, 0x90000000]) assert.equal(rig.pvm(rst(seq)), 1);
  const { matched, repeated } = rig.comparator.counters;
  assert.deepEqual([matched, repeated], [3, 4]);
  assert.deepEqual(
    rig.released.slice(3).map(({ cause }) => cause),
    ['repeat', 'repeat', 'repeat', 'repeat'],
  );
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('RSTs that wait for the first one of the SVM leave with it', () => {
  const rig = opened();
  const last = data(1001, 'done', 501, ACK | FIN);
  rig.pvm(last);
  rig.svm(last);
  for (let i = 0; i < 3; i++) assert.equal(rig.pvm(rst(1006)), 0);
  assert.equal(rig.svm(rst(1006)), 3);
  rig.assertEmpty();
});

test('what the SVM repeats is confirmed and dropped, whether it comes before or after', () => {
  const late = reset();
  late.svm(rst(1006));
  late.svm(rst(900));
  late.assertConfirmed(5);
  late.assertEmpty();
  const early = opened();
  const last = data(1001, 'done', 501, ACK | FIN);
  early.pvm(last);
  for (const frame of [last, rst(1006), rst(1006), rst(1006)]) early.svm(frame);
  assert.equal(early.pvm(rst(1006)), 1);
  early.assertConfirmed(5);
  early.assertEmpty();
});

test('an RST with an ACK, a SYN, text or an option is compared', () => {
  for (const frame of [
    abort,
    tcp({ flags: RST | SYN, seq: 1006 }),
    tcp({ flags: RST | URG, seq: 1006 }),
    tcp({ flags: RST, seq: 1006, text: 'why' }),
    tcp({ flags: RST, seq: 1006, options: [30, 4, 0x80, 1] }),
  ])
    assertCompared(reset(), frame);
});

test('an RST of the SVM that is dropped is no counterpart of an abort', () => {
  const rig = reset();
  rig.svm(rst(1006));
  assert.equal(rig.pvm(abort), 0);
  assert.equal(rig.svm(abort), 1);
  rig.assertEmpty();
});

test('a SYN of either VM ends it', () => {
  const synAck = tcp({ flags: SYN | ACK, seq: 70_000, ack: 9001 });
  const both = reset();
  both.pvm(synAck);
  assert.equal(both.svm(synAck), 1);
  assertCompared(both, rst(70_001));
  const svmAhead = reset();
  svmAhead.svm(synAck);
  assert.equal(svmAhead.pvm(rst(1006)), 0, 'the SVM has another connection');
  svmAhead.commit();
  svmAhead.assertEmpty();
  const pvmAhead = reset();
  assert.equal(pvmAhead.pvm(synAck), 0);
  assert.equal(pvmAhead.pvm(rst(70_001)), 0, 'an RST overtook a SYN');
  assert.equal(pvmAhead.svm(synAck), 1);
  assert.equal(pvmAhead.svm(rst(70_001)), 1);
  pvmAhead.assertEmpty();
});

test('RSTs of the connection before do not count once the SVM has begun the next', () => {
  const rig = opened();
  const last = data(1001, 'done', 501, ACK | FIN);
  rig.pvm(last);
  for (const frame of [last, rst(1006), tcp({ flags: SYN | ACK, seq: 70_000, ack: 9001 })]) rig.svm(frame);
  assert.equal(rig.pvm(rst(1006)), 1);
  assert.equal(rig.pvm(rst(1006)), 0);
  rig.commit();
  rig.assertEmpty();
});

test('anything but an RST shows that a VM has a connection', () => {
  for (const frame of [data(1006, 'alive'), data(1006, ''), data(1006, '', 501, ACK | FIN)]) {
    const ofSvm = reset();
    ofSvm.svm(frame);
    assert.equal(ofSvm.pvm(rst(1006)), 0, 'the SVM goes on');
    const ofPvm = reset();
    assert.equal(ofPvm.pvm(frame), 0);
    assert.equal(ofPvm.pvm(rst(1006)), 0, 'an RST overtook what is held');
    ofPvm.commit();
    ofPvm.assertEmpty();
    const committed = reset();
    committed.pvm(frame);
    committed.commit();
    assertCompared(committed);
  }
});

test('an RST of a connection that is half open, or not known, proves nothing: the connection may live', () => {
  const halfOpen = opened();
  assertCompared(halfOpen, rst(77));
  assertCompared(halfOpen, rst(77));
  const unknown = new Rig();
  assertCompared(unknown);
  assertCompared(unknown);
});

test('a commit forgets it with the flow; if input of the flow waits, it makes the VMs equal and is like an RST of both', () => {
  const rig = reset();
  rig.commit();
  assert.equal(rig.comparator.flowCount, 0);
  assertCompared(rig);
  const kept = opened();
  const last = data(1001, 'done', 501, ACK | FIN);
  kept.pvm(last);
  kept.svm(last);
  kept.pvm(rst(1006));
  kept.comparator.noteAwaited(flowOf(kept, last), 'awaited');
  assert.equal(kept.commit(), 1);
  assert.equal(kept.pvm(rst(1006)), 1);
  kept.assertEmpty();
});

test('the flow stays known while segments of the client may be under way, and no longer', () => {
  const rig = reset();
  const others = (from: number) => {
    for (let port = from; port < from + 20; port++)
      for (const vm of ['pvm', 'svm'] as const)
        rig[vm](tcp({ flags: RST | ACK, seq: 0, destinationPort: port }));
  };
  rig.nowMs = LIMITS.flowResetMsMin - 1;
  others(5000);
  assert.equal(rig.pvm(rst(1006)), 1);
  rig.nowMs += LIMITS.flowResetMsMin;
  others(6000);
  assertCompared(rig);
});
