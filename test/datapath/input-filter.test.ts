import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InputFilter } from '../../src/datapath/input-filter.ts';
import { ethernet, VM_MAC } from '../frames.ts';

const filter = new InputFilter(VM_MAC);
const OTHER = '52:54:00:12:34:57';

for (const [name, link, accepted] of [
  ['a frame to the VM', { destinationMac: VM_MAC }, true],
  ['a broadcast', { destinationMac: 'ff:ff:ff:ff:ff:ff' }, true],
  ['a multicast', { destinationMac: '33:33:00:00:00:01' }, true],
  ['a frame to another machine', { destinationMac: OTHER }, false],
  [
    'a frame to an address that differs in the first two bytes',
    { destinationMac: '52:55:00:12:34:56' },
    false,
  ],
  ['an echo of the VM’s output', { sourceMac: VM_MAC, destinationMac: 'ff:ff:ff:ff:ff:ff' }, false],
] as const) {
  test(`${name} is ${accepted ? 'accepted' : 'dropped'}`, () => {
    const frame = ethernet(0x0800, Buffer.alloc(4), link);
    const bytes = Buffer.concat([Buffer.alloc(3), frame]);
    assert.equal(filter.accepts(bytes, 3, frame.length), accepted);
  });
}

test('a frame without a whole Ethernet header is dropped', () => {
  const frame = ethernet(0x0800, Buffer.alloc(0), { destinationMac: VM_MAC });
  assert.equal(filter.accepts(frame, 0, 14), true);
  assert.equal(filter.accepts(frame, 0, 13), false);
});

test('addresses with the high bit set in each byte are compared as well', () => {
  const high = new InputFilter('fe:ff:ff:ff:ff:ff');
  const frame = ethernet(0, Buffer.alloc(0), { destinationMac: 'fe:ff:ff:ff:ff:ff' });
  assert.equal(high.accepts(frame, 0, 14), true);
});
