import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../src/limits.ts';
import { ACK, arpFrame, ethernet, SYN } from '../frames.ts';
import { echoReply, Rig, tcp, udp } from './rig.ts';

const WAITS = { dataMs: 10, ackMs: 50, secondaryMs: 100 };

test('harmless frames leave at once, and those of the SVM need no keeping', () => {
  const rig = new Rig();
  assert.equal(rig.pvm(arpFrame()), 1);
  assert.equal(rig.released[0].cause, 'harmless');
  rig.svm(arpFrame());
  rig.assertConfirmed(1);
  assert.equal(rig.comparator.flowCount, 0);
  rig.assertEmpty();
});

test('a frame whose lengths lie is dropped and counted, or confirmed', () => {
  const rig = new Rig();
  const short = tcp({ text: 'cut short' }).subarray(0, 40);
  assert.equal(rig.pvm(short), 0);
  assert.equal(rig.comparator.counters.malformed, 1);
  rig.svm(short);
  rig.assertConfirmed(1);
  rig.assertEmpty();
});

test('what nobody knows is compared whole', () => {
  const rig = new Rig();
  const frame = (text: string) => ethernet(0x88b5, Buffer.from(text));
  rig.pvm(frame('same'));
  assert.equal(rig.svm(frame('same')), 1);
  rig.pvm(frame('this'));
  rig.svm(frame('that'));
  assert.deepEqual(rig.diverged, ['diverged-bytes ethertype 0x88b5']);
});

test('a commit releases everything in order of arrival, whatever its flow, and traffic goes on', () => {
  const rig = new Rig();
  const frames = [
    udp('a', 1),
    tcp({ seq: 1, ack: 1, text: 'tcp' }),
    udp('b', 2),
    echoReply(1, 1, 'ping'),
    udp('c', 1),
    tcp({ flags: SYN, sourcePort: 81 }),
    udp('d', 2),
  ];
  for (const frame of frames) rig.pvm(frame);
  rig.svm(udp('other', 3));
  rig.svm(tcp({ seq: 1, ack: 1, text: 'TCP' }));
  assert.equal(rig.commit(), frames.length);
  assert.deepEqual(
    rig.released.map(({ bytes, cause }) => `${cause} ${bytes.toString('hex')}`),
    frames.map((bytes) => `commit ${bytes.toString('hex')}`),
  );
  assert.deepEqual(rig.confirmed, [], 'a commit forgets SVM frames, it does not confirm them');
  rig.assertEmpty();
  for (const frame of [udp('e', 1), tcp({ seq: 4, ack: 1, text: 'more' }), echoReply(1, 2, 'ping')]) {
    rig.pvm(frame);
    assert.equal(rig.svm(frame), 1);
  }
  rig.assertConfirmed(3);
});

test('all columns are there for a frame that is held again in another one’s place', () => {
  const rig = new Rig();
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 5; i++) rig.svm(udp(`${round} ${i}`));
    for (let i = 0; i < 5; i++) assert.equal(rig.pvm(udp(`${round} ${i}`)), 1);
    rig.assertEmpty();
  }
});

test('overdue: data after dataMs, an ACK after ackMs, the SVM after secondaryMs', () => {
  const rig = new Rig();
  const { comparator } = rig;
  const synAck = tcp({ flags: SYN | ACK, seq: 0, ack: 100 });
  rig.pvm(synAck);
  rig.svm(synAck);
  assert.equal(comparator.overdue(1e9, WAITS), null);
  rig.nowMs = 1000;
  rig.pvm(tcp({ seq: 1, ack: 200 }));
  assert.equal(comparator.oldestWaitMs(1049), 49);
  assert.equal(comparator.overdue(1049, WAITS), null);
  assert.equal(comparator.overdue(1050, WAITS), 'wait-primary');
  rig.nowMs = 1005;
  rig.pvm(udp('nobody says that'));
  assert.equal(comparator.overdue(1014, WAITS), null);
  assert.equal(comparator.overdue(1015, WAITS), 'wait-primary', 'younger, but data');
  rig.commit();
  assert.equal(comparator.overdue(1e9, WAITS), null);
  assert.equal(comparator.oldestWaitMs(1e9), 0);
  rig.nowMs = 2000;
  rig.svm(udp('only the SVM'));
  assert.equal(comparator.overdue(2099, WAITS), null);
  assert.equal(comparator.overdue(2100, WAITS), 'wait-secondary');
});

