import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QmpKeeper } from '../../src/dropin/qmp-keeper.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { FakeQemu } from './fake-qemu.ts';

function kept(qemu: FakeQemu, up: () => Promise<void> = async () => {}) {
  const time = new FakeTime();
  const notified: string[] = [];
  const keeper = new QmpKeeper(unixEndpoint('/qmp'), qemu.connect, time, {
    up: async () => {
      notified.push('up');
      await up();
    },
    event: async (_qmp, name) => {
      notified.push(name);
      if (name === 'BAD') throw new Error('not now');
    },
    beat: async () => {},
    down: () => notified.push('down'),
    note: (type, details) => notified.push(`${type} ${Object.values(details).join()}`.trim()),
  });
  return { time, notified, keeper };
}

test('it dials until QEMU is there, and notes once that it is not', async () => {
  const qemu = new FakeQemu();
  qemu.fails = new Error('not there');
  const { time, notified, keeper } = kept(qemu);
  keeper.start();
  await time.pass(1700);
  assert.equal(keeper.qmp, null);
  assert.deepEqual(notified.splice(0), ['down', 'qmp.down not there', 'down', 'down', 'down']);
  qemu.fails = null;
  await time.pass(500);
  assert.notEqual(keeper.qmp, null);
  assert.deepEqual(notified.splice(0), ['up', 'qmp.up']);
  await qemu.hangUp();
  assert.equal(keeper.qmp, null);
  assert.deepEqual(notified.splice(0), ['down', 'qmp.down gone']);
  await time.pass(600);
  assert.deepEqual(notified.splice(0), ['up', 'qmp.up']);
});

test('a QEMU that refuses the first command is disconnected, and dialled again', async () => {
  const qemu = new FakeQemu();
  let refuses = true;
  const { time, notified, keeper } = kept(qemu, async () => {
    if (refuses) throw new Error('does not reply');
  });
  keeper.start();
  await settled();
  assert.equal(qemu.closed, 1);
  assert.deepEqual(notified.splice(0), ['up', 'down', 'qmp.down does not reply']);
  await time.pass(1600);
  assert.ok(
    !notified.some((text) => text.startsWith('qmp.')),
    'noted once, although it accepts each connection',
  );
  refuses = false;
  await time.pass(600);
  assert.notEqual(keeper.qmp, null);
  assert.equal(notified.at(-1), 'qmp.up');
});

test('an event whose handling fails is noted, and the connection stays', async () => {
  const qemu = new FakeQemu();
  const { notified, keeper } = kept(qemu);
  keeper.start();
  await settled();
  await qemu.emitAll('BAD', 'STOP');
  assert.deepEqual(notified, ['up', 'qmp.up', 'BAD', 'STOP', 'qmp.refused not now']);
});

test('after close it neither dials nor notifies', async () => {
  const qemu = new FakeQemu();
  const { time, notified, keeper } = kept(qemu);
  keeper.start();
  await settled();
  notified.splice(0);
  keeper.close();
  await qemu.hangUp();
  await time.pass(2000);
  assert.deepEqual(notified, []);
  assert.deepEqual([qemu.connections, qemu.closed, time.waiting], [1, 1, 0]);

  // Closed while it dials: the connection that opens then is closed.
  const late = kept(qemu);
  late.keeper.start();
  late.keeper.close();
  await settled();
  assert.deepEqual([late.notified, qemu.closed], [[], 2]);
});
