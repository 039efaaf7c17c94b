import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JsonObject, Qmp, QmpEvent } from '../../src/qemu/qmp.ts';
import { type Transfer, VmWatch } from '../../src/qemu/vm-watch.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

const SILENCE_MS_MAX = 2000;
const ASK_MS = SILENCE_MS_MAX / 8;

/** A QEMU that replies when the test lets it; `log` has what the watch reports. */
function watched() {
  const time = new FakeTime();
  const listeners = new Set<(event: QmpEvent) => void>();
  const open: ((state: string) => void)[] = [];
  const stateNow = (): string => all.state;
  const all = {
    time,
    log: [] as string[],
    asked: 0,
    replying: true,
    state: 'running' as string,
    transfer: { isCheckpointing: false, bytes: 0 } as Transfer,
    isOwnStop: false,
    event: (event: string, data: JsonObject = {}) => {
      for (const listener of listeners) listener({ event, data, timestampUs: 0 });
    },
    /** Replies to the open question. */
    reply: (state: string = stateNow()) => open.shift()?.(state),
  };
  const qmp: Qmp = {
    version: { major: 11, minor: 1, micro: 0, text: '' },
    execute: <T>() => {
      all.asked++;
      return new Promise<T>((resolve) => {
        open.push((status) => resolve({ status } as T));
        if (all.replying) all.reply();
      });
    },
    executeOob: () => Promise.reject(new Error('not used')),
    onEvent: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const watch = new VmWatch({
    qmp,
    clock: time,
    timers: time,
    silenceMsMax: SILENCE_MS_MAX,
    transfer: () => all.transfer,
    isOwnStop: () => all.isOwnStop,
    events: {
      changed: (trouble) => all.log.push(trouble === null ? 'well' : `${trouble.kind} ${trouble.state}`),
      lasts: (trouble) => all.log.push(`${trouble.kind} lasts`),
      rebooted: () => all.log.push('rebooted'),
    },
  });
  return Object.assign(all, { watch });
}

test('a QEMU that replies is asked eight times in silenceMsMax, and nothing is reported', async () => {
  const all = watched();
  await all.time.pass(10 * ASK_MS);
  assert.equal(all.asked, 10);
  assert.deepEqual(all.log, []);
  assert.equal(all.watch.standing, null);
});

test('a QEMU that stops to reply is hung after silenceMsMax and an eighth, and well when it replies', async () => {
  const all = watched();
  await all.time.pass(ASK_MS + 1);
  all.replying = false;
  await all.time.pass(SILENCE_MS_MAX + ASK_MS - 5);
  assert.deepEqual(all.log, []);
  await all.time.pass(5);
  assert.deepEqual(all.log, ['hung null']);
  assert.equal(all.asked, 2, 'one question at a time');
  await all.time.pass(2 * ASK_MS);
  assert.deepEqual(all.log.slice(1), ['hung lasts', 'hung lasts']);
  all.reply();
  await all.time.pass(1);
  assert.equal(all.log.at(-1), 'well');
  assert.equal(all.watch.silenceMs, 0);
});

test('silence does not count in a checkpoint, nor while bytes of a first copy move', async () => {
  const all = watched();
  all.replying = false;
  await all.time.pass(ASK_MS + 1);
  all.transfer = { isCheckpointing: true, bytes: 0 };
  await all.time.pass(5 * SILENCE_MS_MAX);
  assert.deepEqual(all.log, []);
  for (let bytes = 1; bytes <= 20; bytes++) {
    all.transfer = { isCheckpointing: false, bytes };
    await all.time.pass(SILENCE_MS_MAX / 2);
  }
  assert.deepEqual(all.log, []);
  await all.time.pass(SILENCE_MS_MAX + ASK_MS);
  assert.equal(all.log[0], 'hung null');
});

test('no question is asked in a checkpoint', async () => {
  const all = watched();
  all.transfer = { isCheckpointing: true, bytes: 0 };
  await all.time.pass(SILENCE_MS_MAX);
  all.event('STOP');
  assert.equal(all.asked, 0);
  assert.equal(all.watch.standing, null);
});

test('time in which this process was paused is no silence', async () => {
  const all = watched();
  await all.time.pass(ASK_MS + 1);
  all.replying = false;
  await all.time.pass(ASK_MS);
  all.time.jump(60_000);
  await all.time.pass(ASK_MS);
  assert.deepEqual(all.log, []);
  assert.ok(all.watch.silenceMs <= 3 * ASK_MS);
});

for (const [state, kind] of [
  ['paused', 'stopped'],
  ['suspended', 'asleep'],
  ['io-error', 'failing'],
  ['guest-panicked', 'dead'],
  ['internal-error', 'dead'],
  ['shutdown', 'off'],
] as const) {
  test(`a VM that stops as ${state} is ${kind} within a reply`, async () => {
    const all = watched();
    all.state = state;
    all.event(state === 'suspended' ? 'SUSPEND' : 'STOP');
    assert.equal(all.watch.standing, 'the VM has just stopped');
    await all.time.pass(1);
    assert.deepEqual(all.log, [`${kind} ${state}`]);
    assert.equal(all.watch.standing, all.watch.trouble?.message);
    all.state = 'running';
    all.event(state === 'suspended' ? 'WAKEUP' : 'RESUME');
    assert.deepEqual(all.log, [`${kind} ${state}`, 'well']);
    assert.equal(all.watch.standing, null);
  });
}

test('a trouble of which no event came is noticed by the next question, and a copy is none', async () => {
  const all = watched();
  for (const state of ['colo', 'finish-migrate', 'inmigrate']) {
    all.state = state;
    await all.time.pass(ASK_MS);
  }
  assert.deepEqual(all.log, []);
  all.state = 'io-error';
  await all.time.pass(ASK_MS);
  assert.deepEqual(all.log, ['failing io-error']);
});

test('a stop by this node is none of an operator', async () => {
  const all = watched();
  all.isOwnStop = true;
  all.state = 'paused';
  all.event('STOP');
  await all.time.pass(2 * ASK_MS);
  assert.deepEqual(all.log, []);
  all.isOwnStop = false;
  await all.time.pass(ASK_MS);
  assert.deepEqual(all.log, ['stopped paused']);
});

test('a reply that may be older than a stop is asked for again', async () => {
  const all = watched();
  all.replying = false;
  await all.time.pass(ASK_MS + 1);
  all.event('STOP');
  all.reply('running');
  await all.time.pass(1);
  assert.equal(all.watch.standing, 'the VM has just stopped');
  all.reply('paused');
  await all.time.pass(1);
  assert.deepEqual(all.log, ['stopped paused']);
});

test('QEMU’s reason is in the message', async () => {
  const all = watched();
  all.state = 'io-error';
  all.event('BLOCK_IO_ERROR', { action: 'stop', device: 'disk0', operation: 'write', nospace: true });
  all.event('STOP');
  await all.time.pass(1);
  assert.equal(
    all.watch.trouble?.message,
    'the VM stands because of an I/O error (write to disk0, no space left)',
  );
});

test('a VM whose disk has failed is in trouble for good, though QEMU says that it runs', async () => {
  const all = watched();
  await all.time.pass(ASK_MS + 1);
  all.watch.fail('disk 0: a write of its image failed');
  all.watch.fail('disk 0: another one');
  assert.deepEqual(all.log, ['failing null']);
  await all.time.pass(1);
  all.event('RESUME');
  all.log.length = 0;
  await all.time.pass(ASK_MS + 1);
  assert.deepEqual(all.log, ['failing lasts']);
  assert.equal(all.watch.trouble?.message, 'disk 0: a write of its image failed');
  all.state = 'paused';
  all.event('STOP');
  await all.time.pass(1);
  all.state = 'running';
  all.event('RESUME');
  assert.deepEqual(all.log.slice(1), ['stopped paused', 'failing null']);
});

test('a reboot of the guest is reported, and a reset by a loaded state is none', () => {
  const all = watched();
  all.event('RESET', { guest: false, reason: 'snapshot-load' });
  all.event('RESET', { guest: true, reason: 'guest-reset' });
  assert.deepEqual(all.log, ['rebooted']);
});

test('after stop nothing is asked or reported', async () => {
  const all = watched();
  all.replying = false;
  await all.time.pass(ASK_MS + 1);
  all.watch.stop();
  all.reply('io-error');
  await all.time.pass(2 * SILENCE_MS_MAX);
  assert.equal(all.asked, 1);
  assert.deepEqual(all.log, []);
});
