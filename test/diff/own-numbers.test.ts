import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OwnNumbers } from '../../src/diff/own-numbers.ts';

test('a segment goes on where the last one ended, also after others that came out of order', () => {
  const own = new OwnNumbers();
  assert.equal(own.goesOn(0, 10), false);
  own.begin(-5);
  assert.equal(own.goesOn(-5, 10), true);
  // A jump, and two segments in the wrong order.
  assert.equal(own.goesOn(500, 510), false);
  assert.equal(own.goesOn(30, 40), false);
  assert.equal(own.goesOn(20, 30), false);
  assert.equal(own.goesOn(10, 20), true);
  assert.equal(own.goesOn(40, 50), true);
  // A repetition does not go on, and changes nothing.
  assert.equal(own.goesOn(0, 10), false);
  assert.equal(own.goesOn(50, 60), true);
  own.begin(null);
  assert.equal(own.goesOn(60, 70), false);
});

test('of the segments that lie beyond the end, the latest are remembered', () => {
  const own = new OwnNumbers();
  own.begin(0);
  for (let from = 10; from < 100; from += 10) own.goesOn(from, from + 10);
  assert.equal(own.goesOn(0, 20), true);
  assert.equal(own.goesOn(100, 110), true);
});
