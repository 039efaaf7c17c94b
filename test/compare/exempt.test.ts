/** Flows that an operator exempts are not compared; all others are, as before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type OperatorRule, OperatorRules } from '../../src/compare/operator-rules.ts';
import type { FlowMatch } from '../../src/flow/match.ts';
import {
  ACK,
  arpFrame,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  ethernet,
  icmpFrame,
  ipv4,
  SYN,
  tcpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';
import { data, echoReply, Rig, tcp, udp } from './rig.ts';

const match = (one: Partial<FlowMatch>): OperatorRule => ({
  match: { protocol: null, port: null, client: null, ...one },
  exempt: true,
});
const UDP_53 = match({ protocol: 17, port: 53 });
const TCP_80 = match({ protocol: 6, port: 80 });
const UDP_ALL = match({ protocol: 17 });
const CLIENT = match({ client: { version: 4, words: [0xc0000202 | 0], bits: 32 } });

function rigWith(...rules: OperatorRule[]): Rig {
  const rig = new Rig();
  rig.comparator.useOperatorRules(new OperatorRules(rules));
  return rig;
}

const causes = (rig: Rig): string[] => rig.released.map(({ cause }) => cause);

function fragments(payload: string, protocol = 17): [Buffer, Buffer] {
  const body = udp(payload).subarray(34);
  const cut = 16;
  const part = (from: number, to: number) =>
    ethernet(
      0x0800,
      ipv4(
        {
          source: VM_ADDRESS[4],
          destination: CLIENT_ADDRESS[4],
          protocol,
          id: 7,
          fragmentOffset: from,
          moreFragments: to < body.length,
        },
        body.subarray(from, to),
      ),
      { sourceMac: VM_MAC, destinationMac: CLIENT_MAC },
    );
  return [part(0, cut), part(cut, body.length)];
}

test("an exempt flow's output of the PVM leaves at once, that of the SVM is dropped and confirmed", () => {
  const rig = rigWith(UDP_53);
  assert.equal(rig.pvm(udp('one')), 1);
  assert.equal(rig.svm(udp('another')), 0);
  assert.equal(rig.pvm(udp('two')), 1);
  assert.deepEqual(causes(rig), ['exempt', 'exempt']);
  rig.assertConfirmed(1);
  rig.assertEmpty();
  assert.deepEqual(rig.diverged, []);
  assert.deepEqual(rig.comparator.operatorRules?.exemptedBy('udp 53'), {
    frames: 2,
    bytes: 2 * udp('one').length,
  });
});

test('an exempt TCP connection is not compared, and the secondary is taught its SYN', () => {
  const rig = rigWith(TCP_80);
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  assert.equal(rig.pvm(synAck), 1);
  rig.svm(tcp({ flags: SYN | ACK, seq: 9000, ack: 501 }));
  assert.equal(rig.pvm(data(1001, 'mine')), 1);
  rig.svm(data(1001, 'other'));
  assert.deepEqual(causes(rig), ['exempt', 'exempt']);
  assert.deepEqual(rig.syns, [synAck]);
  rig.assertConfirmed(2);
  rig.assertEmpty();
});

test('flows that no rule covers are held and compared as before', () => {
  const rig = rigWith(UDP_53, match({ protocol: 6, port: 22 }));
  const udp54 = Buffer.from(udp('held'));
  udp54.writeUInt16BE(54, 34);
  for (const frame of [udp54, data(1001, 'held'), echoReply(1, 1, 'held')]) assert.equal(rig.pvm(frame), 0);
  assert.equal(rig.held, 3);
  assert.equal(rig.svm(echoReply(1, 1, 'differs')), 0);
  assert.equal(rig.diverged.length, 1);
  assert.equal(rig.commit(), 3);
});

test('a port of the client is not one of the VM', () => {
  const rig = rigWith(match({ protocol: 17, port: 5000 }));
  assert.equal(rig.pvm(udp('to port 5000')), 0);
  assert.equal(rig.held, 1);
});

test("a client's address exempts all that is compared, of every protocol, and nothing for another client", () => {
  const rig = rigWith(CLIENT);
  const other = { source: VM_ADDRESS[4], destination: '192.0.2.3', sourceMac: VM_MAC };
  const payload = Buffer.from('x');
  for (const frame of [
    tcpFrame({ ...other, destination: '192.0.2.2', sourcePort: 1, destinationPort: 2, payload }),
    icmpFrame({ ...other, destination: '192.0.2.2', type: 0, payload }),
    icmpFrame({ ...other, destination: '192.0.2.2', type: 3, payload: Buffer.alloc(40) }),
  ])
    assert.equal(rig.pvm(frame), 1);
  assert.equal(rig.pvm(icmpFrame({ ...other, type: 0, payload })), 0);
  assert.deepEqual(causes(rig), ['exempt', 'exempt', 'exempt']);
});

test('what is harmless stays so: the SVM may still ask its neighbours', () => {
  const rig = rigWith(match({ protocol: 58 }), match({ client: { version: 4, words: [0], bits: 0 } }));
  assert.equal(rig.pvm(arpFrame({ sourceMac: VM_MAC })), 1);
  assert.equal(rig.pvm(icmpFrame({ version: 6, type: 136 })), 1);
  assert.deepEqual(causes(rig), ['harmless', 'harmless']);
  rig.svm(icmpFrame({ version: 6, type: 133 }));
  assert.equal(rig.comparator.questionsWaiting, 1);
  assert.equal(rig.pvm(icmpFrame({ version: 6, type: 129 })), 1);
  assert.equal(causes(rig).at(-1), 'exempt');
});

test('a fragment is exempt at once by a rule that names no port', () => {
  const rig = rigWith(UDP_ALL);
  const [first, rest] = fragments('a datagram in two fragments');
  assert.equal(rig.pvm(rest), 1);
  assert.equal(rig.pvm(first), 1);
  rig.svm(first);
  rig.assertConfirmed(1);
  rig.assertEmpty();
  assert.deepEqual(causes(rig), ['exempt', 'exempt']);
});

test('by a rule that names a port fragments are held until their datagram shows it', () => {
  const rig = rigWith(UDP_53);
  const [first, rest] = fragments('a datagram in two fragments');
  assert.equal(rig.pvm(rest), 0);
  assert.equal(rig.pvm(first), 2);
  assert.deepEqual(causes(rig), ['exempt', 'exempt']);
  assert.equal(rig.comparator.operatorRules?.exemptedBy('udp 53')?.frames, 2);
  rig.svm(first);
  rig.svm(rest);
  rig.assertConfirmed(2);
  rig.assertEmpty();
});

test('fragments of another port, and of which the one with the port is missing, are compared', () => {
  const rig = rigWith(match({ protocol: 17, port: 54 }), match({ protocol: 6, port: 53 }));
  const [first, rest] = fragments('a datagram in two fragments');
  assert.equal(rig.pvm(first) + rig.pvm(rest), 0);
  assert.equal(rig.svm(first) + rig.svm(rest), 2);
  const alone = rigWith(UDP_53);
  assert.equal(alone.pvm(rest), 0);
  assert.equal(alone.commit(), 1);
});

test('a segment of TCP in fragments shows no port, and is compared', () => {
  const rig = rigWith(match({ protocol: 6, port: 53 }));
  const [first, rest] = fragments('a segment in two fragments', 6);
  assert.equal(rig.pvm(first) + rig.pvm(rest), 0);
  assert.equal(rig.held, 2);
});

test('rules that change hold for flows that are known: some begin to be compared, others end', () => {
  const rig = rigWith(TCP_80);
  rig.pvm(tcp({ flags: SYN | ACK, seq: 1000, ack: 501 }));
  rig.pvm(udp('held'));
  rig.svm(udp('held'));
  rig.commit();
  rig.comparator.useOperatorRules(new OperatorRules([UDP_53], rig.comparator.operatorRules));
  assert.equal(rig.pvm(udp('leaves')), 1);
  assert.equal(rig.pvm(data(1001, 'held now')), 0);
  assert.equal(rig.svm(data(1001, 'held now')), 1);
  assert.deepEqual(causes(rig), ['exempt', 'match', 'exempt', 'match']);
});

test('alone, exempt flows are known too, and leave nothing behind when they are compared again', () => {
  const rig = rigWith(TCP_80);
  rig.alone(tcp({ flags: SYN | ACK, seq: 1000, ack: 501 }));
  rig.alone(data(1001, 'one'));
  assert.equal(rig.comparator.tcpFlows, 0);
  rig.comparator.useOperatorRules(new OperatorRules([]));
  rig.alone(data(1004, 'two'));
  assert.equal(rig.comparator.tcpFlows, 1);
  rig.commit();
  rig.pvm(data(1007, 'three'));
  assert.equal(rig.held, 1);
  assert.equal(rig.svm(data(1007, 'three')), 1);
});

test('a commit forgets exempt flows', () => {
  const rig = rigWith(UDP_53);
  rig.pvm(udp('one'));
  assert.equal(rig.comparator.flowCount, 1);
  rig.commit();
  assert.equal(rig.comparator.flowCount, 0);
});

test('a rule that stays goes on counting', () => {
  const rules = new OperatorRules([TCP_80, UDP_53]);
  rules.noteExempted(2, 100);
  const next = new OperatorRules([UDP_53], rules);
  next.noteExempted(1, 10);
  assert.deepEqual(next.exemptedBy('udp 53'), { frames: 2, bytes: 110 });
  assert.equal(next.exemptedBy('tcp 80'), null);
});
