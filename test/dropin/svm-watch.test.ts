import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SvmWatch } from '../../src/dropin/svm-watch.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { FakeQemu } from './fake-qemu.ts';

type Watched = { qemu: FakeQemu; time: FakeTime; notified: string[]; watch: SvmWatch };

async function watched(set: Partial<FakeQemu> = {}): Promise<Watched> {
  const qemu = Object.assign(new FakeQemu(), set);
  const time = new FakeTime();
  const notified: string[] = [];
  const watch = new SvmWatch(unixEndpoint('/s.qmp'), qemu.connect, time, {
    stopped: () => notified.push('stopped'),
    unchanged: () => notified.push('unchanged'),
    waiting: () => notified.push('waiting'),
    committed: () => notified.push('committed'),
    promoted: () => notified.push('promoted'),
    note: (type) => notified.push(type),
  });
  watch.start();
  await settled();
  return { qemu, time, notified, watch };
}

/** Returns the notifications since the last call. */
const since = (notified: string[]): string[] => notified.splice(0);

test('at first it finds a VM without state, a secondary, a survivor or a new primary', async () => {
  for (const [status, mode, expected] of [
    ['inmigrate', 'none', 'waiting'],
    ['running', 'secondary', 'committed'],
    ['running', 'none', 'promoted'],
    ['running', 'primary', 'promoted'],
  ]) {
    const { notified } = await watched({ status, mode });
    assert.deepEqual(since(notified), ['stopped', expected, 'qmp.up']);
  }
});

test('a VM that is found within a checkpoint counts as stopped until RESUME', async () => {
  const { qemu, notified } = await watched({ status: 'colo' });
  assert.deepEqual(since(notified), ['stopped', 'committed', 'stopped', 'qmp.up']);
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'committed', 'unchanged']);
});

test('the first copy and each checkpoint are commits', async () => {
  const { qemu, notified } = await watched({ status: 'inmigrate', mode: 'none' });
  since(notified);
  qemu.mode = 'secondary';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'committed', 'unchanged']);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  assert.deepEqual(since(notified), ['stopped']);
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'committed', 'unchanged']);
});

test('an operator who stops and resumes the VM takes no checkpoint', async () => {
  const { qemu, notified } = await watched();
  since(notified);
  qemu.status = 'paused';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'stopped', 'unchanged']);
});

test('a failover is seen at the RESUME after it', async () => {
  const { qemu, notified } = await watched();
  since(notified);
  await qemu.emit('COLO_EXIT');
  assert.deepEqual(since(notified), ['colo.exit'], 'the SVM runs, unheard');
  qemu.status = 'colo';
  await qemu.emit('STOP');
  qemu.mode = 'none';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'stopped', 'promoted', 'unchanged']);
});

test('checkpoints of a survivor with a new secondary change nothing in it', async () => {
  const { qemu, notified } = await watched({ mode: 'primary' });
  since(notified);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'stopped', 'unchanged']);
});

test('replies that come after the next STOP: both checkpoints count, and the VM is stopped', async () => {
  const { qemu, notified } = await watched();
  since(notified);
  qemu.slow = true;
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  await qemu.emit('STOP');
  assert.deepEqual(since(notified), ['stopped', 'stopped', 'stopped']);
  await qemu.reply();
  await qemu.reply();
  assert.deepEqual(since(notified), ['committed', 'unchanged', 'stopped']);
  await qemu.emit('RESUME');
  await qemu.reply();
  assert.deepEqual(since(notified), ['stopped', 'committed', 'unchanged']);
});

test('a reply that no QEMU with COLO gives is not taken for a failover', async () => {
  const first = await watched({ mode: 'of another kind' });
  assert.deepEqual(since(first.notified), ['stopped', 'unchanged', 'qmp.down']);

  const { qemu, time, notified } = await watched();
  since(notified);
  qemu.mode = 'of another kind';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'stopped', 'unchanged', 'qmp.down', 'unchanged']);
  qemu.mode = 'secondary';
  await time.pass(600);
  assert.deepEqual(since(notified), ['stopped', 'committed', 'qmp.up'], 'it is asked again');
});

test('a lost connection is dialled again, and then counts as a checkpoint', async () => {
  const { qemu, time, notified, watch } = await watched();
  since(notified);
  await qemu.emit('STOP');
  qemu.fails = new Error('not there');
  await qemu.hangUp();
  assert.deepEqual(since(notified), ['stopped', 'unchanged', 'qmp.down']);
  await time.pass(2000);
  assert.deepEqual(since(notified), ['unchanged', 'unchanged', 'unchanged', 'unchanged'], 'noted once');
  qemu.fails = null;
  await time.pass(600);
  assert.deepEqual(since(notified), ['stopped', 'committed', 'qmp.up']);
  watch.close();
  assert.equal(qemu.connections, 2);
});
