import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import type { QemuCapabilities } from '../../src/qemu/capabilities.ts';
import { ColoVm } from '../../src/qemu/colo.ts';
import {
  type ExecuteOptions,
  type JsonObject,
  type Qmp,
  type QmpEvent,
  QmpRefusedError,
} from '../../src/qemu/qmp.ts';

const version = { major: 11, minor: 1, micro: 3, text: '11.1.3' };
const capabilities: QemuCapabilities = { version, accel: 'tcg', returnPath: true, exitWithParent: true };

/** A QEMU of a few variables. `done` has the commands that change it, without the queries. */
class FakeQemu implements Qmp {
  readonly version = version;
  readonly done: [string, JsonObject | undefined][] = [];
  run = 'running';
  migration: JsonObject = {};
  mode = 'none';
  stream = false;
  /** commands that get no reply before their timeout */
  hangs = new Set<string>();
  onLostHeartbeat = (): void => {
    this.run = 'finish-migrate';
    setTimeout(() => {
      this.mode = 'none';
    }, 5);
    setTimeout(() => {
      this.run = 'running';
    }, 15);
  };
  onYank = (): void => {
    this.stream = false;
  };
  onMigrate = (): void => {};
  /** what QEMU does before it has stopped the guest */
  onStop = async (): Promise<void> => {};
  /** how often it refuses to resume the guest */
  refusals = 0;
  private readonly listeners: ((event: QmpEvent) => void)[] = [];

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.listeners.push(listener);
    return () => {};
  }

  say(event: string, data: JsonObject = {}): void {
    for (const listener of this.listeners) listener({ event, data, timestampUs: 0 });
  }

  /** Makes it a primary in COLO whose thread runs. */
  inColo(): void {
    this.mode = 'primary';
    this.say('MIGRATION', { status: 'colo' });
    this.say('RESUME');
  }

  step(event: string): void {
    if (event === 'RESUME') this.say(event);
    else {
      this.migration = { status: event };
      this.say('MIGRATION', { status: event });
    }
  }

  async execute<T>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T> {
    if (this.hangs.has(command)) {
      await sleep(options?.timeoutMs ?? 60_000);
      throw new ColoError('COLO_QMP_TIMEOUT', `${command} got no answer`);
    }
    switch (command) {
      case 'query-status':
        return { status: this.run, running: this.run === 'running' } as T;
      case 'query-migrate':
        return this.migration as T;
      case 'query-colo-status':
        return { mode: this.mode } as T;
      case 'quit':
        throw new ColoError('COLO_QMP_CLOSED', 'gone');
    }
    if (command === 'x-colo-lost-heartbeat') {
      if (this.mode === 'none') {
        throw new QmpRefusedError(command, 'GenericError', 'VM is not in COLO mode');
      }
      this.onLostHeartbeat();
    }
    if (command === 'migrate') this.onMigrate();
    if (command === 'stop') {
      await this.onStop();
      this.run = 'paused';
    }
    if (command === 'cont') {
      if (this.refusals-- > 0) throw new QmpRefusedError(command, 'GenericError', 'not finalized yet');
      this.run = 'running';
    }
    this.done.push([command, args]);
    return {} as T;
  }

  async executeOob<T>(command: string, args?: JsonObject): Promise<T> {
    if (command === 'query-yank') {
      return [{ type: 'chardev', id: 'm' }, ...(this.stream ? [{ type: 'migration' }] : [])] as T;
    }
    if (command === 'yank' && !this.stream) throw new QmpRefusedError(command, 'DeviceNotFound', 'none');
    this.done.push([command, args]);
    this.onYank();
    return {} as T;
  }

  get verbs(): string[] {
    return this.done.map(([command]) => command);
  }
}

/** QEMU's own collection of dirty pages is exact only under KVM; see the theory of operation in colo.ts. */
const kvm = { accel: 'kvm' } as const;

const make = (more: Partial<QemuCapabilities> = {}): { qemu: FakeQemu; vm: ColoVm } => {
  const qemu = new FakeQemu();
  return { qemu, vm: new ColoVm(qemu, { ...capabilities, ...more }) };
};

for (const returnPath of [true, false]) {
  test(`prepare sets all capabilities in one call, return-path ${returnPath}`, async () => {
    const { qemu, vm } = make({ returnPath });
    await vm.prepare('primary');
    assert.deepEqual(qemu.done[0], [
      'migrate-set-capabilities',
      {
        capabilities: [
          { capability: 'events', state: true },
          { capability: 'return-path', state: returnPath },
          { capability: 'x-colo', state: true },
        ],
      },
    ]);
    assert.equal(qemu.done[1]?.[1]?.['x-checkpoint-delay'], 4294967295);
  });
}

