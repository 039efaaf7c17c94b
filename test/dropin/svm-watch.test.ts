import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SvmWatch } from '../../src/dropin/svm-watch.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { FakeQemu } from './fake-qemu.ts';

type Watched = { qemu: FakeQemu; time: FakeTime; said: string[]; watch: SvmWatch };

async function watched(set: Partial<FakeQemu> = {}): Promise<Watched> {
  const qemu = Object.assign(new FakeQemu(), set);
  const time = new FakeTime();
  const said: string[] = [];
  const watch = new SvmWatch(unixEndpoint('/s.qmp'), qemu.connect, time, {
    stopped: () => said.push('stopped'),
    unchanged: () => said.push('unchanged'),
    waiting: () => said.push('waiting'),
    committed: () => said.push('committed'),
    promoted: () => said.push('promoted'),
    note: (type) => said.push(type),
  });
  watch.start();
  await settled();
  return { qemu, time, said, watch };
}

/** What was said since the last look. */
const since = (said: string[]): string[] => said.splice(0);

test('what it finds at first: no state yet, a secondary, a survivor, a new primary', async () => {
  for (const [status, mode, expected] of [
    ['inmigrate', 'none', 'waiting'],
    ['running', 'secondary', 'committed'],
    ['running', 'none', 'promoted'],
    ['running', 'primary', 'promoted'],
  ]) {
    const { said } = await watched({ status, mode });
    assert.deepEqual(since(said), ['qmp.up', 'stopped', expected]);
  }
});

test('found in the middle of a checkpoint it stands until RESUME', async () => {
  const { qemu, said } = await watched({ status: 'colo' });
  assert.deepEqual(since(said), ['qmp.up', 'stopped', 'committed', 'stopped']);
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'committed', 'unchanged']);
});

test('the first state, then a checkpoint', async () => {
  const { qemu, said } = await watched({ status: 'inmigrate', mode: 'none' });
  since(said);
  qemu.mode = 'secondary';
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'committed', 'unchanged']);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  assert.deepEqual(since(said), ['stopped']);
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'committed', 'unchanged']);
});

test('an operator who stops and continues the VM takes no checkpoint', async () => {
  const { qemu, said } = await watched();
  since(said);
  qemu.status = 'paused';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'stopped', 'unchanged']);
});

test('a failover', async () => {
  const { qemu, said } = await watched();
  since(said);
  await qemu.emit('COLO_EXIT');
  assert.deepEqual(since(said), [], 'it runs on, unheard');
  qemu.status = 'colo';
  await qemu.emit('STOP');
  qemu.mode = 'none';
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'stopped', 'promoted', 'unchanged']);
});

test('checkpoints of a survivor with a new secondary change nothing in it', async () => {
  const { qemu, said } = await watched({ mode: 'primary' });
  since(said);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stopped', 'stopped', 'unchanged']);
});

test('answers that come when the next checkpoint has begun: both count, and it stands', async () => {
  const { qemu, said } = await watched();
  since(said);
  qemu.slow = true;
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  await qemu.emit('STOP');
  assert.deepEqual(since(said), ['stopped', 'stopped', 'stopped']);
  await qemu.answer();
  await qemu.answer();
  assert.deepEqual(since(said), ['committed', 'unchanged', 'stopped']);
  await qemu.emit('RESUME');
  await qemu.answer();
  assert.deepEqual(since(said), ['stopped', 'committed', 'unchanged']);
});

test('a connection that is lost is made again; what happened meanwhile counts as a checkpoint', async () => {
  const { qemu, time, said, watch } = await watched();
  since(said);
  await qemu.emit('STOP');
  qemu.fails = new Error('nobody there');
  await qemu.hangUp();
  assert.deepEqual(since(said), ['stopped', 'unchanged', 'qmp.down']);
  await time.pass(2000);
  assert.deepEqual(since(said), ['unchanged', 'unchanged', 'unchanged', 'unchanged'], 'told once');
  qemu.fails = null;
  await time.pass(600);
  assert.deepEqual(since(said), ['qmp.up', 'stopped', 'committed']);
  watch.close();
  assert.equal(qemu.connections, 2);
});
