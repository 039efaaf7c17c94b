/** The client is told the lesser of both VMs' ACKs and windows (src/compare/ack-rule.ts, rules/tcp-exit.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instant } from '../../src/units.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import {
  ACK,
  CLIENT_ADDRESS,
  internetChecksum,
  PSH,
  padded,
  SYN,
  sack,
  timestamps,
  u16,
  VM_ADDRESS,
} from '../frames.ts';
import { Rig, tcp } from './rig.ts';

const VM = 1001;
const CLIENT = 501;
const SCALE = [3, 3, 7, 1];

/** A connection whose windows are shifted by 7, or not at all; the next byte of the VM is 1001, of the client 501. */
function opened(options: number[] = SCALE): Rig {
  const rig = new Rig();
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: CLIENT, window: 0xffff, options });
  assert.equal(rig.pvm(synAck), 0);
  assert.equal(rig.svm(synAck), 1);
  rig.released.length = 0;
  return rig;
}

type Told = { seq: number; ack: number; window: number; bytes: number; cause: string };

/** Takes the frames that have left; their checksums are right. */
function left(rig: Rig): Told[] {
  return rig.released.splice(0).map(({ bytes, cause }) => {
    assertChecksums(bytes);
    const view = new PacketView();
    assert.equal(parsePacket(bytes, 0, bytes.length, view), PACKET.tcp);
    const { seq, ack, tcpWindow, payloadBytes } = view;
    return { seq: seq >>> 0, ack: ack >>> 0, window: tcpWindow, bytes: payloadBytes, cause };
  });
}

function assertChecksums(frame: Buffer): void {
  const end = 14 + frame.readUInt16BE(16);
  assert.equal(internetChecksum(frame.subarray(14, 34)), 0, 'of the IP header');
  const pseudo = Buffer.concat([frame.subarray(26, 34), u16(6), u16(end - 34)]);
  assert.equal(internetChecksum(pseudo, frame.subarray(34, end)), 0, 'of the segment');
}

const ack = (number: number, window = 1000, more = {}) => tcp({ seq: VM, ack: number, window, ...more });
const told = (number: number, window: number, cause: string) => ({
  seq: VM,
  ack: number,
  window,
  bytes: 0,
  cause,
});

test('an upload of which the SVM lacks the end: the client hears what both have', () => {
  const rig = opened();
  rig.svm(ack(1501));
  for (let i = 0; i < 3; i++) rig.pvm(ack(2001));
  assert.deepEqual(left(rig), [told(1501, 1000, 'match')], 'once: the client would take more for a loss');
  const answer = (number: number) => tcp({ seq: VM, ack: number, window: 1000, text: 'answer' });
  rig.pvm(answer(2001));
  rig.svm(answer(1501));
  assert.deepEqual(left(rig), [{ ...told(1501, 1000, 'match'), bytes: 6 }]);
  rig.svm(tcp({ seq: VM + 6, ack: 2001, window: 1000 }));
  const rest = { ...told(2001, 1000, 'made'), seq: VM + 6 };
  assert.deepEqual(left(rig), [rest, rest, rest], 'as often as the PVM has said it');
  rig.assertConfirmed(4);
  rig.assertEmpty();
});

test('of many repetitions the client hears enough to know of a loss, and no more', () => {
  const rig = opened();
  rig.svm(ack(1501));
  for (let i = 0; i < 100; i++) rig.pvm(ack(2001));
  left(rig);
  rig.svm(ack(2001));
  assert.equal(left(rig).length, 17);
  rig.assertEmpty();
});

test('what a lowered segment left owing comes with a later one, and then not again', () => {
  const rig = opened();
  const answer = (seq: number, number: number) => tcp({ seq, ack: number, window: 1000, text: 'answer' });
  rig.pvm(answer(VM, 700));
  rig.svm(answer(VM, 600));
  rig.pvm(answer(VM + 6, 700));
  rig.svm(answer(VM + 6, 700));
  assert.deepEqual(
    left(rig).map((frame) => [frame.ack, frame.bytes]),
    [
      [600, 6],
      [700, 6],
    ],
  );
  rig.svm(tcp({ seq: VM + 12, ack: 700 }));
  assert.deepEqual(left(rig), []);
  rig.assertEmpty();
});

