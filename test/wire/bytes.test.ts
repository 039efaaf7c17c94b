import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readI32, readU16, readU32, writeI32, writeU16 } from '../../src/wire/bytes.ts';

test('reads big-endian integers at any offset', () => {
  const bytes = Buffer.from('00fffe80000001', 'hex');
  assert.equal(readU16(bytes, 1), 0xfffe);
  assert.equal(readU32(bytes, 3), 0x80000001);
  assert.equal(readI32(bytes, 3), 0x80000001 | 0);
});

test('a written integer reads back, and no other byte changes', () => {
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
