import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FLOW_KEY_WORDS } from '../../src/flow/key.ts';
import { FlowTable } from '../../src/flow/table.ts';

const IPV6_WORDS = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const IPV4_WORDS = [0, 2, 6, 10];

/** Returns a key as writeOutputKey makes it; two of them differ in one word, which depends on the number. */
function keyOf(n: number): Int32Array {
  const ipv6 = n % 2 === 0;
  const words = ipv6 ? IPV6_WORDS : IPV4_WORDS;
  const key = new Int32Array(FLOW_KEY_WORDS);
  for (const word of words) key[word] = 0x0a000202;
  key[1] = ipv6 ? 0x02060006 : 0x02040006;
  key[words[n % words.length]] = -n;
  return key;
}

function idsOf(table: FlowTable): number[] {
  const ids: number[] = [];
  table.forEach((id) => {
    ids.push(id);
  });
  return ids.sort((a, b) => a - b);
}

test('finds the keys that were inserted, and no others', () => {
  const table = new FlowTable(4, 1);
  assert.equal(table.find(keyOf(1)), -1);
  const id = table.insert(keyOf(1));
  assert.equal(table.find(keyOf(1)), id);
  assert.equal(table.find(keyOf(2)), -1);
  assert.equal(table.size, 1);
});

test('a guess is only ever a guess', () => {
  const table = new FlowTable(4, 1);
  const one = table.insert(keyOf(1));
  const two = table.insert(keyOf(2));
  for (const guess of [-1, one, two]) {
    assert.equal(table.findNear(keyOf(1), guess), one);
    assert.equal(table.findNear(keyOf(2), guess), two);
    assert.equal(table.findNear(keyOf(3), guess), -1);
  }
});

test('the flow that was found last is not found after it was removed, or the table was cleared', () => {
  const table = new FlowTable(4, 1);
  for (const end of [() => table.remove(table.find(keyOf(1))), () => table.clear()]) {
    const id = table.insert(keyOf(1));
    assert.equal(table.findNear(keyOf(1), -1), id);
    end();
    assert.equal(table.findNear(keyOf(1), -1), -1);
  }
});

test('copies the key, and does not use the array that it came in', () => {
  const table = new FlowTable(4, 1);
  const key = keyOf(1);
  const id = table.insert(key);
  key.fill(9);
  const read = new Int32Array(FLOW_KEY_WORDS);
  table.readKey(id, read);
  assert.deepEqual(read, keyOf(1));
});

test('returns -1 if full, and gives the id of a removed key to the next one', () => {
  const table = new FlowTable(3, 1);
  const ids = [1, 2, 3].map((n) => table.insert(keyOf(n)));
  assert.deepEqual([...ids].sort(), [0, 1, 2], 'ids are dense');
  assert.equal(table.insert(keyOf(4)), -1);
  assert.equal(table.find(keyOf(4)), -1);
  assert.equal(table.size, 3);
  table.remove(ids[1]);
  assert.equal(table.find(keyOf(2)), -1);
  assert.equal(table.insert(keyOf(4)), ids[1]);
  assert.equal(table.find(keyOf(4)), ids[1]);
});

test('clear removes all keys and frees all ids', () => {
  const table = new FlowTable(3, 1);
  for (const n of [1, 2, 3]) table.insert(keyOf(n));
  table.clear();
  assert.deepEqual([table.size, idsOf(table), table.find(keyOf(1))], [0, [], -1]);
  for (const n of [4, 5, 6]) assert.notEqual(table.insert(keyOf(n)), -1);
  assert.deepEqual(idsOf(table), [0, 1, 2]);
});

test('the seed decides where a key lies', () => {
  const order = (seed: number) => {
    const table = new FlowTable(8, seed);
    for (let n = 0; n < 8; n++) table.insert(keyOf(n));
    const ids: number[] = [];
    table.forEach((id) => {
      ids.push(id);
    });
    return ids.join();
  };
  assert.equal(order(5), order(5));
  assert.ok(new Set([1, 2, 3, 4, 5].map(order)).size > 1);
});

type Step = { what: 'toggle' | 'clear'; n: number };

const step: fc.Arbitrary<Step> = fc.record({
  what: fc.oneof(
    { weight: 60, arbitrary: fc.constant('toggle' as const) },
    { weight: 1, arbitrary: fc.constant('clear' as const) },
  ),
  n: fc.nat(23),
});

test('behaves like a Map, in a table so small that keys collide all the time', () => {
  const all = Array.from({ length: 24 }, (_, n) => keyOf(n));
  const read = new Int32Array(FLOW_KEY_WORDS);
  fc.assert(
    fc.property(
      fc.integer(),
      fc.integer({ min: 1, max: 16 }),
      fc.array(step, { maxLength: 120, size: 'max' }),
      (seed, flowsMax, steps) => {
        const table = new FlowTable(flowsMax, seed);
        const model = new Map<number, number>();
        for (const { what, n } of steps) {
          const id = model.get(n);
          if (what === 'clear') {
            table.clear();
            model.clear();
          } else if (id !== undefined) {
            table.remove(id);
            model.delete(n);
          } else {
            const given = table.insert(all[n]);
            assert.equal(given < 0, model.size === flowsMax, 'full exactly when it is');
            assert.ok(given < flowsMax && ![...model.values()].includes(given));
            if (given >= 0) model.set(n, given);
          }
          assert.equal(table.size, model.size);
          for (const [other, key] of all.entries()) assert.equal(table.find(key), model.get(other) ?? -1);
        }
        assert.deepEqual(
          idsOf(table),
          [...model.values()].sort((a, b) => a - b),
        );
        for (const [n, id] of model) {
          table.readKey(id, read);
          assert.deepEqual(read, all[n]);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('a table of a hundred thousand flows', () => {
  const flows = 100_000;
  const table = new FlowTable(flows, 7);
  for (let n = 0; n < flows; n++) assert.equal(table.insert(keyOf(n)), n);
  for (let n = 0; n < flows; n += 2) table.remove(n);
  for (let n = 0; n < flows; n++) assert.equal(table.find(keyOf(n)), n % 2 === 0 ? -1 : n);
});