test('prepare refuses a QEMU in the wrong state', async () => {
  const { qemu, vm } = make();
  await assert.rejects(vm.prepare('secondary'), { code: 'COLO_QEMU_STATE' });
  qemu.run = 'inmigrate';
  await assert.rejects(vm.prepare('primary'), { code: 'COLO_QEMU_STATE' });
  await vm.prepare('secondary');
  await vm.listenIncoming('/run/mig');
  assert.deepEqual(qemu.done.at(-1), ['migrate-incoming', { uri: 'unix:/run/mig' }]);
});

test('a second migrate is never sent: it would end COLO', async () => {
  const { qemu, vm } = make(kvm);
  for (const status of ['setup', 'active', 'device', 'colo', 'cancelling']) {
    qemu.migration = { status };
    await assert.rejects(vm.startMigration('/run/mig'), { code: 'COLO_QEMU_STATE' });
  }
  assert.deepEqual(qemu.verbs, []);
  for (const migration of [{}, { status: 'completed' }, { status: 'failed' }, { status: 'cancelled' }]) {
    qemu.migration = migration;
    await vm.startMigration('/run/mig');
  }
  assert.equal(qemu.done.length, 4);
  assert.deepEqual(qemu.done[0], ['migrate', { uri: 'unix:/run/mig' }]);
});

test('under TCG the guest is stopped until QEMU has collected the dirty pages once, and the pass cannot end before that', async () => {
  const { qemu, vm } = make();
  qemu.onMigrate = (): void => {
    qemu.migration = { status: 'setup' };
    setTimeout(() => {
      assert.equal(qemu.run, 'paused');
      qemu.migration = { status: 'active' };
    }, 10);
  };
  await vm.startMigration('/run/mig');
  assert.deepEqual(qemu.done, [
    ['migrate-set-parameters', { 'max-bandwidth': 10 }],
    ['stop', undefined],
    ['migrate', { uri: 'unix:/run/mig' }],
    ['cont', undefined],
    ['migrate-set-parameters', { 'max-bandwidth': 2 ** 40 }],
  ]);
  assert.equal(qemu.run, 'running');
});

test('under TCG the second collection waits until everything is sent', async () => {
  const downtime = async (more: Partial<QemuCapabilities>): Promise<unknown> => {
    const { qemu, vm } = make(more);
    await vm.prepare('primary');
    return qemu.done[1]?.[1]?.['downtime-limit'];
  };
  assert.equal(await downtime({ accel: 'tcg' }), 0);
  assert.equal(await downtime(kvm), 1000);
});

const firstPassEnds: readonly (readonly [when: string, events: readonly string[], resumes: 0 | 1])[] = [
  ['COLO begins after that, and resumes it', ['stop', 'colo', 'RESUME'], 0],
  ['COLO has begun before that', ['colo', 'RESUME', 'stop'], 1],
  ['COLO was reported before that, and begins after it', ['colo', 'stop', 'RESUME'], 0],
  ['the migration fails', ['stop', 'failed'], 1],
];
for (const [when, events, resumes] of firstPassEnds) {
  test(`under TCG a guest that never rests is stopped for the end of the first pass: ${when}`, async () => {
    const { qemu, vm } = make();
    await vm.startMigration('/run/mig');
    qemu.migration = { status: 'active' };
    qemu.done.length = 0;
    qemu.onStop = async (): Promise<void> => {
      for (const event of events.slice(0, events.indexOf('stop'))) qemu.step(event);
      await sleep(5);
    };
    for (let pass = 2; pass <= 30; pass++) qemu.say('MIGRATION_PASS', { pass });
    await sleep(20);
    for (const event of events.slice(events.indexOf('stop') + 1)) {
      assert.deepEqual(qemu.verbs, ['stop']);
      qemu.step(event);
      await sleep(5);
    }
    if (events.includes('RESUME')) await vm.requestCheckpoint();
    assert.deepEqual(
      qemu.verbs.filter((verb) => verb !== 'migrate-set-parameters'),
      resumes === 1 ? ['stop', 'cont'] : ['stop'],
    );
  });
}

test('a guest that is stopped for the end of the first pass runs again before a checkpoint begins', async () => {
  const { qemu, vm } = make();
  await vm.startMigration('/run/mig');
  qemu.done.length = 0;
  qemu.onStop = async (): Promise<void> => {
    qemu.inColo();
    await sleep(20);
  };
  qemu.say('MIGRATION_PASS', { pass: 20 });
  await vm.requestCheckpoint();
  assert.deepEqual(qemu.verbs, ['stop', 'cont', 'migrate-set-parameters']);
});

