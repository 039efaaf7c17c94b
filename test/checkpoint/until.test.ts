import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../src/checkpoint/until.ts';
import { FakeTime } from './fake-time.ts';

test('a condition that holds already resolves at once', async () => {
  const time = new FakeTime();
  assert.equal(await until(time, time, 100, () => true), true);
  assert.equal(time.waiting, 0);
});

test('a condition is polled every turn for 2 ms, then every millisecond, and resolves with true when it holds', async () => {
  const time = new FakeTime();
  let asked = 0;
  let result: boolean | null = null;
  void until(time, time, 100, () => ++asked > 0 && time.now() >= 10).then((held) => {
    result = held;
  });
  await time.pass(9);
  assert.equal(result, null);
  assert.ok(asked >= 8 && asked <= 14, `asked ${asked} times`);
  await time.pass(2);
  assert.equal(result, true);
  assert.equal(time.waiting, 0);
});

test('a condition that does not hold within msMax resolves with false', async () => {
  const time = new FakeTime();
  let result: boolean | null = null;
  void until(time, time, 50, () => false).then((held) => {
    result = held;
  });
  await time.pass(49);
  assert.equal(result, null);
  await time.pass(2);
  assert.equal(result, false);
  assert.equal(time.waiting, 0);
});

test('a condition that throws rejects', async () => {
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
