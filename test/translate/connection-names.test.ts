import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FLOW_KEY_WORDS } from '../../src/flow/key.ts';
import { ConnectionNames } from '../../src/translate/connection-names.ts';
import { NONE } from '../../src/units.ts';

function keyOf(port: number): Int32Array {
  const key = new Int32Array(FLOW_KEY_WORDS);
  key[10] = (port << 16) | 443;
  return key;
}

const nameOf = (names: ConnectionNames, port: number) => names.withPort(keyOf(port), port);

test('an ordinary connection has one name, a mapped one two', () => {
  const names = new ConnectionNames(8, 1);
  const ordinary = nameOf(names, 65535);
  names.link(ordinary, ordinary);
  assert.deepEqual([names.size, names.connections, names.port[ordinary]], [1, 1, 65535]);
  const [vm, client] = [nameOf(names, 7), nameOf(names, 8)];
  names.link(vm, client);
  assert.deepEqual([names.size, names.connections], [3, 2]);
  assert.deepEqual(
    [names.clientName[vm], names.vmName[client], names.clientName[client], names.vmName[vm]],
    [client, vm, NONE, NONE],
  );
  names.unlink(vm);
  names.dropUnlinked(vm);
  names.dropUnlinked(client);
  assert.deepEqual([names.size, names.connections, names.find(keyOf(7))], [1, 1, NONE]);
});

test('a name that is used by another connection stays when one ends', () => {
  const names = new ConnectionNames(8, 1);
  const [seven, eight] = [nameOf(names, 7), nameOf(names, 8)];
  names.link(seven, eight);
  names.link(eight, seven);
  names.unlink(seven);
  names.dropUnlinked(seven);
  names.dropUnlinked(eight);
  assert.equal(names.size, 2);
  assert.equal(names.clientName[eight], seven);
});

test("names are exchanged, never shared: the ports that clients know are a permutation of the VM's", () => {
  const ports = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { maxLength: 12 });
  fc.assert(
    fc.property(ports, (links) => {
      const names = new ConnectionNames(16, 1);
      const all = Array.from({ length: 10 }, (_, port) => nameOf(names, port));
      for (const [vm, client] of links) {
        if (names.clientName[all[vm]] === NONE && names.vmName[all[client]] === NONE)
          names.link(all[vm], all[client]);
      }
      const out = (name: number) =>
        names.clientName[name] === NONE ? names.freeClientName(name) : names.clientName[name];
      const back = (name: number) =>
        names.vmName[name] === NONE ? names.freeVmName(name) : names.vmName[name];
      assert.equal(new Set(all.map(out)).size, 10);
      for (const name of all) assert.equal(back(out(name)), name);
    }),
  );
});

test('a full table takes no further name', () => {
  const names = new ConnectionNames(1, 1);
  assert.notEqual(nameOf(names, 1), NONE);
  assert.equal(nameOf(names, 2), NONE);
  names.clear();
  assert.deepEqual([names.size, names.connections], [0, 0]);
  assert.notEqual(nameOf(names, 2), NONE);
});
