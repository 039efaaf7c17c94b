/** What a PVM segment acknowledges does not wait with its bytes (releaseHeldAcks in src/compare/rules/tcp-exit.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instant } from '../../src/units.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import { ACK, FIN, padded, RST, timestamps, URG } from '../frames.ts';
import { opened, type Rig, tcp } from './rig.ts';

const VM = 1001;

/** Lets time pass; returns what has left since: place, ACK, window, bytes and why. */
function after(rig: Rig, ms: number): string[] {
  rig.nowMs += ms;
  rig.comparator.releaseDue(rig.nowMs as Instant);
  return rig.released.splice(0).map(({ bytes, cause }) => {
    const view = new PacketView();
    assert.equal(parsePacket(bytes, 0, bytes.length, view), PACKET.tcp);
    return `${view.seq} ${view.ack} ${view.tcpWindow} ${view.payloadBytes} ${cause}`;
  });
}

function begun(): Rig {
  const rig = opened();
  rig.released.length = 0;
  return rig;
}

const answer = (seq: number, ack: number, window = 1000, more = {}) =>
  tcp({ seq, ack, window, text: 'answer', ...more });
const bare = (ack: number, window = 1000, seq = VM) => tcp({ seq, ack, window });

test('the ACK of an answer that the SVM does not send leaves by itself, whichever VM acknowledges first', () => {
  for (const svmFirst of [true, false]) {
    const rig = begun();
    if (svmFirst) rig.svm(bare(700));
    rig.pvm(answer(VM, 700));
    if (!svmFirst) rig.svm(bare(700));
    assert.deepEqual(after(rig, 10), [], 'the answer may still come in time');
    assert.deepEqual(after(rig, 20), [`${VM} 700 1000 0 made`]);
    assert.deepEqual(after(rig, 1000), [], 'once');
    rig.svm(answer(VM, 700));
    assert.deepEqual(after(rig, 0), [`${VM} 700 1000 6 match`]);
    rig.assertConfirmed(3);
    rig.assertEmpty();
  }
});

test('the lesser of both ACKs leaves, and the rest as soon as the SVM says it', () => {
  const rig = begun();
  rig.pvm(answer(VM, 700));
  rig.svm(bare(600));
  assert.deepEqual(after(rig, 30), [`${VM} 600 1000 0 made`]);
  rig.svm(bare(700));
  assert.deepEqual(after(rig, 0), [`${VM} 700 1000 0 made`]);
  rig.svm(answer(VM, 700));
  rig.assertEmpty();
});

test('of many segments that wait, the latest ACK leaves, wherever it stands', () => {
  const rig = begun();
  for (let i = 0; i < 4; i++) rig.pvm(answer(VM + 6 * i, 600 + 10 * i));
  // A retransmission: it stands before those that were sent earlier.
  rig.pvm(answer(VM, 690));
  rig.svm(bare(900));
  assert.deepEqual(after(rig, 30), [`${VM} 690 1000 0 made`]);
  assert.deepEqual(after(rig, 30), []);
});

test('an answer that pairs off leaves the ACK of the next one behind', () => {
  const rig = begun();
  rig.pvm(answer(VM, 510));
  rig.pvm(answer(VM + 6, 700));
  rig.svm(answer(VM, 700));
  assert.deepEqual(after(rig, 0), [`${VM} 510 1000 6 match`]);
  assert.deepEqual(after(rig, 30), [`${VM + 6} 700 1000 0 made`]);
});

test('a window that has opened in both VMs does not wait for bytes', () => {
  const rig = begun();
  rig.svm(bare(600, 0));
  rig.pvm(bare(600, 0));
  rig.pvm(answer(VM, 600, 4));
  assert.deepEqual(after(rig, 30), [`${VM} 600 0 0 match`]);
  rig.svm(bare(600, 900));
  assert.deepEqual(after(rig, 30), [`${VM} 600 4 0 made`], 'a small one is more than none');
});

test('an earlier window is not told after a later one', () => {
  const rig = begun();
  rig.svm(bare(900, 1000));
  rig.pvm(answer(VM, 600, 1000));
  rig.pvm(bare(900, 100, VM + 6));
  assert.deepEqual(after(rig, 30), [`${VM} 900 100 0 match`]);
});

test('a FIN waits, and its ACK does not', () => {
  const rig = begun();
  rig.pvm(tcp({ seq: VM, ack: 700, flags: ACK | FIN, window: 1000 }));
  rig.svm(bare(700));
  assert.deepEqual(after(rig, 30), [`${VM} 700 1000 0 made`]);
  assert.equal(rig.released.length, 0);
  rig.svm(tcp({ seq: VM, ack: 700, flags: ACK | FIN, window: 1000 }));
  rig.assertEmpty();
});

test('what is held behind an RST stays', () => {
  const rig = begun();
  rig.svm(bare(700));
  rig.pvm(tcp({ seq: VM, ack: 700, flags: ACK | RST }));
  rig.pvm(answer(VM, 700));
  assert.deepEqual(after(rig, 30), []);
});

test('the segment itself leaves with no earlier time than its ACK had', () => {
  const rig = begun();
  const stamped = (seq: number, ack: number, time: number) =>
    answer(seq, ack, 1000, { options: padded(timestamps(time, 5)) });
  rig.pvm(stamped(VM, 600, 1000));
  rig.pvm(stamped(VM + 6, 700, 1010));
  rig.svm(bare(700));
  after(rig, 30);
  rig.svm(answer(VM, 700));
  const [{ bytes }] = rig.released;
  assert.equal(bytes.readUInt32BE(54 + 2), 1010);
});

test('with no memory for it, an ACK is owed until there is some', () => {
  const rig = begun();
  rig.svm(bare(600));
  rig.pvm(bare(700));
  assert.deepEqual(after(rig, 0), [`${VM} 600 1000 0 match`]);
  assert.equal(rig.comparator.ownSlabs, 0);
  const taken = Array.from({ length: 1023 }, () => rig.pool.acquire());
  rig.svm(bare(700));
  assert.deepEqual(after(rig, 0), []);
  for (const slab of taken) rig.pool.unref(slab);
  rig.svm(bare(700));
  assert.deepEqual(after(rig, 0), [`${VM} 700 1000 0 made`]);
  rig.assertEmpty();
});

test('an urgent segment of the SVM may say that it has caught up', () => {
  const rig = begun();
  rig.svm(bare(600));
  rig.pvm(bare(700));
  rig.svm(tcp({ seq: VM, ack: 700, window: 1000, flags: ACK | URG, urgent: 1, text: 'u' }));
  assert.deepEqual(after(rig, 0), [`${VM} 600 1000 0 match`, `${VM} 700 1000 0 made`]);
});
