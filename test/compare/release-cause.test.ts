/** What matched, what repeated and what only a commit let out are told apart: only a match shows that the SVM is of use. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACK, FIN, PSH, RST, SYN } from '../frames.ts';
import { data, opened, Rig, tcp, udp } from './rig.ts';

const causes = (rig: Rig): string[] => rig.released.map(({ cause }) => cause);

function counted(rig: Rig): [matched: number, repeated: number, byCommit: number] {
  const { matched, repeated, releasedByCommit } = rig.comparator.counters;
  return [matched, repeated, releasedByCommit];
}

test('a segment that the SVM has sent too is a match, the same one again a repeat', () => {
  const rig = opened();
  rig.pvm(data(1001, 'hello'));
  rig.svm(data(1001, 'hello'));
  rig.pvm(data(1001, 'hello'));
  assert.deepEqual(causes(rig), ['match', 'match', 'repeat']);
  assert.deepEqual(counted(rig), [2, 1, 0]);
});

test('an SVM that sends nothing after a commit has no match, whatever the PVM repeats', () => {
  const rig = opened();
  const fin = tcp({ seq: 1006, ack: 520, flags: FIN | ACK });
  rig.pvm(data(1001, 'hello', 520, PSH | ACK));
  rig.pvm(fin);
  rig.commit();
  const before = rig.comparator.counters.matched;
  for (const frame of [
    data(1001, 'hello', 520),
    data(1001, 'hello', 501),
    data(1003, 'll', 520),
    tcp({ seq: 1006, ack: 520, flags: ACK }),
    fin,
    tcp({ seq: 1000, ack: 501, flags: SYN | ACK }),
  ])
    assert.equal(rig.pvm(frame), 1);
  assert.equal(rig.comparator.counters.matched, before);
  assert.deepEqual(counted(rig).slice(1), [6, 2]);
});

test('a SYN of the guest that a commit released repeats; the next connection on its ports does not', () => {
  const rig = new Rig();
  const syn = (seq: number) => tcp({ seq, ack: 0, flags: SYN });
  rig.pvm(syn(7000));
  rig.commit();
  rig.pvm(syn(7000));
  rig.svm(syn(9000));
  rig.pvm(syn(9000));
  assert.deepEqual(causes(rig), ['commit', 'repeat', 'match']);
});

test('an ACK of more than the client was told is a match though it carries no bytes', () => {
  const rig = opened();
  rig.svm(tcp({ seq: 1001, ack: 600, flags: ACK }));
  rig.pvm(tcp({ seq: 1001, ack: 600, flags: ACK }));
  rig.pvm(tcp({ seq: 1001, ack: 600, flags: ACK }));
  rig.pvm(tcp({ seq: 1001, ack: 550, flags: ACK }));
  assert.deepEqual(causes(rig), ['match', 'match', 'repeat', 'repeat']);
});

test('an RST that both VMs send is a match', () => {
  const rig = opened();
  const rst = tcp({ seq: 1001, ack: 501, flags: RST | ACK });
  rig.svm(rst);
  rig.pvm(rst);
  assert.deepEqual(causes(rig), ['match', 'match']);
});

test('equal datagrams match each time', () => {
  const rig = new Rig();
  for (let i = 0; i < 3; i++) {
    rig.pvm(udp('same'));
    rig.svm(udp('same'));
  }
  rig.pvm(udp('alone'));
  rig.commit();
  assert.deepEqual(causes(rig), ['match', 'match', 'match', 'commit']);
  assert.deepEqual(counted(rig), [3, 0, 1]);
});