test('a guest that QEMU does not resume yet is resumed a moment later', async () => {
  const { qemu, vm } = make();
  await vm.startMigration('/run/mig');
  qemu.done.length = 0;
  qemu.refusals = 2;
  qemu.say('MIGRATION_PASS', { pass: 20 });
  qemu.migration = { status: 'failed' };
  await sleep(20);
  assert.equal(qemu.run, 'running');
  assert.deepEqual(qemu.verbs, ['stop', 'cont']);
});

test('with KVM, and in COLO, no pass stops the guest', async () => {
  const inColo = make();
  inColo.qemu.inColo();
  const withKvm = make(kvm);
  await withKvm.vm.startMigration('/run/mig');
  for (const { qemu } of [inColo, withKvm]) {
    qemu.done.length = 0;
    qemu.say('MIGRATION_PASS', { pass: 20 });
    await sleep(5);
    assert.deepEqual(qemu.verbs, []);
  }
});

test('a stopped guest is resumed if the migration is refused, fails or hangs', async () => {
  const refused = new QmpRefusedError('migrate', 'GenericError', 'no');
  const { qemu, vm } = make();
  qemu.onMigrate = (): void => {
    throw refused;
  };
  await assert.rejects(vm.startMigration('/run/mig'), refused);
  assert.equal(qemu.run, 'running');
  qemu.onMigrate = (): void => {
    qemu.migration = { status: 'failed' };
  };
  await vm.startMigration('/run/mig');
  assert.equal(qemu.run, 'running');
  qemu.migration = {};
  qemu.onMigrate = (): void => {
    qemu.migration = { status: 'setup' };
  };
  await assert.rejects(vm.startMigration('/run/mig', { deadlineMs: 30 }), { code: 'COLO_QEMU_MIGRATION' });
  assert.equal(qemu.run, 'running');
});

test('waitForColo resolves in COLO, and rejects at another end and at its deadline', async () => {
  const { qemu, vm } = make();
  qemu.migration = { status: 'active' };
  setTimeout(() => {
    qemu.migration = { status: 'colo' };
  }, 20);
  await vm.waitForColo({ deadlineMs: 2000 });
  qemu.migration = { status: 'completed' };
  await assert.rejects(vm.waitForColo({ deadlineMs: 2000 }), { code: 'COLO_QEMU_MIGRATION' });
  qemu.migration = { status: 'failed', 'error-desc': 'no route' };
  await assert.rejects(vm.waitForColo({ deadlineMs: 2000 }), /no route/);
  qemu.migration = { status: 'active' };
  await assert.rejects(vm.waitForColo({ deadlineMs: 30 }), { code: 'COLO_QEMU_MIGRATION' });
  const signal = AbortSignal.abort(new ColoError('COLO_QEMU_EXITED', 'gone'));
  await assert.rejects(vm.waitForColo({ deadlineMs: 30, signal }), { code: 'COLO_QEMU_EXITED' });
});

test('a checkpoint is one command', async () => {
  const { qemu, vm } = make();
  qemu.inColo();
  await vm.requestCheckpoint();
  assert.deepEqual(qemu.done, [['migrate-set-parameters', { 'x-checkpoint-delay': 4294967295 }]]);
});

test('neither a checkpoint nor a failover is requested between MIGRATION `colo` and the first event of the COLO thread', async () => {
  for (const event of ['RESUME', 'COLO_EXIT']) {
    for (const verb of ['requestCheckpoint', 'failover'] as const) {
      const { qemu, vm } = make(kvm);
      await vm.startMigration('/run/mig');
      // The guest resumes after the first collection: that event is not the COLO thread's.
      qemu.say('RESUME');
      qemu.mode = 'primary';
      qemu.say('MIGRATION', { status: 'colo' });
      const done = vm[verb]();
      await sleep(20);
      assert.deepEqual(qemu.verbs, ['migrate'], verb);
      qemu.say(event);
      await done;
      assert.equal(qemu.verbs.length, 2, `${verb} after ${event}`);
    }
  }
});

test('an event of the COLO thread before proves nothing about the next one', async () => {
  const { qemu, vm } = make(kvm);
  qemu.inColo();
  await vm.failover();
  await vm.startMigration('/run/mig');
  qemu.mode = 'primary';
  const failure = { code: 'COLO_QEMU_STATE', message: /has not begun COLO in 30 ms/ };
  await assert.rejects(vm.requestCheckpoint({ deadlineMs: 30 }), failure);
  await assert.rejects(vm.failover({ deadlineMs: 30 }), { code: 'COLO_QEMU_FAILOVER' });
  assert.deepEqual(qemu.verbs, ['x-colo-lost-heartbeat', 'migrate']);
});