test('the SVM may say in a data segment that it has caught up', () => {
  const rig = opened();
  rig.pvm(tcp({ seq: VM, ack: 700, flags: ACK | PSH, text: 'abc' }));
  rig.svm(tcp({ seq: VM, ack: 600, text: 'abc' }));
  rig.svm(tcp({ seq: VM + 3, ack: 700, text: 'not sent by the PVM' }));
  assert.deepEqual(
    left(rig).map((frame) => [frame.seq, frame.ack, frame.bytes]),
    [
      [VM, 600, 3],
      [VM + 3, 700, 0],
    ],
  );
  rig.commit();
  rig.assertEmpty();
});

test('a checkpoint tells the client what it is owed', () => {
  const rig = opened();
  rig.pvm(ack(700));
  rig.svm(ack(600));
  assert.equal(rig.comparator.releasedWithoutMatch, 0);
  assert.equal(rig.commit(), 1);
  assert.deepEqual(left(rig), [told(600, 1000, 'made'), told(700, 1000, 'made')]);
  assert.equal(rig.comparator.releasedWithoutMatch, 1, 'only the PVM has said it');
  rig.assertEmpty();
  rig.pvm(ack(700));
  assert.deepEqual(left(rig), [told(700, 1000, 'repeat')], 'the SVM is a copy now');
});

test('the window ends where the first of both ends', () => {
  const rig = opened();
  rig.svm(ack(600, 50));
  rig.pvm(ack(600, 80));
  assert.deepEqual(left(rig), [told(600, 50, 'match')]);
  // The SVM is ahead by 256 bytes, two units: its edge is two units further from the PVM's ACK.
  rig.svm(ack(1112, 50));
  rig.pvm(ack(856, 80));
  assert.deepEqual(left(rig), [told(856, 52, 'match')]);
  // The PVM is ahead, and its edge is the earlier one.
  rig.pvm(ack(1368, 40));
  assert.deepEqual(left(rig), [told(1112, 42, 'match')]);
});

test('where the shift is not known, the window is rather too small', () => {
  const rig = new Rig();
  rig.pvm(tcp({ seq: VM, ack: 600, window: 80 }));
  rig.svm(ack(700, 50));
  assert.deepEqual(left(rig), [told(600, 50, 'match')]);
});

test('a connection without scaling has the windows in bytes', () => {
  const rig = opened([]);
  rig.svm(ack(800, 500));
  rig.pvm(ack(600, 900));
  assert.deepEqual(left(rig), [told(600, 700, 'match')]);
});

test('the window of a SYN is the lesser too, and is not shifted', () => {
  const rig = new Rig();
  const synAck = (window: number) =>
    tcp({ flags: SYN | ACK, seq: 1000, ack: CLIENT, window, options: SCALE });
  rig.pvm(synAck(60_000));
  rig.svm(synAck(30_000));
  rig.pvm(ack(CLIENT, 400));
  assert.deepEqual(
    left(rig).map(({ window }) => window),
    [30_000, 30_000 >> 7],
  );
});

test('a repeated SYN leaves with no more room than the SVM has', () => {
  const rig = new Rig();
  const synAck = (window: number) =>
    tcp({ flags: SYN | ACK, seq: 1000, ack: CLIENT, window, options: SCALE });
  rig.pvm(synAck(60_000));
  rig.svm(synAck(12_800));
  rig.pvm(synAck(60_000));
  assert.deepEqual(
    left(rig).map(({ window }) => window),
    [12_800, 12_800],
  );
});

test('data that pair off leave with the lesser window', () => {
  for (const pvmFirst of [true, false]) {
    const rig = opened();
    const data = (window: number) => tcp({ seq: VM, ack: CLIENT, window, text: 'both' });
    if (pvmFirst) rig.pvm(data(300));
    rig.svm(data(200));
    if (!pvmFirst) rig.pvm(data(300));
    assert.deepEqual(left(rig), [{ ...told(CLIENT, 200, 'match'), bytes: 4 }]);
    rig.assertEmpty();
  }
});

