/** Options by which a VM binds its peer to what it chose: a PVM segment with one leaves only for an SVM's with the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STEP } from '../../../src/compare/comparator.ts';
import type { Instant } from '../../../src/units.ts';
import { ACK, FIN, padded, SYN, timestamps } from '../../frames.ts';
import { Rig, tcp } from '../rig.ts';

const WAITS = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };
const bytes = (count: number, value: number): number[] => Array<number>(count).fill(value);

/** MPTCP's options (RFC 8684 section 3): kind, length, subtype and flags, and the rest. */
const mp = (subtype: number, low: number, rest: number[]): number[] => [
  30,
  3 + rest.length,
  (subtype << 4) | low,
  ...rest,
];
const capable = (key: number) => mp(0, 1, [0x81, ...bytes(8, key)]);
const joinSynAck = (hmac: number, nonce: number) => mp(1, 0, [1, ...bytes(8, hmac), ...bytes(4, nonce)]);
/** `place` of the data; 8-byte numbers if `long` */
const signal = (place: number, dataAck: number, long = false): number[] => {
  const number = (value: number) => (long ? [0, 0, 0, 0, 0, 0, 0, value] : [0, 0, 0, value]);
  const flags = 1 | 4 | (long ? 2 | 8 : 0);
  return mp(2, 0, [flags, ...number(dataAck), ...number(place), 0, 0, 0, 1, 0, 5, 0xab, 0xcd]);
};
const dataAckOnly = (dataAck: number) => mp(2, 0, [1, 0, 0, 0, dataAck]);

const PAIRS: [string, number[], number[]][] = [
  ['MP_CAPABLE: another key', capable(1), capable(2)],
  ['MP_CAPABLE in one VM only', capable(1), []],
  ['MP_CAPABLE in the other VM only', [], capable(1)],
  ['MP_CAPABLE: another version', mp(0, 0, [0x81, ...bytes(8, 1)]), capable(1)],
  ['MP_JOIN: another HMAC', joinSynAck(1, 9), joinSynAck(2, 9)],
  ['MP_JOIN: another nonce', joinSynAck(1, 9), joinSynAck(1, 8)],
  ['another Fast Open cookie', [34, 10, ...bytes(8, 1)], [34, 10, ...bytes(8, 2)]],
  [
    'another Fast Open cookie of the experiment',
    [254, 8, 0xf9, 0x89, 1, 2, 3, 4],
    [254, 8, 0xf9, 0x89, 1, 2, 3, 5],
  ],
  ['another negotiation of tcpcrypt', [69, 3, 0x21], [69, 3, 0x20]],
  ['an option that nobody knows', [200, 4, 1, 1], [200, 4, 1, 2]],
  ['two options exchanged', [...capable(1), 34, 2], [34, 2, ...capable(1)]],
];

const settling = [2, 4, 5, 180, 4, 2];
const synFrame = (flags: number, options: number[], seq = 1000) =>
  tcp({ flags, seq, ack: flags === SYN ? 0 : 501, options: padded([...settling, ...options]) });

for (const [what, pvm, svm] of PAIRS) {
  test(`a SYN or SYN-ACK does not leave for one with ${what}; a checkpoint lets it leave`, () => {
    for (const flags of [SYN, SYN | ACK]) {
      for (const first of ['pvm', 'svm'] as const) {
        const rig = new Rig();
        if (first === 'pvm') rig.pvm(synFrame(flags, pvm));
        rig.svm(synFrame(flags, svm, 77));
        if (first === 'svm') rig.pvm(synFrame(flags, pvm));
        assert.deepEqual(rig.released, []);
        assert.deepEqual(rig.diverged, ['diverged-flags tcp 10.0.2.15:80 <-> 10.0.2.2:40000']);
        assert.equal(rig.commit(), 1);
        assert.equal(rig.pvm(synFrame(flags, pvm)), 1, 'both VMs have it now');
        rig.pvm(tcp({ seq: 1001, ack: 501, text: 'x' }));
        assert.equal(rig.svm(tcp({ seq: 1001, ack: 501, text: 'x' })), 1);
        rig.assertEmpty();
      }
    }
  });
}

test('a SYN leaves for one that binds the client to the same', () => {
  for (const [, options] of PAIRS) {
    const rig = new Rig();
    rig.svm(synFrame(SYN | ACK, options, 77));
    assert.equal(rig.pvm(synFrame(SYN | ACK, options)), 1);
    rig.assertEmpty();
  }
});

test('other options of a SYN may differ: times, ECN counters, padding', () => {
  const rig = new Rig();
  rig.svm(synFrame(SYN | ACK, [...timestamps(1, 2), 172, 5, 1, 2, 3, ...capable(1)]));
  assert.equal(rig.pvm(synFrame(SYN | ACK, [1, 1, ...timestamps(3, 4), 172, 5, 3, 2, 1, ...capable(1)])), 1);
});

