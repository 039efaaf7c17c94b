import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { SystemdNotifier } from '../../src/cli/sd-notify.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { tempFolder } from '../temp-folder.ts';
import { NotifySocket } from './notify-socket.ts';

for (const kind of ['path', 'abstract'] as const)
  test(`a service reports its readiness, phases, life and end to a socket by its ${kind} name`, async (t) => {
    const name = kind === 'path' ? join(tempFolder(t), 'notify') : `@colo-test-${process.pid}`;
    const systemd = new NotifySocket(name, t);
    const time = new FakeTime();
    let phase = 'starting';
    const notifier = SystemdNotifier.from({ NOTIFY_SOCKET: name, WATCHDOG_USEC: '900000' }, 7, time);
    assert.ok(notifier !== null);
    notifier.ready(() => phase);
    assert.deepEqual(systemd.take(), ['READY=1', 'STATUS=starting\nWATCHDOG=1']);
    await time.pass(299);
    assert.deepEqual(systemd.take(), []);
    await time.pass(1);
    assert.deepEqual(systemd.take(), ['WATCHDOG=1']);
    phase = 'primary,\nprotected';
    await time.pass(300);
    assert.deepEqual(systemd.take(), ['STATUS=primary, protected\nWATCHDOG=1']);
    notifier.stopping();
    await time.pass(300);
    assert.deepEqual(systemd.take(), ['STOPPING=1', 'WATCHDOG=1']);
    notifier.end();
    await time.pass(1000);
    assert.deepEqual(systemd.take(), []);
    assert.equal(time.waiting, 0);
  });

test('a node whose status fails is not alive', async (t) => {
  const name = `@colo-test-dead-${process.pid}`;
  const systemd = new NotifySocket(name, t);
  const time = new FakeTime();
  const notifier = SystemdNotifier.from({ NOTIFY_SOCKET: name, WATCHDOG_USEC: '900000' }, 7, time);
  assert.throws(() =>
    notifier?.ready(() => {
      throw new Error('no');
    }),
  );
  assert.deepEqual(systemd.take(), ['READY=1']);
});

test('without a watchdog, or with that of another process, only phases are reported', async (t) => {
  for (const watchdog of [{}, { WATCHDOG_USEC: '900000', WATCHDOG_PID: '8' }, { WATCHDOG_USEC: 'soon' }]) {
    const name = join(tempFolder(t), 'notify');
    const systemd = new NotifySocket(name, t);
    const time = new FakeTime();
    SystemdNotifier.from({ NOTIFY_SOCKET: name, ...watchdog }, 7, time)?.ready(() => 'alone');
    await time.pass(5000);
    assert.deepEqual(systemd.take(), ['READY=1', 'STATUS=alone']);
  }
});

test('nobody is notified without a socket, or by a name that is none', () => {
  for (const name of [undefined, '', 'relative', '/', `/${'x'.repeat(200)}`])
    assert.equal(
      SystemdNotifier.from(name === undefined ? {} : { NOTIFY_SOCKET: name }, 7, new FakeTime()),
      null,
    );
});

test('a socket that is gone does no harm', () => {
  const notifier = SystemdNotifier.from({ NOTIFY_SOCKET: '/no/such/socket' }, 7, new FakeTime());
  notifier?.ready(() => 'alone');
  notifier?.stopping();
  notifier?.end();
});