test('a window that was held small for the SVM is opened as soon as the SVM opens its own', () => {
  const rig = opened();
  rig.svm(ack(600, 0));
  rig.pvm(ack(600, 400));
  assert.deepEqual(left(rig), [told(600, 0, 'match')]);
  rig.svm(ack(600, 30));
  assert.deepEqual(left(rig), [told(600, 30, 'made')]);
  rig.svm(ack(600, 40));
  assert.deepEqual(left(rig), [], 'not worth a segment');
  rig.svm(ack(600, 300));
  assert.deepEqual(left(rig), [told(600, 300, 'made')]);
  rig.assertEmpty();
});

test('a window that stays small is no reason for a checkpoint', () => {
  const rig = opened();
  rig.svm(ack(600, 10));
  rig.pvm(ack(600, 400));
  const limits = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };
  assert.equal(rig.comparator.overdue(1e9 as never, limits), null);
});

test('a window that stays closed is one: the client waits for the SVM alone', () => {
  const limits = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };
  const overdue = (rig: Rig) => rig.comparator.overdue(rig.nowMs as Instant, limits);
  const rig = opened();
  rig.svm(ack(600, 0));
  rig.pvm(ack(600, 400));
  rig.nowMs = 999;
  assert.equal(overdue(rig), null);
  // It replies to the client's probes.
  for (; overdue(rig) === null && rig.nowMs < 9999; rig.nowMs += 500) rig.svm(ack(600, 0));
  assert.equal(rig.nowMs, 4999, 'one second after it stopped counting as alive');
  rig.svm(ack(600, 10));
  assert.equal(overdue(rig), null);
  rig.pvm(ack(600, 0));
  rig.assertEmpty();
});

test('without room to record what is owed, the client is told the window that it would not hear of later', () => {
  const rig = new Rig(2048, 64, { owedAcksMax: 1 });
  const to = (destinationPort: number, number: number, window: number) =>
    tcp({ seq: VM, ack: number, window, destinationPort });
  rig.pvm(to(1, 700, 100));
  rig.svm(to(1, 600, 100));
  left(rig);
  rig.svm(to(2, 600, 0));
  rig.pvm(to(2, 600, 400));
  assert.deepEqual(left(rig), [told(600, 400, 'match')]);
  rig.svm(to(3, 600, 300));
  rig.pvm(to(3, 600, 400));
  assert.deepEqual(left(rig), [told(600, 300, 'match')], 'nothing worth a segment is owed');
});

test('while the SVM lacks a segment, each of its ACKs reaches the client, with its SACK blocks', () => {
  const rig = opened();
  const hole = (edge: number) => ack(600, 1000, { options: padded(sack([[700, edge]])) });
  rig.svm(ack(600));
  rig.pvm(ack(600));
  for (const number of [700, 800, 900, 1000]) rig.pvm(ack(number));
  left(rig);
  for (const edge of [800, 900, 1000]) rig.svm(hole(edge));
  const frames = rig.released.map(({ bytes }) => bytes);
  assert.deepEqual(left(rig), Array(3).fill(told(600, 1000, 'made')));
  assert.deepEqual(frames, [hole(800), hole(900), hole(1000)]);
  rig.svm(ack(1000));
  assert.deepEqual(left(rig), [told(1000, 1000, 'made')]);
  rig.assertConfirmed(6);
  rig.assertEmpty();
});

test('of an SVM’s SACK blocks only those are passed on that the PVM has acknowledged', () => {
  const rig = opened();
  rig.svm(ack(600));
  rig.pvm(ack(700));
  left(rig);
  rig.svm(ack(600, 1000, { options: padded(sack([[650, 800]])) }));
  const [{ bytes }] = rig.released;
  assert.deepEqual([...bytes.subarray(54)], Array(12).fill(1));
  assert.deepEqual(left(rig), [told(600, 1000, 'made')]);
});

test('a lowered segment has no SACK blocks: the SVM lacks what they report', () => {
  const rig = opened();
  const options = padded(sack([[900, 1000]]));
  rig.pvm(tcp({ seq: VM, ack: 700, options, text: 'abc' }));
  rig.svm(tcp({ seq: VM, ack: 600, text: 'abc' }));
  assert.deepEqual([...rig.released[0].bytes.subarray(54, 66)], Array(12).fill(1));
  assert.deepEqual(
    left(rig).map((frame) => frame.ack),
    [600],
  );
});