test('failover yanks first, and returns only when the VM runs on its own', async () => {
  const { qemu, vm } = make();
  // The secondary's VM runs before the failover and during its first moments: `running` proves nothing then.
  Object.assign(qemu, { mode: 'secondary', stream: true, run: 'running' });
  await vm.failover();
  assert.deepEqual(qemu.verbs, ['yank', 'x-colo-lost-heartbeat']);
  assert.deepEqual(qemu.done[0]?.[1], { instances: [{ type: 'migration' }] });
  assert.deepEqual([qemu.mode, qemu.run], ['none', 'running']);
});

test('failover is not done when the VM is `running` in COLO', async () => {
  const { qemu, vm } = make();
  Object.assign(qemu, { mode: 'secondary', run: 'running', onLostHeartbeat: () => undefined });
  await assert.rejects(vm.failover({ deadlineMs: 30 }), {
    code: 'COLO_QEMU_FAILOVER',
    message: /not done in 30 ms, COLO mode secondary, VM running/,
  });
});

test('failover succeeds without a stream, and if COLO has ended already', async () => {
  const { qemu, vm } = make();
  qemu.inColo();
  await vm.failover();
  assert.deepEqual(qemu.verbs, ['x-colo-lost-heartbeat']);
  await vm.failover();
  assert.deepEqual(qemu.verbs, ['x-colo-lost-heartbeat']);
});

test('failover succeeds if the stream ends between the query and the yank', async () => {
  const { qemu, vm } = make();
  qemu.inColo();
  const original = qemu.executeOob.bind(qemu);
  qemu.executeOob = async <T>(command: string, args?: JsonObject): Promise<T> =>
    command === 'query-yank' ? ([{ type: 'migration' }] as T) : await original<T>(command, args);
  await vm.failover();
  assert.deepEqual(qemu.verbs, ['x-colo-lost-heartbeat']);
});

test('failover succeeds if COLO begins just after QEMU refused to leave it', async () => {
  const { qemu, vm } = make();
  Object.assign(qemu, { stream: true, run: 'finish-migrate' });
  setTimeout(() => qemu.inColo(), 20);
  await vm.failover();
  assert.deepEqual(qemu.verbs, ['yank', 'x-colo-lost-heartbeat']);
});

test('failover of a hung QEMU keeps its deadline', async () => {
  for (const command of ['x-colo-lost-heartbeat', 'query-status', 'query-colo-status']) {
    const { qemu, vm } = make();
    qemu.inColo();
    qemu.stream = true;
    qemu.hangs.add(command);
    const started = performance.now();
    await assert.rejects(vm.failover({ deadlineMs: 60 }), { code: 'COLO_QEMU_FAILOVER' });
    assert.ok(performance.now() - started < 500);
  }
});

test('a secondary without a complete state rejects a failover at once', async () => {
  const { qemu, vm } = make();
  qemu.run = 'inmigrate';
  const started = performance.now();
  const error = { code: 'COLO_QEMU_FAILOVER', message: /complete state/ };
  await assert.rejects(vm.failover({ deadlineMs: 5000 }), error);
  assert.ok(performance.now() - started < 1000);
});

test('resetAfterFailover waits for the clean-up and prepares', async () => {
  const { qemu, vm } = make();
  Object.assign(qemu, { stream: true, migration: { status: 'completed' } });
  await assert.rejects(vm.resetAfterFailover({ deadlineMs: 20 }), { code: 'COLO_QEMU_MIGRATION' });
  assert.deepEqual(qemu.verbs, []);
  setTimeout(() => {
    qemu.stream = false;
  }, 10);
  await vm.resetAfterFailover();
  assert.deepEqual(qemu.verbs, ['migrate-set-capabilities', 'migrate-set-parameters']);
});

test('cancel breaks the stream, and waits until it is over', async () => {
  const { qemu, vm } = make();
  Object.assign(qemu, { stream: true, migration: { status: 'active' } });
  setTimeout(() => {
    qemu.migration = { status: 'failed' };
  }, 10);
  await vm.cancel();
  assert.deepEqual(qemu.verbs, ['yank']);
  assert.deepEqual(qemu.migration, { status: 'failed' });
  await vm.cancel();
  assert.deepEqual(qemu.verbs, ['yank']);
});

test('cancel does not touch a pair in COLO', async () => {
  const { qemu, vm } = make();
  Object.assign(qemu, { stream: true, migration: { status: 'colo' } });
  await assert.rejects(vm.cancel(), { code: 'COLO_QEMU_STATE' });
  assert.deepEqual(qemu.verbs, []);
});

test('quit takes a closed connection for the reply', async () => {
  await make().vm.quit();
});
