import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../src/limits.ts';
import { Places } from '../../src/pair/places.ts';
import {
  address,
  arpFrame,
  icmpFrame,
  isUntouchedAround,
  placed,
  type Tag,
  udpFrame,
  VM_MAC,
} from '../frames.ts';

const OTHER = '02:00:00:00:00:09';

function noted(places: Places, how: 'sent' | 'heard', ...frames: Buffer[]): void {
  for (const frame of frames) {
    const { bytes, at, length } = placed(frame);
    places[how](bytes, at, length);
    assert.ok(isUntouchedAround({ bytes, at, length }));
  }
}

const arp = (source: string, more: { tags?: Tag[]; sourceMac?: string; operation?: number } = {}) =>
  arpFrame({ sourceMac: VM_MAC, source, ...more });
const neighbor = (type: 135 | 136, source: string, target: string, sourceMac = VM_MAC, tags: Tag[] = []) =>
  icmpFrame({ version: 6, type, source, sourceMac, tags, payload: address(target) });
const hex = (...texts: string[]) => texts.map((text) => address(text).toString('hex'));
const untagged = (...addresses: string[]) => ({ tags: [], addresses: hex(...addresses) });

test('addresses are learnt from ARP, and from what neighbours are asked and told', () => {
  const places = new Places(VM_MAC);
  assert.deepEqual(places.list(), [untagged()]);
  noted(places, 'sent', arp('10.0.2.15'), arp('10.0.2.16', { operation: 2 }));
  noted(places, 'sent', neighbor(135, 'fe80::15', 'fe80::1'), neighbor(136, 'fe80::15', 'fd00::15'));
  assert.deepEqual(places.list(), [untagged('10.0.2.15', '10.0.2.16', 'fe80::15', 'fd00::15')]);
  const { version } = places;
  noted(places, 'sent', arp('10.0.2.15'), neighbor(135, 'fe80::15', 'fe80::1'));
  assert.equal(places.version, version, 'nothing new');
});

test('an address that may be in use by another station is not learnt', () => {
  const places = new Places(VM_MAC);
  noted(places, 'sent', arp('0.0.0.0'), neighbor(135, '::', 'fd00::15'));
  // The guest forwards for another station, or repeats its frame.
  noted(places, 'sent', arp('10.0.2.9', { sourceMac: OTHER }));
  noted(places, 'sent', neighbor(136, 'fe80::15', 'ff02::1'));
  noted(places, 'sent', udpFrame({ sourceMac: VM_MAC, source: '10.0.2.20' }));
  noted(places, 'sent', udpFrame({ version: 6, sourceMac: VM_MAC, source: 'fd00::20' }));
  assert.deepEqual(places.list(), [untagged()]);
});

test('VLANs are learnt from any frame, and addresses in each of them', () => {
  const places = new Places(VM_MAC);
  const tags = [{ id: 9 }];
  noted(places, 'sent', udpFrame({ sourceMac: VM_MAC, tags }));
  noted(places, 'sent', arp('10.9.0.1', { tags: [{ id: 5, type: 0x88a8 }, { id: 9 }] }));
  noted(places, 'sent', neighbor(135, 'fe80::9', 'fe80::1', VM_MAC, tags));
  // A tag that is there for its priority alone.
  noted(places, 'sent', arp('10.0.2.15', { tags: [{ id: 0, priority: 6 }] }));
  const nine = { etherType: 0x8100, id: 9 };
  const list = [
    untagged('10.0.2.15'),
    { tags: [nine], addresses: hex('fe80::9') },
    { tags: [{ etherType: 0x88a8, id: 5 }, nine], addresses: hex('10.9.0.1') },
  ];
  const byTags = (places: Places) => places.list().map(({ tags, addresses }) => ({ tags, addresses }));
  assert.deepEqual(byTags(places), list);
  const peer = new Places(VM_MAC);
  noted(peer, 'sent', arp('192.0.2.1', { tags: [{ id: 77 }] }));
  peer.replace(list);
  assert.deepEqual(peer.list(), list, 'the list of the peer takes the place of what was known');
  noted(peer, 'sent', arp('10.9.0.1', { tags: [{ id: 5, type: 0x88a8 }, { id: 9 }] }));
  assert.deepEqual(peer.list(), list);
});

test('an address that another station shows to have is forgotten, in that VLAN', () => {
  const places = new Places(VM_MAC);
  const tags = [{ id: 9 }];
  noted(places, 'sent', arp('10.0.2.15'), arp('10.0.2.15', { tags }), neighbor(136, 'fe80::15', 'fd00::15'));
  noted(places, 'heard', arp('10.0.2.99', { sourceMac: OTHER }), neighbor(135, 'fd00::2', 'fd00::15', OTHER));
  noted(places, 'heard', udpFrame({ source: '10.0.2.15' }));
  assert.equal(places.list()[0].addresses.length, 2);
  noted(places, 'heard', arp('10.0.2.15', { sourceMac: OTHER, operation: 2 }));
  noted(places, 'heard', neighbor(136, 'fd00::15', 'fd00::15', OTHER));
  assert.deepEqual(
    places.list().map(({ addresses }) => addresses),
    [[], hex('10.0.2.15')],
  );
  // The VM defends it.
  noted(places, 'sent', arp('10.0.2.15'));
  assert.deepEqual(places.list()[0].addresses, hex('10.0.2.15'));
});

test('both tables are bounded', () => {
  const places = new Places(VM_MAC, { ...LIMITS, placesMax: 3, placeAddressesMax: 4 });
  for (let id = 1; id < 10; id++) noted(places, 'sent', arp(`10.0.0.${id}`, { tags: [{ id }] }));
  assert.deepEqual(
    places.list().map(({ tags, addresses }) => [tags[0]?.id, addresses.length]),
    [
      [undefined, 0],
      [1, 1],
      [2, 1],
    ],
  );
  for (let last = 1; last < 10; last++) noted(places, 'sent', arp(`10.0.1.${last}`));
  assert.deepEqual(places.list()[0].addresses.sort(), hex('10.0.1.6', '10.0.1.7', '10.0.1.8', '10.0.1.9'));
});

test('a frame that ends within what it promises teaches nothing', () => {
  for (const whole of [
    arp('10.0.2.15', { tags: [{ id: 3 }, { id: 4 }] }),
    neighbor(136, 'fe80::15', 'fd00::15', VM_MAC, [{ id: 3 }, { id: 4 }]),
  ])
    for (let length = 0; length < whole.length; length++) {
      const places = new Places(VM_MAC);
      noted(places, 'sent', whole.subarray(0, length));
      noted(places, 'heard', whole.subarray(0, length));
      assert.ok(
        places.list().every(({ addresses }) => addresses.length === 0),
        `${length} bytes`,
      );
    }
});
