import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VmPauses } from '../../src/qemu/vm-pauses.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

/** `late`: how long after QEMU has stamped it an event arrives. */
function pausesOf(time: FakeTime) {
  const pauses = new VmPauses(time);
  const at = (event: string, late = 0, clockSetMs = 0) =>
    pauses.event({ event, data: {}, timestampUs: (time.wall() - late + clockSetMs) * 1000 });
  return { pauses, at };
}

test('pauses are counted by the stamps of QEMU, however late the events arrive', async () => {
  const time = new FakeTime();
  const { pauses, at } = pausesOf(time);
  at('STOP');
  await time.pass(20);
  at('RESUME');
  await time.pass(100);
  at('STOP', 30);
  await time.pass(50);
  at('RESUME', 5);
  assert.deepEqual(pauses.all, { count: 2, totalMs: 95, longestMs: 75 });
});

test('other events, a STOP of a stopped VM and a RESUME of one that runs change nothing', async () => {
  const time = new FakeTime();
  const { pauses, at } = pausesOf(time);
  at('RESUME');
  at('STOP');
  await time.pass(10);
  at('STOP');
  at('MIGRATION');
  await time.pass(10);
  at('RESUME');
  at('RESUME');
  assert.deepEqual(pauses.all, { count: 1, totalMs: 20, longestMs: 20 });
});

test('a wall clock that is set within a pause changes no figure', async () => {
  for (const setMs of [-3_600_000, 3_600_000]) {
    const time = new FakeTime();
    const { pauses, at } = pausesOf(time);
    at('STOP');
    await time.pass(25);
    at('RESUME', 0, setMs);
    assert.deepEqual(pauses.all, { count: 1, totalMs: 25, longestMs: 25 });
  }
});

test('a measure has the pauses that end while it lasts; the last but one begins where it was', async () => {
  const time = new FakeTime();
  const { pauses, at } = pausesOf(time);
  const pause = async (ms: number) => {
    at('STOP');
    await time.pass(ms);
    at('RESUME');
    await time.pass(1);
  };
  await pause(7);
  const measure = pauses.measure();
  await pause(500);
  at('STOP');
  let called = 0;
  pauses.afterNextResume(() => called++);
  assert.equal(called, 0);
  await time.pass(20);
  at('RESUME');
  assert.equal(called, 1);
  measure.end();
  await pause(3);
  assert.equal(called, 1);
  assert.deepEqual(measure.pauses, { count: 2, totalMs: 520, longestMs: 500 });
  assert.equal(pauses.beforeLastMs, 8 + 501);
});
