/** Connections that the guest opens, each VM from a port of its own, compared without lessons. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instant } from '../../../src/units.ts';
import { ACK, RST, SYN } from '../../frames.ts';
import { Rig, tcp } from '../rig.ts';

const WAITS = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };
const MSS = [2, 4, 5, 180];

function newRig(): Rig {
  const rig = new Rig();
  rig.comparator.pairOpenings();
  return rig;
}

type Syn = { seq?: number; to?: number; address?: string; options?: number[]; flags?: number; text?: string };
const syn = (
  port: number,
  { seq = port, to = 443, address = '10.0.2.2', options = MSS, ...rest }: Syn = {},
) => tcp({ flags: SYN, seq, sourcePort: port, destinationPort: to, destination: address, options, ...rest });

/** Asserts that nothing is held, and that no wait asks for a checkpoint. */
function assertSettled(rig: Rig, svmFrames: number): void {
  assert.deepEqual(rig.diverged, []);
  rig.assertConfirmed(svmFrames);
  rig.assertEmpty();
  assert.equal(rig.comparator.overdue(1e6 as Instant, WAITS), null);
}

test('a SYN leaves for one from another port, whichever VM is first', () => {
  const first = newRig();
  assert.equal(first.pvm(syn(40000)), 0);
  assert.equal(first.svm(syn(40001)), 1);
  assertSettled(first, 1);
  const second = newRig();
  assert.equal(second.svm(syn(40001)), 0);
  assert.equal(second.pvm(syn(40000)), 1);
  assertSettled(second, 1);
});

test('the SYN leaves with the smaller window of the two', () => {
  const opening = (port: number, window: number) =>
    tcp({ flags: SYN, seq: port, sourcePort: port, destinationPort: 443, window, options: MSS });
  for (const [pvm, svm] of [
    [60_000, 20_000],
    [20_000, 60_000],
  ] as const) {
    const rig = newRig();
    rig.pvm(opening(40000, pvm));
    assert.equal(rig.svm(opening(40001, svm)), 1);
    assert.deepEqual(rig.released[0].bytes, opening(40000, 20_000));
  }
});

test('the connection continues in the PVM’s flow, where the SVM’s segments come after the reply', () => {
  const rig = newRig();
  rig.pvm(syn(40000, { seq: 1000 }));
  rig.svm(syn(40001, { seq: 77 }));
  const request = tcp({ sourcePort: 40000, destinationPort: 443, seq: 1001, ack: 501, text: 'GET /' });
  assert.equal(rig.pvm(request), 0);
  assert.equal(rig.svm(request), 1);
  assertSettled(rig, 2);
});

test('several to one server pair in order, as they come', () => {
  const rig = newRig();
  for (const port of [40000, 40002, 40004]) assert.equal(rig.pvm(syn(port)), 0);
  for (const port of [40001, 40003, 40005]) {
    assert.equal(rig.svm(syn(port)), 1);
    assert.deepEqual(rig.released.at(-1)?.bytes, syn(port - 1));
  }
  assertSettled(rig, 3);
});

test('SYNs of one port pair with each other first', () => {
  const rig = newRig();
  rig.pvm(syn(40000));
  rig.pvm(syn(40002));
  assert.equal(rig.svm(syn(40002, { seq: 5 })), 1);
  assert.deepEqual(rig.released[0].bytes, syn(40002));
  assert.equal(rig.svm(syn(40004)), 1);
  assert.deepEqual(rig.released[1].bytes, syn(40000));
  assertSettled(rig, 2);
});

test('the PVM’s next connection may have the port of which the SVM’s SYN was lent', () => {
  const rig = newRig();
  rig.pvm(syn(40000));
  rig.svm(syn(40001, { seq: 7 }));
  assert.equal(rig.pvm(syn(40001)), 0);
  assert.equal(rig.svm(syn(40001, { seq: 7 })), 0, 'repeated, it is still the counterpart of the first');
  assert.equal(rig.svm(syn(40003)), 1);
  assertSettled(rig, 3);
});

