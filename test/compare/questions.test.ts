/** What the SVM asks of its neighbours leaves, unless the PVM asks the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instant } from '../../src/units.ts';
import {
  address,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  ethernet,
  icmpFrame,
  ipv4,
  type LinkLayer,
  mac,
  u16,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';
import { Rig } from './rig.ts';

type Arp = LinkLayer & { operation?: number; sender?: string; target?: string };
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

function arp({
  operation = 1,
  sender = VM_ADDRESS[4],
  target = CLIENT_ADDRESS[4],
  ...link
}: Arp = {}): Buffer {
  const head = Buffer.concat([u16(1, 0x0800, 0x0604, operation), mac(VM_MAC), address(sender)]);
  const body = Buffer.concat([head, Buffer.alloc(6), address(target)]);
  return ethernet(0x0806, body, { sourceMac: VM_MAC, destinationMac: BROADCAST, ...link });
}

/** NDP or MLD of the VM; `about` is the target where there is one. */
function icmpv6(type: number, about = 'fd00::2', link: LinkLayer & { source?: string } = {}): Buffer {
  const { source = VM_ADDRESS[6], ...rest } = link;
  return icmpFrame({
    version: 6,
    type,
    source,
    destination: 'ff02::1:ff00:2',
    payload: Buffer.concat([address(about), Buffer.from([1, 1]), mac(VM_MAC)]),
    sourceMac: VM_MAC,
    destinationMac: '33:33:ff:00:00:02',
    ...rest,
  });
}

/** Lets time pass, and returns how many frames of the SVM left. */
function after(rig: Rig, ms: number): number {
  rig.nowMs += ms;
  return rig.comparator.releaseDue(rig.nowMs as Instant);
}

const QUESTIONS: [string, Buffer][] = [
  ['an ARP request', arp()],
  ['one to a single station', arp({ destinationMac: CLIENT_MAC })],
  ['one for an address that the guest wants to use', arp({ sender: '0.0.0.0' })],
  ['one in a VLAN', arp({ tags: [{ id: 7 }] })],
  ['one that was padded', arp({ padTo: 60 })],
  ['a neighbour solicitation', icmpv6(135)],
  ['one to a single station', icmpv6(135, 'fd00::2', { destinationMac: CLIENT_MAC })],
  ['one for an address that the guest wants to use', icmpv6(135, 'fd00::15', { source: '::' })],
  ['a router solicitation', icmpv6(133)],
];

for (const [what, frame] of QUESTIONS) {
  test(`the SVM’s question leaves if the PVM does not ask: ${what}`, () => {
    const rig = new Rig();
    rig.svm(frame);
    assert.equal(after(rig, 49), 0);
    assert.deepEqual(rig.confirmed, [], 'a promotion would send it');
    assert.equal(after(rig, 1), 1);
    assert.deepEqual(rig.released, [{ bytes: frame, cause: 'harmless' }]);
    rig.assertConfirmed(1);
    rig.assertEmpty();
    assert.equal(after(rig, 5000), 0);
  });

  test(`it does not if the PVM asks the same within a second before or a moment after: ${what}`, () => {
    const before = new Rig();
    before.pvm(frame);
    after(before, 999);
    before.svm(frame);
    assert.equal(after(before, 500), 0);
    before.assertConfirmed(1);
    before.assertEmpty();
    before.svm(frame);
    assert.equal(after(before, 50), 1, 'a second later it does');

    const moment = new Rig();
    moment.svm(frame);
    after(moment, 49);
    assert.equal(moment.pvm(frame), 1);
    assert.equal(after(moment, 500), 0);
    moment.assertConfirmed(1);
    moment.assertEmpty();
  });
}

const NO_QUESTIONS: [string, Buffer][] = [
  ['an ARP reply', arp({ operation: 2 })],
  ['an ARP announcement', arp({ target: VM_ADDRESS[4] })],
  ['ARP of another protocol', ethernet(0x0806, Buffer.concat([u16(1, 0x86dd, 0x0610, 1), Buffer.alloc(44)]))],
  ['ARP that is cut short', arp().subarray(0, 41)],
  ['a neighbour advertisement', icmpv6(136)],
  ['a router advertisement', icmpv6(134)],
  ['a redirect', icmpv6(137)],
  ['a neighbour solicitation without target', icmpFrame({ version: 6, type: 135 })],
  ['an MLD report', icmpv6(143)],
  ['an MLD query', icmpv6(130)],
  ['an IGMP report', ethernet(0x0800, ipv4({ protocol: 2 }, Buffer.alloc(8)))],
  ['RARP', ethernet(0x8035, arp().subarray(14))],
  ['LLDP', ethernet(0x88cc, Buffer.alloc(46))],
];

for (const [what, frame] of NO_QUESTIONS) {
  test(`no other harmless frame of the SVM leaves: ${what}`, () => {
    const rig = new Rig();
    rig.svm(frame);
    rig.assertConfirmed(1);
    assert.equal(after(rig, 5000), 0);
    rig.assertEmpty();
  });
}

test('questions are the same if they ask for the same in one VLAN, whoever they are sent to', () => {
  const others = [
    arp({ target: '10.0.2.3' }),
    arp({ tags: [{ id: 7 }] }),
    arp({ tags: [{ id: 8 }] }),
    icmpv6(135),
    icmpv6(135, 'fd00::3'),
    icmpv6(135, 'fd00::2', { tags: [{ id: 7 }] }),
    icmpv6(133),
  ];
  const rig = new Rig();
  rig.pvm(arp());
  for (const frame of others) rig.svm(frame);
  rig.svm(arp({ destinationMac: CLIENT_MAC }));
  assert.equal(after(rig, 50), others.length);
});

test('a guest that looks through its network asks at most twenty times a second', () => {
  const rig = new Rig();
  let released = 0;
  for (let i = 0; i < 3000; i++) {
    rig.svm(arp({ target: `10.0.${i >> 8}.${i & 255}` }));
    released += after(rig, 1);
  }
  released += after(rig, 50);
  assert.ok(released >= 60 && released <= 80, `${released}`);
  rig.assertConfirmed(3000);
  rig.assertEmpty();
});

const TARGETS = Array.from({ length: 65 }, (_, i) => arp({ target: `10.0.3.${i}` }));

test('more questions than 64 do not wait at once: the rest is dropped, and the SVM will repeat it', () => {
  const rig = new Rig();
  for (const frame of TARGETS) rig.svm(frame);
  assert.deepEqual(rig.confirmed, [64]);
  assert.equal(rig.comparator.questionsWaiting, 64);
  after(rig, 50);
  assert.deepEqual(
    rig.released.map(({ bytes }) => bytes),
    TARGETS.slice(0, 20),
  );
  rig.assertConfirmed(65);
  rig.assertEmpty();
});

test('of the PVM’s questions the latest 64 are remembered', () => {
  for (const [first, leaves] of [
    [0, 1],
    [1, 0],
  ]) {
    const rig = new Rig();
    for (const frame of TARGETS) rig.pvm(frame);
    rig.svm(TARGETS[first]);
    assert.equal(after(rig, 50), leaves);
  }
});

test('a checkpoint drops what the former SVM asked', () => {
  for (const end of ['commit', 'discard'] as const) {
    const rig = new Rig();
    rig.svm(arp());
    rig.comparator[end]();
    assert.equal(after(rig, 500), 0);
    rig.assertEmpty();
  }
});
