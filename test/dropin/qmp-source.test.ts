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
    primary: () => notified.push('primary'),
    unknown: () => notified.push('unknown'),
    broken: () => notified.push('broken'),
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
  assert.deepEqual(since(notified), ['alone', 'qmp.up']);
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
  assert.deepEqual(since(notified), ['primary', 'qmp.up']);
  source.ask();
  await settled();
  assert.deepEqual(qemu.asked, [{ 'x-checkpoint-delay': 4294967295 }]);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  assert.deepEqual(since(notified), ['stopped']);
  qemu.status = 'running';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['resumed', 'committed', 'unchanged']);
});

test('a reply that no QEMU with COLO gives is not taken for the end of COLO', async () => {
  const { qemu, time, notified } = await watched({ mode: 'primary' });
  since(notified);
  qemu.mode = 'of another kind';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.ok(!notified.includes('alone'));
  assert.deepEqual(since(notified).slice(-3), ['unknown', 'qmp.down', 'unchanged']);
  qemu.mode = 'primary';
  await time.pass(600);
  assert.deepEqual(since(notified), ['primary', 'qmp.up']);
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
  qemu.status = 'colo';
  await qemu.emit('STOP');
  qemu.mode = 'none';
  await qemu.emit('RESUME');
  assert.deepEqual(since(notified), ['stopped', 'resumed', 'alone', 'unchanged']);
});

test('COLO_EXIT: an error breaks the pair until an operator has decided', async () => {
  const { qemu, notified } = await watched({ mode: 'primary' });
  since(notified);
  // QEMU waits for x-colo-lost-heartbeat, and its mode stays what it was.
  await qemu.emit('COLO_EXIT', { mode: 'primary', reason: 'error' });
  assert.deepEqual(since(notified), ['colo.exit', 'broken']);
  // After that command it sends the event once more, with a reason that depends on which thread comes first.
  qemu.mode = 'none';
  for (const reason of ['error', 'request']) {
    await qemu.emit('COLO_EXIT', { mode: 'primary', reason });
    assert.deepEqual(since(notified), ['colo.exit', 'alone']);
  }
});

test('a query that gets no reply ends the connection, and the next one asks again', async () => {
  const { qemu, time, notified, source } = await watched({ mode: 'primary' });
  since(notified);
  qemu.refuses = new Error('no');
  source.ask();
  await settled();
  assert.deepEqual(since(notified), ['qmp.refused'], 'a refused request is only noted');
  await qemu.emitAll('STOP', 'RESUME');
  assert.deepEqual(since(notified), ['stopped', 'resumed', 'unchanged', 'unknown', 'qmp.down', 'unchanged']);
  qemu.refuses = null;
  await time.pass(600);
  assert.deepEqual(since(notified), ['primary', 'qmp.up']);
  await source.close();
});

test('a QEMU that no longer replies is disconnected', async () => {
  const { qemu, time, notified, source } = await watched({ mode: 'primary' });
  since(notified);
  await time.pass(20_000);
  assert.deepEqual(new Set(since(notified)), new Set(['primary']), 'the mode is queried again and again');
  qemu.refuses = new Error('no reply in 5000 ms');
  await time.pass(5500);
  assert.deepEqual(since(notified), ['unchanged', 'unknown', 'qmp.down', 'unchanged', 'unknown']);
  await source.close();
  await time.pass(20_000);
  assert.equal(time.waiting, 0);
});

test('a lost connection is dialled again', async () => {
  const { qemu, time, notified, source } = await watched({ mode: 'primary' });
  since(notified);
  await qemu.emit('STOP');
  qemu.fails = new Error('not there');
  await qemu.hangUp();
  assert.deepEqual(since(notified), ['stopped', 'unchanged', 'unknown', 'qmp.down']);
  source.ask();
  await time.pass(600);
  assert.deepEqual(since(notified), ['unchanged', 'unknown'], 'no connection, which is noted once');
  qemu.fails = null;
  await time.pass(600);
  assert.deepEqual(since(notified), ['primary', 'qmp.up']);
  assert.deepEqual(qemu.asked, []);
  await source.close();
  assert.equal(qemu.closed, 1);
});
