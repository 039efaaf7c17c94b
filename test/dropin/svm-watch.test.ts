import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { QmpConnection } from '../../src/dropin/qmp-keeper.ts';
import { SvmWatch } from '../../src/dropin/svm-watch.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import type { QmpEvent } from '../../src/qemu/qmp.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';

/** A QEMU whose state a test sets; answers come when the test says so, or at once. */
class FakeQemu {
  status = 'running';
  mode = 'secondary';
  fails: Error | null = null;
  connections = 0;
  /** while true, answers wait for `answer` */
  slow = false;
  private onEvent: (event: QmpEvent) => void = () => {};
  private onClose: (reason: Error) => void = () => {};
  private waiting: (() => void)[] = [];

  connect = async (): Promise<QmpConnection> => {
    if (this.fails !== null) throw this.fails;
    this.connections++;
    return {
      version: { major: 11, minor: 1, micro: 3, text: '11.1.3' },
      execute: async <T>(command: string): Promise<T> => {
        if (this.slow) await new Promise<void>((resolve) => this.waiting.push(resolve));
        if (command === 'query-status') return { status: this.status } as T;
        assert.equal(command, 'query-colo-status');
        return { mode: this.mode } as T;
      },
      executeOob: () => Promise.reject(new Error('not used')),
      onEvent: (listener) => {
        this.onEvent = listener;
      },
      onClose: (listener) => {
        this.onClose = listener;
      },
      close: () => {},
    };
  };

  async emit(event: string): Promise<void> {
    this.onEvent({ event, data: {}, timestampUs: 0 });
    await settled();
  }

  async answer(): Promise<void> {
    for (const resolve of this.waiting.splice(0)) resolve();
    await settled();
  }

  async hangUp(): Promise<void> {
    this.onClose(new Error('gone'));
    await settled();
  }
}

type Watched = { qemu: FakeQemu; time: FakeTime; said: string[]; watch: SvmWatch };

async function watched(set: Partial<FakeQemu> = {}): Promise<Watched> {
  const qemu = Object.assign(new FakeQemu(), set);
  const time = new FakeTime();
  const said: string[] = [];
  const watch = new SvmWatch(unixEndpoint('/s.qmp'), qemu.connect, time, {
    stood: () => said.push('stood'),
    ranOn: () => said.push('ranOn'),
    waits: () => said.push('waits'),
    committed: () => said.push('committed'),
    tookOver: () => said.push('tookOver'),
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
    ['inmigrate', 'none', 'waits'],
    ['running', 'secondary', 'committed'],
    ['running', 'none', 'tookOver'],
    ['running', 'primary', 'tookOver'],
  ]) {
    const { said } = await watched({ status, mode });
    assert.deepEqual(since(said), ['qmp.up', 'stood', expected]);
  }
});

test('found in the middle of a checkpoint it stands until RESUME', async () => {
  const { qemu, said } = await watched({ status: 'colo' });
  assert.deepEqual(since(said), ['qmp.up', 'stood', 'committed', 'stood']);
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stood', 'committed', 'ranOn']);
});

test('the first state, then a checkpoint', async () => {
  const { qemu, said } = await watched({ status: 'inmigrate', mode: 'none' });
  since(said);
  qemu.mode = 'secondary';
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stood', 'committed', 'ranOn']);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  assert.deepEqual(since(said), ['stood']);
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stood', 'committed', 'ranOn']);
});

test('an operator who stops and continues the VM takes no checkpoint', async () => {
  const { qemu, said } = await watched();
  since(said);
  qemu.status = 'paused';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stood', 'stood', 'ranOn']);
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
  assert.deepEqual(since(said), ['stood', 'stood', 'tookOver', 'ranOn']);
});

test('checkpoints of a survivor with a new secondary change nothing in it', async () => {
  const { qemu, said } = await watched({ mode: 'primary' });
  since(said);
  qemu.status = 'colo';
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  assert.deepEqual(since(said), ['stood', 'stood', 'ranOn']);
});

test('answers that come when the next checkpoint has begun: both count, and it stands', async () => {
  const { qemu, said } = await watched();
  since(said);
  qemu.slow = true;
  await qemu.emit('STOP');
  await qemu.emit('RESUME');
  await qemu.emit('STOP');
  assert.deepEqual(since(said), ['stood', 'stood', 'stood']);
  await qemu.answer();
  await qemu.answer();
  assert.deepEqual(since(said), ['committed', 'ranOn', 'stood']);
  await qemu.emit('RESUME');
  await qemu.answer();
  assert.deepEqual(since(said), ['stood', 'committed', 'ranOn']);
});

test('a connection that is lost is made again; what happened meanwhile counts as a checkpoint', async () => {
  const { qemu, time, said, watch } = await watched();
  since(said);
  await qemu.emit('STOP');
  qemu.fails = new Error('nobody there');
  await qemu.hangUp();
  assert.deepEqual(since(said), ['stood', 'ranOn', 'qmp.down']);
  await time.pass(2000);
  assert.deepEqual(since(said), ['ranOn', 'ranOn', 'ranOn', 'ranOn'], 'told once');
  qemu.fails = null;
  await time.pass(600);
  assert.deepEqual(since(said), ['qmp.up', 'stood', 'committed']);
  watch.close();
  assert.equal(qemu.connections, 2);
});
