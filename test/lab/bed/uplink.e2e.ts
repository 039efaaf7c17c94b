/** A host whose cable to the clients is pulled, on real bridges: seen by its node through the interface, and by the other one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Bed } from '../../../lab/bed/bed.ts';
import { machineMs } from '../../../lab/bed/clock.ts';
import { NEEDS_ROOT } from '../../namespaces.ts';

test('a primary whose cable is pulled gives way to the other host', { skip: NEEDS_ROOT }, async (t) => {
  // Its nodes watch their taps and cables, and may give way.
  const bed = await Bed.open({ arbiter: 'directory' });
  t.after(() => bed.close());
  await bed.bring();
  const up = await bed.until(
    'both up',
    5000,
    ({ a, b }) => a?.uplink.own.up === true && b?.uplink.own.up === true,
  );
  assert.equal(up.a?.uplink.peer?.up, true);
  await bed.clients.start(1);
  await sleep(2000);
  const fromMs = machineMs();
  bed.hosts.a.uplink.setCable('down');
  const seen = await bed.until('the cable', 1000, ({ b }) => b?.uplink.peer?.up === false);
  assert.equal(seen.b?.uplink.peer?.cause, 'port-down');
  await bed.until('the move', 6000, ({ b }) => b?.role === 'primary');
  const movedMs = machineMs();
  await sleep(4000);
  const blackoutMs = await bed.clients.blackoutMs(fromMs, machineMs());
  t.diagnostic(
    `b is the primary after ${Math.round(movedMs - fromMs)} ms; clients stood ${Math.round(blackoutMs)} ms`,
  );
  bed.hosts.a.uplink.setCable('up');
  await bed.until(
    'protected again',
    60_000,
    ({ a, b }) => a?.phase === 'protected' && b?.role === 'primary' && a.uplink.own.up,
  );
  const findings = await bed.clients.finish();
  assert.deepEqual([findings.lost, findings.broken], [0, 0], findings.texts.join('; '));
  assert.ok(findings.acknowledged > 100, `${findings.acknowledged} replies were checked`);
});
