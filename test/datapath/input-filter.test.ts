import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InputFilter } from '../../src/datapath/input-filter.ts';
import { ethernet, VM_MAC } from '../frames.ts';

const filter = new InputFilter(VM_MAC);
const OTHER = '52:54:00:12:34:57';

for (const [name, link, accepted] of [
  ['to the VM', { destinationMac: VM_MAC }, true],
  ['to everybody', { destinationMac: 'ff:ff:ff:ff:ff:ff' }, true],
  ['to a group', { destinationMac: '33:33:00:00:00:01' }, true],
  ['to another machine', { destinationMac: OTHER }, false],
  ['to one that differs in the first two bytes', { destinationMac: '52:55:00:12:34:56' }, false],
  ['an echo of the VM', { sourceMac: VM_MAC, destinationMac: 'ff:ff:ff:ff:ff:ff' }, false],
] as const) {
  test(`${name}: ${accepted ? 'heard' : 'not heard'}`, () => {
    const frame = ethernet(0x0800, Buffer.alloc(4), link);
    const bytes = Buffer.concat([Buffer.alloc(3), frame]);
    assert.equal(filter.accepts(bytes, 3, frame.length), accepted);
  });
}

test('a frame without a whole header is not heard', () => {
  const frame = ethernet(0x0800, Buffer.alloc(0), { destinationMac: VM_MAC });
  assert.equal(filter.accepts(frame, 0, 14), true);
  assert.equal(filter.accepts(frame, 0, 13), false);
});

test('addresses with high bytes are compared as well', () => {
  const high = new InputFilter('fe:ff:ff:ff:ff:ff');
  const frame = ethernet(0, Buffer.alloc(0), { destinationMac: 'fe:ff:ff:ff:ff:ff' });
  assert.equal(high.accepts(frame, 0, 14), true);
});
