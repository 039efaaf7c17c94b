import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../src/checkpoint/until.ts';
import { FakeTime } from './fake-time.ts';

test('what holds already is not waited for', async () => {
  const time = new FakeTime();
  assert.equal(await until(time, time, 100, () => true), true);
  assert.equal(time.waiting, 0);
});

test('it is asked at every turn for 2 ms, then once a millisecond, and answers when it holds', async () => {
  const time = new FakeTime();
  let asked = 0;
  let answer: boolean | null = null;
  void until(time, time, 100, () => ++asked > 0 && time.now() >= 10).then((held) => {
    answer = held;
  });
  await time.pass(9);
  assert.equal(answer, null);
  assert.ok(asked >= 8 && asked <= 14, `asked ${asked} times`);
  await time.pass(2);
  assert.equal(answer, true);
  assert.equal(time.waiting, 0);
});

test('it gives up when the time is over', async () => {
  const time = new FakeTime();
  let answer: boolean | null = null;
  void until(time, time, 50, () => false).then((held) => {
    answer = held;
  });
  await time.pass(49);
  assert.equal(answer, null);
  await time.pass(2);
  assert.equal(answer, false);
  assert.equal(time.waiting, 0);
});

test('a throw ends the wait', async () => {
  const time = new FakeTime();
  const waited = until(time, time, 50, () => {
    if (time.now() >= 5) throw new Error('gone');
    return false;
  });
  const rejected = assert.rejects(waited, /gone/);
  await time.pass(6);
  await rejected;
  assert.equal(time.waiting, 0);
});