test('agreed bytes that wait for their ACK only have the time of an ACK', () => {
  const rig = new Rig();
  rig.pvm(tcp({ seq: 1, ack: 200, text: 'x' }));
  assert.equal(rig.comparator.overdue(10, WAITS), 'wait-primary');
  rig.svm(tcp({ seq: 1, ack: 100, text: 'x' }));
  assert.equal(rig.comparator.overdue(49, WAITS), null);
  assert.equal(rig.comparator.overdue(50, WAITS), 'wait-primary');
});

test('alone, every frame leaves, and every stream is known when the VM is protected again', () => {
  const rig = new Rig();
  rig.alone(tcp({ seq: 1, ack: 50, text: 'abc' }));
  rig.alone(udp('datagram'));
  assert.deepEqual(
    rig.released.map(({ cause }) => cause),
    ['alone', 'alone'],
  );
  rig.commit();
  assert.equal(rig.pvm(tcp({ seq: 2, ack: 50, text: 'bc' })), 1, 'a repetition');
  assert.equal(rig.pvm(tcp({ seq: 4, ack: 51 })), 0, 'a new ACK');
  assert.equal(rig.svm(tcp({ seq: 4, ack: 51 })), 1);
  rig.assertEmpty();
});

test('a full flow table holds what it has no place for, loses nothing, and a commit makes room', () => {
  const rig = new Rig(256, 64);
  // The same frame over and over with other ports: building 131072 of them would take most of the time.
  const frame = udp('x');
  const SOURCE_PORT_AT = 34;
  for (let i = 0; i < LIMITS.flowsMax; i++) {
    frame.writeUInt32BE(i, SOURCE_PORT_AT);
    rig.pvm(frame);
    assert.equal(rig.svm(frame), 1);
  }
  rig.released.length = 0;
  assert.equal(rig.comparator.pressure(), null);
  frame.writeUInt32BE(LIMITS.flowsMax, SOURCE_PORT_AT);
  assert.equal(rig.svm(frame), 0);
  assert.equal(rig.comparator.counters.secondaryDropped, 1);
  assert.equal(rig.pvm(frame), 0);
  assert.equal(rig.comparator.pressure(), 'limit-flows');
  assert.equal(rig.commit(), 1);
  assert.ok(rig.released[0].bytes.equals(frame));
  assert.equal(rig.comparator.pressure(), null);
  rig.assertEmpty();
  frame.writeUInt32BE(LIMITS.flowsMax + 1, SOURCE_PORT_AT);
  rig.pvm(frame);
  assert.equal(rig.comparator.pressure(), null, 'the commit has made room');
  assert.equal(rig.svm(frame), 1);
});

test('an SVM that runs far ahead asks for a checkpoint and never takes the place of PVM output', () => {
  const rig = new Rig(256, LIMITS.heldFramesMax);
  const { comparator } = rig;
  const ahead = udp('ahead');
  for (let i = 0; i < LIMITS.heldSecondaryMax; i++) {
    assert.notEqual(comparator.pressure(), 'limit-frames');
    rig.svm(ahead);
  }
  assert.equal(comparator.pressure(), 'limit-frames');
  rig.svm(ahead);
  assert.equal(comparator.counters.secondaryDropped, 1);
  const places = LIMITS.heldFramesMax - LIMITS.heldSecondaryMax;
  const held = udp('differs');
  for (let i = 0; i < places - 1; i++) rig.pvm(held);
  assert.equal(rig.commit(), places - 1);
  rig.assertEmpty();
});

test('half of the columns in use ask for a checkpoint', () => {
  const rig = new Rig(256, LIMITS.heldFramesCheckpoint);
  const frame = udp('waits');
  for (let i = 0; i < LIMITS.heldFramesCheckpoint - 1; i++) rig.pvm(frame);
  assert.notEqual(rig.comparator.pressure(), 'limit-frames');
  rig.pvm(frame);
  assert.equal(rig.comparator.pressure(), 'limit-frames');
});

test('slabs in use ask for a checkpoint', () => {
  const rig = new Rig(256, LIMITS.heldSlabsMax);
  for (let i = 0; i < LIMITS.heldSlabsMax - 1; i++) rig.pvm(udp('x'));
  assert.equal(rig.comparator.pressure(), null);
  rig.pvm(udp('x'));
  assert.equal(rig.comparator.pressure(), 'limit-bytes');
});

test('discard lets go of all that is held, and nothing of it leaves', () => {
  const rig = new Rig();
  rig.pvm(udp('held'));
  rig.pvm(tcp({ seq: 1, ack: 1, text: 'held' }));
  rig.svm(udp('differs'));
  rig.comparator.discard();
  assert.equal(rig.released.length, 0);
  rig.assertEmpty();
});
