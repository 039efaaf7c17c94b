import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QmpSource } from '../../src/dropin/qmp-source.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { FakeQemu } from './fake-qemu.ts';

type Watched = { qemu: FakeQemu; time: FakeTime; said: string[]; source: QmpSource };

async function watched(set: Partial<FakeQemu> = {}): Promise<Watched> {
  const qemu = Object.assign(new FakeQemu(), { mode: 'none', ...set });
  const time = new FakeTime();
  const said: string[] = [];
  const source = new QmpSource(unixEndpoint('/p.qmp'), qemu.connect, time, {
    stopped: () => said.push('stopped'),
    resumed: () => said.push('resumed'),
    unchanged: () => said.push('unchanged'),
    committed: () => said.push('committed'),
    alone: () => said.push('alone'),
    note: (type) => said.push(type),
  });
  await source.start();
  await settled();
  return { qemu, time, said, source };
}

/** What was said since the last look. */
const since = (said: string[]): string[] => said.splice(0);

test('before COLO there is no secondary; the first copy is a commit', async () => {
  const { qemu, said } = await watched();
  assert.deepEqual(since(said), ['qmp.up', 'alone']);
  assert.deepEqual(qemu.asked, []);
  qemu.status = 'finish-migrate';
  await qemu.emit('STOP');
  qemu.mode = 'primary';
  qemu.status = 'running';
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'resumed', 'committed', 'unchanged']);
});

test('a checkpoint: asked for by setting the delay to what it is, seen at RESUME', async () => {
  const { qemu, said, source } = await watched({ mode: 'primary', delayMs: 4294967295 });
  assert.deepEqual(since(said), ['qmp.up']);
  // What both VMs have said before we came is not known: only a checkpoint makes them equal.
  assert.deepEqual(qemu.asked, [{ 'x-checkpoint-delay': 4294967295 }]);
  source.ask();
  await settled();
  assert.deepEqual(qemu.asked.length, 2);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  assert.deepEqual(since(said), ['stopped']);
  qemu.status = 'running';
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['resumed', 'committed', 'unchanged']);
});

test('an operator who stops and continues the VM takes no checkpoint', async () => {
  const { qemu, said } = await watched({ mode: 'primary' });
  since(said);
  qemu.status = 'paused';
  await qemu.emit('STOP');
  qemu.status = 'running';
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'resumed', 'unchanged']);
});

test('an answer that comes when the VM runs again still counts as a checkpoint', async () => {
  const { qemu, said } = await watched({ mode: 'primary' });
  since(said);
  qemu.slow = true;
  await qemu.emitAll('STOP', 'RESUME');
  assert.deepEqual(since(said), ['stopped', 'resumed'], 'nothing is known yet');
  await qemu.answer();
  await qemu.answer();
  assert.deepEqual(since(said), ['committed', 'unchanged']);
});

test('COLO that has ended shows at the RESUME after it', async () => {
  const { qemu, said } = await watched({ mode: 'primary' });
  since(said);
  await qemu.emit('COLO_EXIT');
  assert.deepEqual(since(said), [], 'QEMU waits for x-colo-lost-heartbeat');
  qemu.status = 'colo';
  await qemu.emit('STOP');
  qemu.mode = 'none';
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'resumed', 'alone', 'unchanged']);
});

test('a refusal is told, and what waited for an answer goes on', async () => {
  const { qemu, said, source } = await watched({ mode: 'primary' });
  since(said);
  qemu.refuses = new Error('no');
  source.ask();
  await settled();
  assert.deepEqual(since(said), ['qmp.refused']);
  await qemu.emitAll('STOP', 'RESUME');
  assert.deepEqual(since(said), ['stopped', 'resumed', 'unchanged', 'qmp.refused']);
});

test('a connection that is lost is made again, and begins with a checkpoint', async () => {
  const { qemu, time, said, source } = await watched({ mode: 'primary' });
  since(said);
  await qemu.emit('STOP');
  qemu.fails = new Error('nobody there');
  await qemu.hangUp();
  assert.deepEqual(since(said), ['stopped', 'unchanged', 'qmp.down']);
  source.ask();
  await time.pass(1200);
  assert.deepEqual(since(said), ['unchanged', 'unchanged'], 'nobody to ask, and told once');
  qemu.fails = null;
  await time.pass(600);
  assert.deepEqual(since(said), ['qmp.up']);
  assert.equal(qemu.asked.length, 2);
  await source.close();
  assert.equal(qemu.closed, 1);
});
