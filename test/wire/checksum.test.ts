import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  adjustChecksum,
  checksumChange32,
  foldChecksum,
  headerChecksumHolds,
  sumWords,
  transportChecksum,
} from '../../src/wire/checksum.ts';
import { internetChecksum, ipv4, tcpFrame } from '../frames.ts';

test('RFC 1071 section 3: the example sums to 0xddf2', () => {
  const bytes = Buffer.from('0001f203f4f5f6f7', 'hex');
  assert.equal(sumWords(bytes, 0, 8, 0), 0x2ddf0);
  assert.equal(foldChecksum(0x2ddf0), ~0xddf2 & 0xffff);
});

test('an odd last byte is the high half of a word', () => {
  assert.equal(sumWords(Buffer.from('0102ff', 'hex'), 0, 3, 0), 0x0102 + 0xff00);
  assert.equal(sumWords(Buffer.from('99010203', 'hex'), 1, 3, 5), 0x0102 + 0x0300 + 5);
});

test('the sum is the remainder by 0xffff, up to the longest datagram', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(3), (bytes, at) => {
      const shifted = Buffer.concat([Buffer.alloc(at, 0xff), bytes, Buffer.from([0xff])]);
      assert.equal(foldChecksum(sumWords(shifted, at, bytes.length, 0)), internetChecksum(bytes));
    }),
  );
  const longest = Buffer.alloc(65535, 0xff);
  assert.equal(foldChecksum(sumWords(longest, 0, 65535, 0)), internetChecksum(longest));
});

test('a header checksum holds, and with one wrong bit it does not', () => {
  const header = ipv4({ protocol: 6, id: 0xbeef }, Buffer.alloc(0));
  assert.equal(headerChecksumHolds(header, 0, 20), true);
  for (let bit = 0; bit < 160; bit++) {
    header[bit >> 3] ^= 1 << (bit & 7);
    assert.equal(headerChecksumHolds(header, 0, 20), false, `bit ${bit}`);
    header[bit >> 3] ^= 1 << (bit & 7);
  }
});

test('a transport checksum covers the pseudo header', () => {
  for (const version of [4, 6] as const) {
    for (const payload of [Buffer.alloc(0), Buffer.from('odd')]) {
      const frame = tcpFrame({ version, seq: 1, ack: 2, payload });
      const [addresses, bytes, l4] = version === 4 ? [26, 8, 34] : [22, 32, 54];
      const stored = frame.readUInt16BE(l4 + 16);
      frame.writeUInt16BE(0, l4 + 16);
      assert.equal(transportChecksum(frame, addresses, bytes, 6, l4, frame.length - l4), stored);
    }
  }
});

const adjusted = (checksum: number, before: number, after: number, offset: number): number =>
  adjustChecksum(checksum, checksumChange32(before, after, offset));

test('RFC 1624 section 4: the example that equation 2 gets wrong', () => {
  // The 16-bit field goes from 0x5555 to 0x3285; the right answer is 0x0000, not 0xffff.
  assert.equal(adjusted(0xdd2f, 0x5555, 0x3285, 0), 0x0000);
  assert.equal(adjusted(0xdd2f, 0x55550000 | 0, 0x32850000 | 0, 0), 0x0000);
});

/** Words at the corners of one's complement arithmetic, and any others. */
const word = fc.oneof(fc.constantFrom(0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff), fc.nat(0xffff));
const field = fc.tuple(word, word).map(([high, low]) => (high << 16) | low);

test('an incremental update equals a recomputation, at even and odd offsets', () => {
  fc.assert(
    fc.property(
      fc.array(word, { maxLength: 6 }),
      field,
      field,
      fc.nat(12),
      fc.boolean(),
      (words, before, after, offset, cornered) => {
        // Never all zero, like a segment with its pseudo header: then the sum has only one representation.
        const bytes = Buffer.from([0, 6, ...words.flatMap((w) => [w >> 8, w & 255]), 0, 0, 0, 0]);
        const at = 2 + Math.min(offset, bytes.length - 6);
        bytes.writeInt32BE(before, at);
        if (cornered && at >= 4) {
          // Makes the whole sum 0xffff, and therefore the checksum 0x0000.
          bytes.writeUInt16BE(6, 0);
          const rest = internetChecksum(bytes);
          bytes.writeUInt16BE((6 + rest) % 0xffff || 0xffff, 0);
          assert.equal(internetChecksum(bytes), 0);
        }
        const old = internetChecksum(bytes);
        bytes.writeInt32BE(after, at);
        assert.equal(adjusted(old, before, after, at), internetChecksum(bytes));
      },
    ),
    { numRuns: 2000 },
  );
});

test('0xffff in place of 0x0000 still verifies after an update', () => {
  fc.assert(
    fc.property(field, field, field, (other, before, after) => {
      fc.pre(other !== 0);
      const bytes = Buffer.alloc(10);
      bytes.writeInt32BE(other, 0);
      bytes.writeInt32BE(before, 4);
      const old = internetChecksum(bytes);
      bytes.writeInt32BE(after, 4);
      bytes.writeUInt16BE(adjusted(old === 0 ? 0xffff : old, before, after, 0), 8);
      assert.equal(internetChecksum(bytes), 0);
    }),
    { numRuns: 1000 },
  );
});
