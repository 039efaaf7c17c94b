import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { equalBytes, readI32, readU16, readU32, writeI32, writeU16 } from '../../src/wire/bytes.ts';

test('reads big-endian integers at any offset', () => {
  const bytes = Buffer.from('00fffe80000001', 'hex');
  assert.equal(readU16(bytes, 1), 0xfffe);
  assert.equal(readU32(bytes, 3), 0x80000001);
  assert.equal(readI32(bytes, 3), 0x80000001 | 0);
});

test('writes what it reads and touches nothing else', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 3 }), fc.nat(0xffff), fc.integer(), (at, short, long) => {
      const bytes = Buffer.alloc(8, 0xa5);
      writeU16(bytes, at, short);
      const expected = Buffer.alloc(8, 0xa5);
      expected.writeUInt16BE(short, at);
      assert.deepEqual(bytes, expected);
      assert.equal(readU16(bytes, at), short);
      writeI32(bytes, at, long);
      expected.writeInt32BE(long, at);
      assert.deepEqual(bytes, expected);
      assert.equal(readI32(bytes, at), long);
      assert.equal(readU32(bytes, at), long >>> 0);
    }),
  );
});

test('compares ranges, short by a loop and long by memcmp', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 80 }),
      fc.nat(5),
      fc.nat(5),
      fc.nat(79),
      (content, aAt, bAt, flip) => {
        const a = Buffer.concat([Buffer.alloc(aAt, 1), content, Buffer.from([3])]);
        const b = Buffer.concat([Buffer.alloc(bAt, 2), content, Buffer.from([4])]);
        assert.equal(equalBytes(a, aAt, b, bAt, content.length), true);
        if (flip >= content.length) return;
        b[bAt + flip] ^= 0x80;
        assert.equal(equalBytes(a, aAt, b, bAt, content.length), false);
        assert.equal(equalBytes(a, aAt, b, bAt, flip), true);
      },
    ),
  );
});
