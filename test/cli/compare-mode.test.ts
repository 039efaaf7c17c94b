/** `colo compare --qmp` and what QEMU says of its COLO mode. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { udp } from '../compare/rig.ts';
import { rig } from './qmp-rig.ts';

test('a pair that begins and ends without an event is noticed', async (t) => {
  const { colo, monitor, primary, out } = await rig(t, 'to all', 'none');
  await colo.until('compare.alone');
  monitor.mode = 'primary';
  await colo.until('checkpoint.asked');
  primary.send(udp('held'));
  await colo.until('checkpoint.asked', 2);
  assert.equal(out.unread, 0);
  monitor.mode = 'none';
  await colo.until('compare.alone', 2);
  assert.deepEqual(await out.next(), udp('held'));
  await colo.stop();
});

test("a secondary's QMP is not taken for a primary without COLO", async (t) => {
  const { colo } = await rig(t, 'to all', 'secondary');
  assert.match(String((await colo.until('qmp.down')).cause), /not the primary's QEMU.*secondary/);
  assert.deepEqual(colo.of('compare.alone'), []);
  await colo.stop();
});

test('colo compare stops at once though QMP does not reply', async (t) => {
  const { colo } = await rig(t, 'accepts');
  const sinceMs = performance.now();
  await colo.stop();
  assert.ok(performance.now() - sinceMs < 2000);
});
