import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { readCarrier } from '../../src/io/carrier.ts';
import { NEEDS_ROOT } from '../namespaces.ts';

test('the loopback has a carrier, and what does not exist is no interface', async () => {
  assert.equal(await readCarrier('lo'), 'carrier');
  assert.equal(await readCarrier('colo-none'), 'no-interface');
});

test('a cable that is pulled, and a port that is down, are told apart', { skip: NEEDS_ROOT }, async (t) => {
  const [near, far] = [`cn${process.pid}`, `cf${process.pid}`];
  const ip = (...args: string[]) => execFileSync('ip', args);
  ip('link', 'add', near, 'type', 'veth', 'peer', 'name', far);
  t.after(() => ip('link', 'del', near));
  assert.equal(await readCarrier(near), 'port-down');
  ip('link', 'set', near, 'up');
  assert.equal(await readCarrier(near), 'no-carrier');
  ip('link', 'set', far, 'up');
  assert.equal(await readCarrier(near), 'carrier');
});
