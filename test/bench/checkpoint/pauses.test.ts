/** What the bench makes of QEMU's events. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Pause, PauseWatch, pauseMs, stepsOf } from '../../../bench/checkpoint/pauses.ts';
import type { QmpEvent } from '../../../src/qemu/qmp.ts';

function watched(): { watch: PauseWatch; send: (event: string, timestampUs: number) => void } {
  let listener: (event: QmpEvent) => void = () => assert.fail('nobody listens');
  const watch = new PauseWatch('a VM', {
    onEvent(listen) {
      listener = listen;
      return () => {};
    },
  });
  return { watch, send: (event, timestampUs) => listener({ event, data: {}, timestampUs }) };
}

const pause = (stopUs: number, resumeUs: number): Pause => ({ stopUs, resumeUs });

test('a pause is from STOP to RESUME by the clock of QEMU', () => {
  const { watch, send } = watched();
  send('STOP', 1_000_000);
  send('MIGRATION', 1_002_000);
  send('RESUME', 1_012_500);
  assert.deepEqual(watch.pauses, [pause(1_000_000, 1_012_500)]);
  assert.equal(pauseMs(watch.pauses[0]), 12.5);
});

test('a RESUME whose STOP was not seen makes no pause', () => {
  const { watch, send } = watched();
  send('RESUME', 1_000_000);
  assert.deepEqual(watch.pauses, []);
});

test('a checkpoint has ended when the VM runs again and the request was replied to', async () => {
  const { watch, send } = watched();
  const reply = Promise.withResolvers<string>();
  let ended = false;
  const result = watch.through(() => reply.promise);
  result.finally(() => {
    ended = true;
  });
  send('STOP', 1_000_000);
  reply.resolve('done');
  await new Promise(setImmediate);
  assert.equal(ended, false);
  send('RESUME', 1_001_000);
  assert.equal(await result, 'done');
});

test('the steps of a checkpoint add up to its pause', () => {
  const steps = stepsOf([pause(2_000, 14_000)], [pause(500, 12_500)]);
  assert.deepEqual(steps, [{ reply: 1.5, state: 10.5, loaded: 1.5 }]);
});

test('each pause of the primary gets the pause of the secondary that belongs to it', () => {
  const primary = [pause(20_000, 30_000), pause(120_000, 140_000)];
  // The first belongs to a checkpoint before.
  const secondary = [pause(1_000, 5_000), pause(19_000, 29_000), pause(118_000, 139_000)];
  assert.deepEqual(
    stepsOf(primary, secondary).map(({ reply }) => reply),
    [1, 2],
  );
});

test('a pause of the primary without one of the secondary has no steps', () => {
  const primary = [pause(20_000, 30_000)];
  assert.deepEqual(stepsOf(primary, []), []);
  assert.deepEqual(stepsOf(primary, [pause(1_000, 5_000)]), []);
  assert.deepEqual(stepsOf(primary, [pause(21_000, 29_000)]), []);
  assert.deepEqual(stepsOf(primary, [pause(19_000, 31_000)]), []);
});