/** A connection with MPTCP that both VMs have had since the checkpoint. */
function multipath(): Rig {
  const rig = new Rig();
  rig.svm(synFrame(SYN | ACK, capable(1)));
  rig.pvm(synFrame(SYN | ACK, capable(1)));
  rig.released.length = 0;
  return rig;
}
const stamped = (options: number[]) => padded([1, 1, ...timestamps(5, 6), ...options]);
const mapped = (options: number[], text = 'hello', flags = ACK) =>
  tcp({ seq: 1001, ack: 501, flags, options: stamped(options), text });

test('data do not leave with another mapping, or for data without one', () => {
  for (const [pvm, svm] of [
    [signal(1, 9), signal(2, 9)],
    [signal(1, 9, true), signal(2, 9, true)],
    [signal(1, 9), []],
    [[], signal(1, 9)],
    [signal(1, 9), signal(1, 9, true)],
  ]) {
    for (const first of ['pvm', 'svm'] as const) {
      const rig = multipath();
      if (first === 'pvm') rig.pvm(mapped(pvm));
      rig.svm(mapped(svm));
      if (first === 'svm') rig.pvm(mapped(pvm));
      assert.deepEqual(rig.released, [], `${pvm} against ${svm}, ${first} first`);
      assert.equal(rig.diverged.length, 1);
      assert.equal(rig.commit(), 1);
    }
  }
});

test('data leave with the same mapping, whatever they acknowledge of the other direction', () => {
  for (const long of [false, true]) {
    for (const flags of [ACK, ACK | FIN]) {
      const rig = multipath();
      rig.pvm(mapped(signal(1, 9, long), 'hello', flags));
      assert.equal(rig.svm(mapped(signal(1, 8, long), 'hello', flags)), 1);
      assert.equal(rig.pvm(mapped(signal(1, 9, long), 'hello', flags)), 1, 'a retransmission');
      rig.assertEmpty();
    }
  }
});

test('data do not leave with another option that is as long as timestamps', () => {
  const data = (value: number) =>
    tcp({ seq: 1001, ack: 501, options: [200, 12, ...bytes(10, value)], text: 'hello' });
  for (const first of ['pvm', 'svm', 'both'] as const) {
    const rig = multipath();
    if (first === 'both') assert.notEqual(rig.pairOff(data(1), data(2)), STEP.matched);
    if (first !== 'svm') rig.pvm(data(1));
    rig.svm(data(2));
    if (first === 'svm') rig.pvm(data(1));
    assert.deepEqual(rig.released, [], first);
    assert.equal(rig.diverged.length, 1);
  }
});

test('data that the SVM has cut elsewhere do not leave with a mapping', () => {
  const rig = multipath();
  rig.svm(mapped(signal(1, 9), 'he'));
  rig.pvm(mapped(signal(1, 9), 'hello'));
  assert.deepEqual(rig.released, []);
  assert.equal(rig.diverged.length, 1);
});

test('a segment without data leaves with the key, HMAC or address that the SVM has sent', () => {
  const bare = (options: number[]) => tcp({ seq: 1001, ack: 501, options: stamped(options) });
  for (const [pvm, svm] of [
    [capable(1), capable(2)],
    [mp(1, 0, [0, ...bytes(20, 1)]), mp(1, 0, [0, ...bytes(20, 2)])],
    [mp(3, 0, [1, 10, 0, 0, 1, ...bytes(8, 1)]), mp(3, 0, [1, 10, 0, 0, 1, ...bytes(8, 2)])],
    [mp(4, 0, [1]), mp(4, 0, [2])],
    [mp(5, 1, []), mp(5, 0, [])],
    [mp(2, 0, [0x15, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]), []],
  ]) {
    const rig = multipath();
    rig.svm(bare(svm));
    assert.equal(rig.pvm(bare(pvm)), 0, `${pvm}`);
    assert.equal(rig.comparator.overdue(20 as Instant, WAITS), 'wait-primary');
    assert.equal(rig.svm(bare(pvm)), 1);
    assert.equal(rig.pvm(bare(pvm)), 1, 'repeated');
    rig.commit();
    assert.equal(rig.pvm(bare(pvm)), 0, 'what the SVM sent before a checkpoint it may not send again');
  }
});

test('what only acknowledges data of MPTCP leaves as the ACK beside it does', () => {
  const rig = multipath();
  rig.svm(tcp({ seq: 1001, ack: 501, options: stamped(dataAckOnly(1)) }));
  assert.equal(rig.pvm(tcp({ seq: 1001, ack: 501, options: stamped(dataAckOnly(2)) })), 1);
  assert.equal(rig.pvm(tcp({ seq: 1001, ack: 502, options: stamped(dataAckOnly(3)) })), 0);
});
