import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QmpKeeper } from '../../src/dropin/qmp-keeper.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { FakeQemu } from './fake-qemu.ts';

function kept(qemu: FakeQemu, up: () => Promise<void> = async () => {}) {
  const time = new FakeTime();
  const said: string[] = [];
  const keeper = new QmpKeeper(unixEndpoint('/qmp'), qemu.connect, time, {
    up: async () => {
      said.push('up');
      await up();
    },
    event: async (_qmp, name) => {
      said.push(name);
      if (name === 'BAD') throw new Error('not now');
    },
    down: () => said.push('down'),
    note: (type, details) => said.push(`${type} ${Object.values(details).join()}`.trim()),
  });
  return { time, said, keeper };
}

test('it dials until QEMU is there, and says once that it is not', async () => {
  const qemu = new FakeQemu();
  qemu.fails = new Error('not there');
  const { time, said, keeper } = kept(qemu);
  keeper.start();
  await time.pass(1700);
  assert.equal(keeper.qmp, null);
  assert.deepEqual(said.splice(0), ['down', 'qmp.down not there', 'down', 'down', 'down']);
  qemu.fails = null;
  await time.pass(500);
  assert.notEqual(keeper.qmp, null);
  assert.deepEqual(said.splice(0), ['qmp.up', 'up']);
  await qemu.hangUp();
  assert.equal(keeper.qmp, null);
  assert.deepEqual(said.splice(0), ['down', 'qmp.down gone']);
  await time.pass(600);
  assert.deepEqual(said.splice(0), ['qmp.up', 'up']);
});

test('a QEMU that does not answer the first question is hung up on, and dialled again', async () => {
  const qemu = new FakeQemu();
  let refuses = true;
  const { time, said, keeper } = kept(qemu, async () => {
    if (refuses) throw new Error('says nothing');
  });
  keeper.start();
  await settled();
  assert.equal(qemu.closed, 1);
  assert.deepEqual(said.splice(0), ['qmp.up', 'up', 'down', 'qmp.down says nothing']);
  refuses = false;
  await time.pass(600);
  assert.notEqual(keeper.qmp, null);
});

test('an event whose handling fails is told, and ends nothing', async () => {
  const qemu = new FakeQemu();
  const { said, keeper } = kept(qemu);
  keeper.start();
  await settled();
  await qemu.emitAll('BAD', 'STOP');
  assert.deepEqual(said, ['qmp.up', 'up', 'BAD', 'STOP', 'qmp.refused not now']);
});

test('closed, it neither dials nor speaks any more', async () => {
  const qemu = new FakeQemu();
  const { time, said, keeper } = kept(qemu);
  keeper.start();
  await settled();
  said.splice(0);
  keeper.close();
  await qemu.hangUp();
  await time.pass(2000);
  assert.deepEqual(said, []);
  assert.deepEqual([qemu.connections, qemu.closed, time.waiting], [1, 1, 0]);

  // Closed while it dials: what it gets is let go.
  const late = kept(qemu);
  late.keeper.start();
  late.keeper.close();
  await settled();
  assert.deepEqual([late.said, qemu.closed], [[], 2]);
});
