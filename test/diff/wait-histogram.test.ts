import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { toMicros, WaitHistogram } from '../../src/diff/wait-histogram.ts';

test('percentiles are right to 3%', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0, max: 100_000, noNaN: true }), { minLength: 1, maxLength: 100 }),
      fc.double({ min: 0.01, max: 1, noNaN: true }),
      (values, fraction) => {
        const waits = new WaitHistogram();
        for (const value of values) waits.add(value);
        const exact = values.toSorted((a, b) => a - b)[Math.ceil(fraction * values.length) - 1];
        const told = waits.quantile(fraction);
        assert.ok(told >= exact - 0.001 && told <= exact * 1.03 + 0.001, `${told} for ${exact}`);
        assert.equal(waits.maxMs, Math.max(...values));
      },
    ),
  );
});

test('no wait, no frame and a very long wait have percentiles, too', () => {
  const waits = new WaitHistogram();
  assert.deepEqual([waits.quantile(0.5), waits.maxMs], [0, 0]);
  waits.add(0);
  assert.equal(waits.quantile(0.99), 0);
  waits.add(1e12);
  assert.deepEqual([waits.quantile(0.5), waits.maxMs], [0, 1e12]);
});

test('milliseconds are rounded to the microsecond', () => {
  assert.deepEqual([toMicros(1.00049), toMicros(2.0000001), toMicros(0)], [1, 2, 0]);
});
