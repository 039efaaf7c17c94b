import assert from 'node:assert/strict';
import { test } from 'node:test';
import { coloMode, runStatus, VmRunState } from '../../src/dropin/vm-run-state.ts';
import { FakeQemu } from './fake-qemu.ts';

test('the run state of a stop is queried at STOP and returned at RESUME, once', async () => {
  const qemu = new FakeQemu();
  const qmp = await qemu.connect();
  const state = new VmRunState();
  qemu.status = 'paused';
  state.stopped(qmp);
  qemu.status = 'running';
  assert.equal(await state.resumed(), 'paused');
  assert.equal(await state.resumed(), 'unknown');
  assert.equal(state.changes, 3);
});

test('a QEMU that refuses gives an unknown run state, and one without a COLO mode an error', async () => {
  const qemu = new FakeQemu();
  const qmp = await qemu.connect();
  const state = new VmRunState();
  qemu.refuses = new Error('no');
  state.stopped(qmp);
  assert.equal(await state.resumed(), 'unknown');
  await assert.rejects(runStatus(qmp), /no/);
  qemu.refuses = null;
  Object.assign(qemu, { mode: undefined });
  await assert.rejects(coloMode(qmp), { code: 'COLO_QEMU_STATE' });
});
