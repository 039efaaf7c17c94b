import assert from 'node:assert/strict';
import { test } from 'node:test';
import { partialChecksumAt } from '../../src/wire/virtio-net.ts';

/** flags, gso_type, hdr_len, gso_size, csum_start 34, csum_offset 16, num_buffers */
const HEADER = Buffer.from([1, 1, 66, 0, 0xa8, 0x05, 34, 0, 16, 0, 0, 0]);

function at(header: Buffer, headerBytes = header.length, frameBytes = 66): number {
  const bytes = Buffer.concat([Buffer.alloc(8, 0xa5), header, Buffer.alloc(frameBytes)]);
  return partialChecksumAt(bytes, 8, header.length + frameBytes, headerBytes);
}

test('the checksum lies at csum_start + csum_offset of the frame after the header', () => {
  assert.equal(at(HEADER), 8 + 12 + 34 + 16);
  assert.equal(at(HEADER.subarray(0, 10)), 8 + 10 + 34 + 16);
});

test('a checksum is not partial if the flag is not set, or without a header, or outside the frame', () => {
  const without = Buffer.from(HEADER);
  without[0] = 2;
  assert.equal(at(without), -1);
  assert.equal(at(HEADER, 0), -1);
  assert.equal(at(HEADER, 9), -1);
  assert.equal(at(HEADER, 12, 52), 8 + 12 + 50, 'its last byte is the last of the frame');
  assert.equal(at(HEADER, 12, 51), -1);
});
