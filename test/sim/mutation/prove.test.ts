import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MUTATIONS } from './mutations.ts';
import { prove } from './prove.ts';

/** One mutation for each of four rules, found within the first few worlds. `npm run sim -- --mutations` proves all. */
const QUICK = new Map([
  ['datagram-without-counterpart', 'output commit'],
  ['gate-loses-input', 'accounting'],
  ['gate-stays-open', 'same input'],
  ['slab-never-released', 'bounded'],
]);

for (const [name, rule] of QUICK) {
  test(`${name} is found by the rule of ${rule}`, async () => {
    const mutation = MUTATIONS.find((one) => one.name === name);
    assert.ok(mutation !== undefined);
    const { found, failure } = await prove({ ...mutation, seedsMax: 10 });
    assert.equal(failure, null);
    assert.equal(found?.rule, rule);
  });
}

test('not-read-while-asking is found by its test', async () => {
  const mutation = MUTATIONS.find((one) => one.name === 'not-read-while-asking');
  assert.ok(mutation !== undefined);
  const { found, failure } = await prove(mutation);
  assert.equal(failure, null);
  assert.equal(found?.rule, 'test');
});
