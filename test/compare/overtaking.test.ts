/** A PVM segment leaves as soon as it may, whatever is held before it (src/compare/rules/tcp-held.ts, tcp-exit.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACK, FIN, padded, RST, SYN, timestamps, URG } from '../frames.ts';
import { data, opened, Rig, tcp } from './rig.ts';

const A = 'a'.repeat(100);
const B = 'b'.repeat(100);

/** The client has A; the PVM's B waits. */
function waiting(): Rig {
  const rig = opened();
  rig.pvm(data(1001, A));
  rig.svm(data(1001, A));
  assert.equal(rig.pvm(data(1101, B)), 0);
  rig.released.length = 0;
  return rig;
}

const left = (rig: Rig) => rig.released.splice(0).map(({ bytes }) => bytes);

test('a retransmission leaves ahead of newer data that wait, and they leave when the SVM sends them', () => {
  const rig = waiting();
  assert.equal(rig.pvm(data(1001, A)), 1);
  assert.deepEqual(left(rig), [data(1001, A)]);
  assert.equal(rig.svm(data(1101, B)), 1);
  assert.deepEqual(left(rig), [data(1101, B)]);
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('a part of what the client has does so, too, and a FIN that it has', () => {
  const rig = waiting();
  assert.equal(rig.pvm(data(1050, A.slice(0, 20))), 1);
  const ended = opened();
  for (const side of ['pvm', 'svm'] as const) ended[side](data(1001, A, 501, ACK | FIN));
  ended.pvm(tcp({ seq: 1102, ack: 501, flags: ACK, text: 'a VM that is not right' }));
  assert.equal(ended.pvm(data(1001, A, 501, ACK | FIN)), 1);
});

test('a bare ACK leaves ahead of data, with the number that the client expects', () => {
  const rig = waiting();
  rig.svm(data(1101, '', 700));
  assert.equal(rig.pvm(data(1201, '', 600)), 1);
  assert.deepEqual(left(rig), [data(1101, '', 600)]);
  assert.equal(rig.pvm(data(1100, '', 600)), 1, 'a keep-alive keeps its number');
  assert.deepEqual(left(rig), [data(1100, '', 600)]);
});

test('of a retransmission with newer data in one segment, what the client may lack leaves at once', () => {
  for (const together of [A + B, `${A}${B}and more`]) {
    const rig = waiting();
    assert.equal(rig.pvm(data(1001, together)), 1);
    assert.deepEqual(rig.released.splice(0), [{ bytes: data(1001, A), cause: 'made' }]);
    assert.equal(rig.svm(data(1101, `${B}and more`)), 2);
    assert.deepEqual(left(rig), [data(1101, B), data(1001, together)]);
    rig.commit();
    rig.assertEmpty();
  }
});

test('a part has no FIN and no later bytes, and its length and checksums are right', () => {
  const rig = waiting();
  rig.pvm(data(1051, `${A.slice(50)}${B}odd`, 501, ACK | FIN));
  assert.deepEqual(left(rig), [data(1051, A.slice(50))]);
});

test('segments that the PVM sends out of order leave in order', () => {
  const rig = opened();
  rig.pvm(data(1201, 'c'.repeat(100)));
  rig.pvm(data(1101, B));
  rig.pvm(data(1001, A));
  for (const [seq, text] of [
    [1001, A],
    [1101, B],
    [1201, 'c'.repeat(100)],
  ] as const) {
    assert.equal(rig.svm(data(seq, text)), 1);
    assert.deepEqual(left(rig).slice(-1), [data(seq, text)]);
  }
  rig.assertEmpty();
});

test('an SVM that repeats what the client lacks frees that much of a longer segment of the PVM', () => {
  const rig = opened();
  left(rig);
  rig.pvm(data(1001, A + B));
  rig.svm(data(1001, A));
  assert.deepEqual(left(rig), [], 'the SVM may send the rest at once');
  rig.svm(data(1001, A));
  assert.deepEqual(left(rig), [data(1001, A)]);
  rig.assertConfirmed(3);
  rig.svm(data(1101, B));
  assert.deepEqual(left(rig), [data(1001, A + B)]);
  rig.assertEmpty();
});

for (const [name, frame] of [
  ['an RST', tcp({ seq: 1101, ack: 501, flags: ACK | RST })],
  ['a SYN of the next connection', tcp({ seq: 90_000, ack: 501, flags: 0x12 })],
  ['urgent data', tcp({ seq: 1101, ack: 501, flags: ACK | URG, urgent: 1, text: '!' })],
] as const) {
  test(`nothing passes ${name}`, () => {
    const rig = opened();
    rig.pvm(data(1001, A));
    rig.svm(data(1001, A));
    rig.pvm(frame);
    assert.equal(rig.pvm(data(1001, A)), 0);
    assert.equal(rig.pvm(data(1101, '')), 0);
    assert.equal(rig.commit(), 3);
    rig.assertEmpty();
  });
}

test('a part from the middle of a held segment waits behind it, and holds up nothing', () => {
  for (const [seq, text] of [
    [1021, B.slice(0, 30)],
    [1201, 'c'.repeat(20)],
  ] as const) {
    const rig = opened();
    left(rig);
    rig.pvm(data(1001, B));
    rig.pvm(data(1101, B));
    rig.pvm(data(1201, 'c'.repeat(100)));
    rig.pvm(data(seq, text));
    rig.pvm(data(1121, B.slice(0, 30)));
    rig.svm(data(1001, B + B));
    assert.deepEqual(left(rig).at(-1), data(1121, B.slice(0, 30)), 'before the segment that waits for more');
    rig.svm(data(1201, 'c'.repeat(100)));
    rig.assertEmpty();
  }
});

test('behind a SYN, bytes at a place that the client has may be of the next connection: they wait, with no part ahead', () => {
  const rig = opened();
  rig.pvm(data(1001, A));
  rig.svm(data(1001, A));
  rig.pvm(tcp({ seq: 1040, ack: 9000, flags: SYN | ACK }));
  assert.equal(
    rig.pvm(tcp({ seq: 1041, ack: 9000, text: 'of a connection that the SVM does not know'.repeat(2) })),
    0,
  );
  rig.commit();
  rig.assertEmpty();
});

test('a keep-alive with a byte leaves, and what follows does, before and after the first data', () => {
  const rig = opened();
  assert.equal(rig.pvm(data(1000, '?')), 1);
  rig.pvm(data(1001, A));
  assert.equal(rig.svm(data(1001, A)), 1);
  assert.equal(rig.pvm(data(1100, '?')), 1);
  rig.assertEmpty();
});

test('a connection of which a keep-alive was seen first goes on with the number after it', () => {
  const rig = new Rig();
  for (const side of ['svm', 'pvm'] as const) rig[side](data(1000, ''));
  rig.pvm(data(1001, A));
  rig.svm(data(1001, A));
  assert.deepEqual(left(rig), [data(1000, ''), data(1001, A)]);
  rig.assertEmpty();
});

test('the next connection has its own time, though segments of the last one were passed', () => {
  const stamped = (fields: object, time: number) =>
    tcp({ ack: 501, ...fields, options: padded(timestamps(time, 5)) });
  const rig = opened();
  for (const side of ['pvm', 'svm'] as const) rig[side](stamped({ seq: 1001, text: A }, 5000));
  rig.pvm(stamped({ seq: 1101, text: B }, 5001));
  rig.pvm(stamped({ seq: 1001, text: A }, 5200));
  rig.pvm(stamped({ seq: 70_000, flags: SYN | ACK }, 100));
  rig.pvm(stamped({ seq: 70_001, text: A }, 110));
  left(rig);
  rig.commit();
  assert.deepEqual(
    left(rig).map((bytes) => bytes.readUInt32BE(56)),
    [5200, 100, 110],
  );
});

test('nothing leaves of a flow that has diverged', () => {
  const rig = waiting();
  rig.svm(data(1101, 'x'.repeat(100)));
  assert.equal(rig.diverged.length, 1);
  assert.equal(rig.pvm(data(1001, A)), 0);
  assert.equal(rig.pvm(data(1201, '')), 0);
  rig.commit();
  rig.assertEmpty();
});

test('what was passed has the time of what passed it: the client would drop it as old', () => {
  const stamped = (seq: number, text: string, time: number) =>
    tcp({ seq, ack: 501, text, options: padded(timestamps(time, 5)) });
  const times = (rig: Rig) => left(rig).map((bytes) => bytes.readUInt32BE(56));
  for (const end of ['svm', 'checkpoint'] as const) {
    const rig = opened();
    rig.pvm(stamped(1001, A, 1000));
    rig.svm(stamped(1001, A, 1000));
    rig.pvm(stamped(1101, B, 1001));
    left(rig);
    rig.pvm(stamped(1001, A, 1200));
    rig.pvm(stamped(1201, '', 1300));
    rig.pvm(stamped(1201, 'c', 1400));
    assert.deepEqual(times(rig), [1200, 1300]);
    if (end === 'checkpoint') rig.commit();
    else rig.svm(stamped(1101, `${B}c`, 1500));
    const frames = rig.released.map(({ bytes }) => bytes);
    assert.deepEqual(times(rig), [1300, 1400]);
    assert.deepEqual(frames[0], stamped(1101, B, 1300), 'the checksum too');
  }
});

test('a queue that grows out of order costs little work per frame', () => {
  const rig = new Rig(8192, 8192);
  const synAck = tcp({ flags: 0x12, seq: 1000, ack: 501 });
  rig.pvm(synAck);
  rig.svm(synAck);
  for (let i = 3000; i > 0; i--) rig.pvm(data(1001 + 10 * i, 'y'));
  for (let i = 0; i < 3000; i++) rig.pvm(data(1001 + 10 * ((i * 7) % 3000), 'y'));
  assert.ok(rig.comparator.visits <= 130 * 6000, `${rig.comparator.visits} visits`);
  rig.commit();
  rig.assertEmpty();
});
