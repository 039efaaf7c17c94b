/** `colo compare --qmp` and a QMP that is held by another program, or does not reply. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { udp } from '../compare/rig.ts';
import { rig } from './qmp-rig.ts';

// Each waits for timers of its own process.
describe('a QMP and who replies', { concurrency: true }, () => {
  for (const replies of ['accepts', 'to none', 'to capabilities'] as const) {
    test(`a QMP that replies ${replies.replace('accepts', 'nothing, as another program holds it')}: notified of at once and again, and asked again`, async (t) => {
      const { colo, monitor, primary, out } = await rig(t, replies);
      const first = await colo.until('compare.unknown');
      assert.equal(first.meanwhile, 'released');
      assert.equal(colo.of('stream.up').length, 3);
      assert.equal(colo.events[0].type, 'compare.unknown', 'before anything else');
      primary.send(udp('uncompared'));
      assert.deepEqual(await out.next(), udp('uncompared'));
      await colo.until('qmp.down');
      await colo.until('compare.unknown', 2);
      // The other program leaves: from the reply on, nothing leaves uncompared.
      monitor.replies = 'to all';
      await colo.until('checkpoint.asked');
      primary.send(udp('held'));
      // QEMU drops a request that comes during a checkpoint.
      await colo.until('checkpoint.asked', 3);
      assert.equal(out.unread, 0);
      assert.ok(monitor.asked >= 2);
      monitor.send('STOP');
      monitor.send('RESUME');
      await colo.until('checkpoint.committed');
      assert.deepEqual(await out.next(), udp('held'));
      await colo.stop();
    });
  }

  test('a QEMU that no longer replies is noticed, and so is COLO_EXIT', async (t) => {
    const { colo, monitor, primary, secondary, out } = await rig(t, 'to all');
    await colo.until('checkpoint.asked');
    monitor.send('STOP');
    monitor.send('RESUME');
    await colo.until('checkpoint.committed');
    monitor.replies = 'to capabilities';
    await colo.until('qmp.down');
    assert.equal((await colo.until('compare.unknown', 2)).meanwhile, 'held');
    monitor.replies = 'to all';
    await colo.until('qmp.up', 2);
    monitor.send('COLO_EXIT', { mode: 'primary', reason: 'error' });
    const { mode, reason } = await colo.until('colo.exit');
    assert.deepEqual([mode, reason], ['primary', 'error']);
    await colo.until('compare.broken');
    primary.send(udp('same'), udp('left'));
    secondary.send(udp('same'), udp('RIGHT'));
    assert.deepEqual(await out.next(), udp('same'));
    await sleep(300);
    assert.equal(out.unread, 0);
    monitor.mode = 'none';
    monitor.send('RESUME');
    await colo.until('compare.alone');
    assert.deepEqual(await out.next(), udp('left'));
    await colo.stop();
  });
});