test('a SYN to another place, with other options, with data or a signature is no counterpart', () => {
  const others: [Buffer, Buffer][] = [
    [syn(40000), syn(40001, { to: 80 })],
    [syn(40000), syn(40001, { address: '10.0.2.3' })],
    [
      syn(40000),
      tcp({ flags: SYN, seq: 1, sourcePort: 40001, destinationPort: 443, options: MSS, tags: [{ id: 5 }] }),
    ],
    [syn(40000), syn(40001, { options: [2, 4, 5, 181] })],
    [syn(40000), syn(40001, { options: [...MSS, 30, 4, 0, 1] })],
    [syn(40000), syn(40001, { flags: SYN | ACK })],
    [syn(40000), syn(40001, { flags: RST })],
    [syn(40000), syn(40001, { text: 'early' })],
    [syn(40000, { text: 'early' }), syn(40001, { text: 'early' })],
    [syn(40000), syn(40001, { options: [...MSS, 19, 18, ...Array(18).fill(1)] })],
  ];
  for (const [pvm, svm] of others) {
    for (const pvmFirst of [true, false]) {
      const rig = newRig();
      if (pvmFirst) rig.pvm(pvm);
      rig.svm(svm);
      if (!pvmFirst) rig.pvm(pvm);
      assert.deepEqual(rig.released, [], svm.toString('hex'));
      assert.equal(rig.comparator.overdue(1e6 as Instant, WAITS), 'wait-primary');
      assert.equal(rig.commit(), 1);
      rig.assertEmpty();
    }
  }
});

test('a SYN that either VM repeats changes nothing', () => {
  const rig = newRig();
  rig.svm(syn(40001));
  rig.svm(syn(40001));
  rig.pvm(syn(40000));
  assert.equal(rig.pvm(syn(40000)), 1);
  rig.svm(syn(40001));
  assertSettled(rig, 3);
  assert.equal(rig.pvm(syn(40002)), 0, 'a repeated SYN is not the counterpart of the next one');
  rig.commit();
  assert.equal(rig.released.length, 3);
});

test('a SYN without counterpart waits, and after the checkpoint it pairs with nothing', () => {
  const rig = newRig();
  rig.pvm(syn(40000));
  assert.equal(rig.comparator.overdue(20 as Instant, WAITS), 'wait-primary');
  assert.equal(rig.commit(), 1);
  assert.equal(rig.svm(syn(40001)), 0);
  assert.equal(rig.comparator.overdue(200 as Instant, WAITS), 'wait-secondary');
  assert.equal(rig.pvm(syn(40002)), 1, 'that one pairs with the SYN of the same epoch');
  rig.svm(syn(40005));
  rig.commit();
  assert.equal(rig.pvm(syn(40004)), 0);
});

test('a flow that has lent its SYN is remembered while the SVM may repeat it', () => {
  const rig = newRig();
  rig.pvm(syn(40000));
  rig.svm(syn(40001));
  // Each new flow looks for some that are over.
  for (let port = 50000; port < 50064; port++) {
    rig.pvm(syn(port, { to: 80 }));
    rig.svm(syn(port, { to: 80 }));
  }
  rig.svm(syn(40001));
  assertSettled(rig, 66);
});

test('SYNs beyond the limit wait for a checkpoint, and those before it still pair', () => {
  const rig = newRig();
  for (let i = 0; i < 300; i++) rig.pvm(syn(10_000 + i));
  for (let i = 0; i < 256; i++) assert.equal(rig.svm(syn(20_000 + i)), 1, `${i}`);
  for (let i = 256; i < 300; i++) assert.equal(rig.svm(syn(20_000 + i)), 0, `${i}`);
  assert.equal(rig.commit(), 44);
  rig.assertEmpty();
  assert.equal(rig.pvm(syn(40000)), 0);
  assert.equal(rig.svm(syn(40001)), 1);
});

test('without that a SYN leaves only for one from its own port', () => {
  const rig = new Rig();
  rig.pvm(syn(40000));
  assert.equal(rig.svm(syn(40001)), 0);
});