test('equal duplicate ACKs keep their number, whichever VM is ahead', () => {
  for (const svmFirst of [true, false]) {
    const rig = opened();
    rig.svm(ack(600));
    rig.pvm(ack(600));
    left(rig);
    const say = [() => rig.pvm(ack(600)), () => rig.svm(ack(600))];
    for (let i = 0; i < 3; i++) for (const one of svmFirst ? say.toReversed() : say) one();
    assert.deepEqual(left(rig), Array(3).fill(told(600, 1000, 'repeat')));
  }
});

test('a signed connection is not changed: its segments wait as a whole', () => {
  const rig = new Rig();
  const signature = padded([19, 18, ...Array(16).fill(7)]);
  const data = (number: number, window: number) =>
    tcp({ seq: VM, ack: number, window, options: signature, text: 'signed' });
  rig.pvm(data(700, 80));
  rig.svm(data(600, 50));
  rig.pvm(ack(800, 80, { seq: VM + 6, options: signature }));
  assert.deepEqual(left(rig), []);
  rig.svm(ack(900, 50, { options: signature }));
  assert.deepEqual(
    left(rig).map(({ ack: number, window }) => [number, window]),
    [
      [700, 80],
      [800, 80],
    ],
  );
  rig.commit();
  rig.assertEmpty();
});

test('with no room for what is owed, a segment waits until it can leave whole', () => {
  const rig = new Rig(2048, 64, { owedAcksMax: 1 });
  const data = (destinationPort: number, number: number) =>
    tcp({ seq: VM, ack: number, destinationPort, text: 'data' });
  for (const port of [1, 2]) {
    rig.pvm(data(port, 700));
    rig.svm(data(port, 600));
  }
  assert.deepEqual(
    left(rig).map((frame) => frame.ack),
    [600],
  );
  rig.svm(tcp({ seq: VM + 4, ack: 700, destinationPort: 2 }));
  assert.deepEqual(
    left(rig).map((frame) => frame.ack),
    [700],
  );
  rig.svm(tcp({ seq: VM + 4, ack: 700, destinationPort: 1 }));
  rig.assertEmpty();
});

test('a segment whose headers are too long to be kept waits until it can leave whole', () => {
  for (const [eights, leaves] of [
    [14, 1],
    [15, 0],
  ]) {
    const rig = new Rig();
    const options = { type: 60, bytes: [eights - 1, 1, 8 * eights - 4, ...Array(8 * eights - 4).fill(0)] };
    const addresses = { version: 6 as const, source: VM_ADDRESS[6], destination: CLIENT_ADDRESS[6] };
    const segment = (number: number, text: string) =>
      tcp({ ...addresses, seq: VM, ack: number, text, extensions: [options] });
    rig.pvm(segment(700, 'data'));
    assert.equal(rig.svm(segment(600, 'data')), leaves, `${54 + 8 * eights + 20} bytes`);
    rig.svm(tcp({ ...addresses, seq: VM + 4, ack: 700 }));
    assert.equal(rig.released.length, leaves + 1);
    rig.assertEmpty();
  }
});

test('an ACK that is made has the latest time that has left, as every later one has', () => {
  const rig = new Rig();
  const stamped = (fields: object, time: number) =>
    tcp({ ack: 600, ...fields, options: padded(timestamps(time, 5)) });
  rig.pvm(stamped({ seq: VM, text: 'a', ack: 700 }, 1000));
  rig.svm(stamped({ seq: VM, text: 'a' }, 1030));
  rig.svm(stamped({ seq: VM + 1, ack: 650 }, 1040));
  rig.svm(stamped({ seq: VM + 1, ack: 700 }, 1050));
  const times = rig.released.map(({ bytes }) => bytes.readUInt32BE(56));
  assert.deepEqual(times, [1000, 1000, 1000], 'never one that the PVM has not sent');
  assert.deepEqual(
    left(rig).map((frame) => frame.ack),
    [600, 650, 700],
  );
});
