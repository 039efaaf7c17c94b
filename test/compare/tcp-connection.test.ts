/** How TCP connections begin and end: SYN, RST, and ports that are used again. What is in between is in tcp.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACK, FIN, padded, RST, SYN } from '../frames.ts';
import { data, opened, Rig, tcp } from './rig.ts';

test('where the secondary is taught, a SYN of the PVM waits for an SVM SYN with its number', () => {
  const syn = (seq: number, flags = SYN | ACK) => tcp({ flags, seq, ack: flags === SYN ? 0 : 501 });
  for (const primaryFirst of [true, false]) {
    const rig = new Rig();
    rig.comparator.taught = true;
    if (primaryFirst) rig.pvm(syn(1000));
    // Sent twice before the secondary knew.
    assert.equal(rig.svm(syn(7000)), 0);
    assert.equal(rig.svm(syn(7000)), 0);
    if (!primaryFirst) assert.equal(rig.pvm(syn(1000)), 0);
    assert.equal(rig.svm(syn(1000)), 1);
    rig.assertConfirmed(3);
    assert.equal(rig.svm(data(1001, 'hello')), 0);
    assert.equal(rig.pvm(data(1001, 'hello')), 1);
    // Agreed once, it is repeated freely, in a simultaneous open with an ACK.
    assert.equal(rig.pvm(syn(1000)), 1);
    assert.deepEqual(rig.diverged, []);
  }
});

test('without such a SYN it leaves at the commit', () => {
  const rig = new Rig();
  rig.comparator.taught = true;
  rig.svm(tcp({ flags: SYN | ACK, seq: 7000, ack: 501 }));
  rig.pvm(tcp({ flags: SYN | ACK, seq: 1000, ack: 501 }));
  assert.equal(rig.held, 1);
  assert.equal(rig.commit(), 1);
  rig.assertEmpty();
});

test('SYN against SYN-ACK diverges', () => {
  const rig = new Rig();
  rig.pvm(tcp({ flags: SYN | ACK, seq: 1, ack: 2 }));
  assert.equal(rig.svm(tcp({ flags: SYN, seq: 1 })), 0);
  assert.match(rig.diverged[0], /^diverged-flags /);
});

test('the data of a SYN is compared like any other, however it is cut', () => {
  const pvm = tcp({ flags: SYN, seq: 1000, text: 'fast open' });
  for (const [frames, out] of [
    [[tcp({ flags: SYN, seq: 7, text: 'fast open' })], 1],
    [[tcp({ flags: SYN, seq: 1000, text: 'fast' }), data(1005, ' open')], 1],
    [[tcp({ flags: SYN, seq: 1000 }), data(1001, 'fast open, and more')], 1],
    [[tcp({ flags: SYN, seq: 7, text: 'fast' })], 0],
  ] as const) {
    for (const primaryFirst of [true, false]) {
      const rig = new Rig();
      if (primaryFirst) rig.pvm(pvm);
      for (const frame of frames) rig.svm(frame);
      if (!primaryFirst) rig.pvm(pvm);
      assert.equal(rig.released.length, out);
      assert.deepEqual(rig.diverged, []);
      rig.commit();
      rig.assertEmpty();
    }
  }
  const rig = new Rig();
  rig.pvm(pvm);
  assert.equal(rig.svm(tcp({ flags: SYN, seq: 1000, text: 'fast opeN' })), 0);
  assert.match(rig.diverged[0], /^diverged-bytes /);
});

test('data that the SVM sent with its SYN is found when the PVM sends it later', () => {
  const rig = new Rig();
  rig.svm(tcp({ flags: SYN | ACK, seq: 7, ack: 501, text: 'early' }));
  assert.equal(rig.pvm(tcp({ flags: SYN | ACK, seq: 1000, ack: 501 })), 1);
  assert.equal(rig.pvm(data(1001, 'early')), 1);
  rig.assertConfirmed(1);
  rig.assertEmpty();
});

test('SYN options that settle something else diverge; their order and timestamps do not', () => {
  const usual = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 3, 3, 7];
  const reordered = [3, 3, 7, 8, 10, 9, 9, 9, 9, 8, 8, 8, 8, 4, 2, 2, 4, 5, 180];
  const syn = (options: number[]) => tcp({ flags: SYN | ACK, seq: 1000, ack: 501, options: padded(options) });
  for (const [other, out] of [
    [usual, 1],
    [reordered, 1],
    [[], 0],
    [[...usual.slice(0, -1), 8], 0],
    [usual.slice(0, -3), 0],
    [[...usual.slice(0, 4), ...usual.slice(6)], 0],
    [[2, 4, 5, 181, ...usual.slice(4)], 0],
    [[...usual.slice(0, 6), ...usual.slice(16)], 0],
  ] as const) {
    const rig = new Rig();
    rig.pvm(syn(usual));
    assert.equal(rig.svm(syn([...other])), out);
    assert.equal(rig.diverged.length, 1 - out);
    if (out === 0) assert.match(rig.diverged[0], /^diverged-flags /);
  }
});

test('a simultaneous open: a SYN, then the same SYN with an ACK', () => {
  const rig = new Rig();
  const syn = (seq: number) => tcp({ flags: SYN, seq });
  const synAck = (seq: number) => tcp({ flags: SYN | ACK, seq, ack: 501 });
  rig.pvm(syn(1000));
  assert.equal(rig.svm(syn(77)), 1);
  assert.equal(rig.pvm(synAck(1000)), 0, 'its ACK is new');
  assert.equal(rig.svm(synAck(1000)), 1);
  rig.assertConfirmed(2);
  const ahead = new Rig();
  ahead.svm(syn(77));
  ahead.svm(synAck(77));
  assert.equal(ahead.pvm(syn(1000)), 1);
  assert.equal(ahead.pvm(synAck(1000)), 1);
  ahead.assertConfirmed(2);
  ahead.assertEmpty();
});

test('a SYN that the SVM repeats before the PVM sends its own does not block the data', () => {
  const rig = new Rig();
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  rig.svm(synAck);
  rig.svm(synAck);
  assert.equal(rig.pvm(synAck), 1);
  rig.svm(data(1001, 'x'));
  assert.equal(rig.pvm(data(1001, 'x')), 1);
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('the SYN of a signed connection diverges, and after the commit it is compared like any other', () => {
  for (const [kind, length] of [
    [19, 18],
    [29, 16],
  ]) {
    const rig = new Rig();
    const options = padded([2, 4, 5, 180, kind, length, ...Array(length - 2).fill(7)]);
    const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501, options });
    rig.svm(tcp({ flags: SYN | ACK, seq: 7, ack: 501, options }));
    assert.equal(rig.pvm(synAck), 0);
    assert.deepEqual(rig.diverged, ['diverged-signed tcp 10.0.2.15:80 <-> 10.0.2.2:40000']);
    rig.commit();
    assert.equal(rig.pvm(synAck), 1, 'repeated, it is what the checkpoint has copied');
    rig.pvm(
      tcp({ seq: 1001, ack: 501, options: padded([kind, length, ...Array(length - 2).fill(8)]), text: 'x' }),
    );
    assert.equal(rig.svm(tcp({ seq: 1001, ack: 501, text: 'x' })), 1);
    assert.equal(rig.diverged.length, 1);
    rig.assertEmpty();
  }
});

test('each SYN of the PVM is taught before it may leave, a repeated one too', () => {
  const rig = new Rig();
  const syn = tcp({ flags: SYN, seq: 77 });
  rig.pvm(syn);
  rig.pvm(syn);
  assert.equal(rig.syns.length, 2);
  assert.ok(rig.syns[0].equals(syn));
  assert.equal(rig.svm(tcp({ flags: SYN, seq: 12345 })), 2, "the SVM's own number need not be the same");
  assert.equal(rig.svm(tcp({ flags: SYN, seq: 12345 })), 0);
  rig.assertConfirmed(2);
  rig.assertEmpty();
});

test('a SYN-ACK waits for its ACK to be covered too', () => {
  const rig = new Rig();
  rig.pvm(tcp({ flags: SYN | ACK, seq: 1, ack: 900 }));
  assert.equal(rig.svm(tcp({ flags: SYN | ACK, seq: 1, ack: 800 })), 0);
  assert.equal(rig.svm(tcp({ flags: ACK, seq: 2, ack: 900 })), 1);
});

test('an RST of the PVM alone waits; if both VMs send one it leaves, whatever its numbers', () => {
  const rig = opened();
  const rst = tcp({ flags: RST, seq: 1001 });
  assert.equal(rig.pvm(rst), 0);
  assert.equal(rig.svm(data(1001, 'still here')), 0);
  assert.equal(rig.svm(tcp({ flags: RST | ACK, seq: 1011, ack: 501 })), 1);
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('an RST of the SVM alone releases nothing and is forgotten by a commit', () => {
  const rig = opened();
  rig.svm(tcp({ flags: RST, seq: 1001 }));
  assert.equal(rig.pvm(data(1001, 'x')), 0);
  rig.commit();
  assert.equal(rig.pvm(tcp({ flags: RST, seq: 1002 })), 0, 'the old RST does not count any more');
  assert.equal(rig.svm(tcp({ flags: RST, seq: 1002 })), 1);
  rig.assertEmpty();
});

test('several RSTs of one connection pair off one to one, whichever VM is ahead', () => {
  const rst = tcp({ flags: RST, seq: 1001 });
  for (const order of ['ppss', 'sspp', 'psps', 'spsp', 'spps']) {
    const rig = opened();
    for (const side of order) side === 'p' ? rig.pvm(rst) : rig.svm(rst);
    assert.equal(rig.released.length, 3, order);
    rig.assertConfirmed(3);
    rig.assertEmpty();
  }
});

test('ports may be used again: after a FIN, after an RST, and with the SVM behind', () => {
  const rig = opened();
  const both = (frame: Buffer) => {
    rig.pvm(frame);
    assert.equal(rig.svm(frame), 1);
  };
  both(data(1001, 'old', 501, ACK | FIN));
  both(tcp({ flags: SYN | ACK, seq: 5, ack: 90_001 }));
  both(tcp({ seq: 6, ack: 90_001, text: 'new' }));
  both(tcp({ flags: RST, seq: 9 }));
  both(tcp({ flags: SYN | ACK, seq: 0x80000000, ack: 3 }));
  both(tcp({ seq: 0x80000001, ack: 3, text: 'again' }));
  // What the SVM still says of the connection before does not count for the next.
  rig.svm(tcp({ seq: 0x80000006, ack: 3, text: 'late' }));
  const synAck = tcp({ flags: SYN | ACK, seq: 700, ack: 8 });
  rig.pvm(synAck);
  assert.equal(rig.svm(synAck), 1);
  assert.deepEqual(rig.diverged, []);
  rig.assertEmpty();
});

test('an ACK of the old connection covers nothing of the new one', () => {
  const rig = opened();
  rig.pvm(data(1001, '', 0x40000000));
  rig.svm(data(1001, '', 0x40000000));
  const synAck = tcp({ flags: SYN | ACK, seq: 5, ack: 101 });
  rig.pvm(synAck);
  rig.svm(synAck);
  assert.equal(rig.released.length, 3);
  assert.equal(rig.pvm(data(6, '', 102)), 0);
  assert.equal(rig.svm(data(6, '', 102)), 1);
});
