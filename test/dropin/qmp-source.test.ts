import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QmpSource } from '../../src/dropin/qmp-source.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { FakeQemu } from './fake-qemu.ts';

type Watched = { qemu: FakeQemu; time: FakeTime; notified: string[]; source: QmpSource };

async function watched(set: Partial<FakeQemu> = {}): Promise<Watched> {
  const qemu = Object.assign(new FakeQemu(), { mode: 'none', ...set });
  const time = new FakeTime();
  const notified: string[] = [];
  const source = new QmpSource(unixEndpoint('/p.qmp'), qemu.connect, time, {
    stopped: () => notified.push('stopped'),
    resumed: () => notified.push('resumed'),
    unchanged: () => notified.push('unchanged'),
    committed: () => notified.push('committed'),
    alone: () => notified.push('alone'),
    note: (type) => notified.push(type),
  });
  await source.start();
  await settled();
  return { qemu, time, notified, source };
}

/** Returns the notifications since the last call. */
const since = (notified: string[]): string[] => notified.splice(0);

test('before COLO there is no secondary; the first copy is a commit', async () => {
  const { qemu, notified } = await watched();
  assert.deepEqual(since(notified), ['qmp.up', 'alone']);
  assert.deepEqual(qemu.asked, []);
  qemu.status = 'finish-migrate';
  await qemu.emit('STOP');
  qemu.mode = 'primary';
  qemu.status = 'running';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'resumed', 'committed', 'unchanged']);
});

test('a checkpoint is asked for by setting the delay to its value, and seen at RESUME', async () => {
  const { qemu, notified, source } = await watched({ mode: 'primary', delayMs: 4294967295 });
  assert.deepEqual(since(notified), ['qmp.up']);
  // The output of both VMs before the connection is not known: only a checkpoint makes them equal.
  assert.deepEqual(qemu.asked, [{ 'x-checkpoint-delay': 4294967295 }]);
  source.ask();
  await settled();
  assert.deepEqual(qemu.asked.length, 2);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  assert.deepEqual(since(notified), ['stopped']);
  qemu.status = 'running';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['resumed', 'committed', 'unchanged']);
});

test('an operator who stops and resumes the VM takes no checkpoint', async () => {
  const { qemu, notified } = await watched({ mode: 'primary' });
  since(notified);
  qemu.status = 'paused';
  await qemu.emit('STOP');
  qemu.status = 'running';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'resumed', 'unchanged']);
});

test('a reply that comes after RESUME still counts as a checkpoint', async () => {
  const { qemu, notified } = await watched({ mode: 'primary' });
  since(notified);
  qemu.slow = true;
  await qemu.emitAll('STOP', 'RESUME');
  assert.deepEqual(since(notified), ['stopped', 'resumed'], 'no reply yet');
  await qemu.reply();
  await qemu.reply();
  assert.deepEqual(since(notified), ['committed', 'unchanged']);
});

test('the end of COLO is seen at the RESUME after it', async () => {
  const { qemu, notified } = await watched({ mode: 'primary' });
  since(notified);
  await qemu.emit('COLO_EXIT');
  assert.deepEqual(since(notified), [], 'QEMU waits for x-colo-lost-heartbeat');
  qemu.status = 'colo';
  await qemu.emit('STOP');
  qemu.mode = 'none';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'resumed', 'alone', 'unchanged']);
});

test('a refusal is noted, and the VM counts as unchanged', async () => {
  const { qemu, notified, source } = await watched({ mode: 'primary' });
  since(notified);
  qemu.refuses = new Error('no');
  source.ask();
  await settled();
  assert.deepEqual(since(notified), ['qmp.refused']);
  await qemu.emitAll('STOP', 'RESUME');
  assert.deepEqual(since(notified), ['stopped', 'resumed', 'unchanged', 'qmp.refused']);
});

test('a lost connection is dialled again, and begins with a checkpoint', async () => {
  const { qemu, time, notified, source } = await watched({ mode: 'primary' });
  since(notified);
  await qemu.emit('STOP');
  qemu.fails = new Error('not there');
  await qemu.hangUp();
  assert.deepEqual(since(notified), ['stopped', 'unchanged', 'qmp.down']);
  source.ask();
  await time.pass(1200);
  assert.deepEqual(since(notified), ['unchanged', 'unchanged'], 'no connection, which is noted once');
  qemu.fails = null;
  await time.pass(600);
  assert.deepEqual(since(notified), ['qmp.up']);
  assert.equal(qemu.asked.length, 2);
  await source.close();
  assert.equal(qemu.closed, 1);
});
