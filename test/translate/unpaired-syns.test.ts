import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FLOW_KEY_WORDS } from '../../src/flow/key.ts';
import { UnpairedSyns } from '../../src/translate/unpaired-syns.ts';
import { NONE } from '../../src/units.ts';

function keyOf(port: number, destination: number): Int32Array {
  const key = new Int32Array(FLOW_KEY_WORDS);
  key[6] = destination;
  key[10] = (port << 16) | 443;
  return key;
}

test('each destination is first in, first out, whatever is removed in between', () => {
  const steps = fc.array(fc.record({ name: fc.nat(15), destination: fc.nat(2), add: fc.boolean() }), {
    maxLength: 60,
  });
  fc.assert(
    fc.property(steps, (all) => {
      const unpaired = new UnpairedSyns(16, 1);
      const model: number[][] = [[], [], []];
      for (const { name, destination, add } of all) {
        if (!add) {
          unpaired.remove(name);
          for (const list of model) if (list.includes(name)) list.splice(list.indexOf(name), 1);
        } else if (!model.some((list) => list.includes(name))) {
          unpaired.add(keyOf(1000 + name, destination), name);
          model[destination].push(name);
        }
        for (const [of, list] of model.entries())
          assert.equal(unpaired.first(keyOf(50000, of)), list[0] ?? NONE, `destination ${of}`);
      }
      unpaired.clear();
      for (const of of model.keys()) assert.equal(unpaired.first(keyOf(1, of)), NONE);
      for (let name = 0; name < 16; name++) unpaired.remove(name);
    }),
  );
});

test('another port of the client, or another VLAN, is another destination', () => {
  const unpaired = new UnpairedSyns(4, 1);
  unpaired.add(keyOf(1, 0), 3);
  const [port, vlan] = [keyOf(1, 0), keyOf(1, 0)];
  port[10]++;
  vlan[0] = 5;
  assert.deepEqual(
    [unpaired.first(port), unpaired.first(vlan), unpaired.first(keyOf(2, 0))],
    [NONE, NONE, 3],
  );
});
