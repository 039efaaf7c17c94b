import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sameBytesIn, sameBytesPlain } from '../../src/frames/same-bytes.ts';

const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
const bytes = new Uint8Array(memory.buffer);
const same = sameBytesIn(memory);

test('every length at every alignment, equal and with one bit flipped, as sameBytesPlain has it', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 200 }),
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 0, max: 40 }),
      fc.nat(),
      (length, aAt, gap, flip) => {
        const a = 100 + aAt;
        const b = 1000 + gap;
        bytes.fill(0);
        for (let i = 0; i < length; i++) bytes[a + i] = bytes[b + i] = (i * 7 + 1) & 0xff;
        // Bytes around the ranges do not count.
        bytes[a - 1] = bytes[a + length] = 0xff;
        assert.equal(same(a, b, length), 1);
        assert.equal(sameBytesPlain(bytes, a, b, length), true);
        if (length === 0) return;
        bytes[b + (flip % length)] ^= 1 << (flip % 8);
        assert.equal(same(a, b, length), 0);
        assert.equal(sameBytesPlain(bytes, a, b, length), false);
      },
    ),
    { numRuns: 3000 },
  );
});

test('a range outside of the memory traps', () => {
  assert.throws(() => same(65_530, 0, 16), WebAssembly.RuntimeError);
});
