import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NotifyOnce, Outage, redial } from '../../src/io/redial.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

/** A peer that refuses with each of the `causes`, one per attempt, and then accepts. */
function rig(causes: string[], once: NotifyOnce = 'per cause') {
  const time = new FakeTime();
  const abort = new AbortController();
  const attemptsMs: number[] = [];
  const notices: string[] = [];
  const outage = new Outage(once, (message) => notices.push(message));
  const connections: unknown[] = [];
  let closed = 0;
  const connection = { close: () => closed++ };
  const dialled = (firstWaitMs = 0) =>
    redial({
      connected: (one) => connections.push(one),
      dial: async () => {
        attemptsMs.push(time.now());
        const cause = causes.shift();
        if (cause !== undefined) throw new Error(cause);
        return connection;
      },
      outage,
      timers: time,
      waitMs: 100,
      firstWaitMs,
      signal: abort.signal,
    });
  return { time, abort, attemptsMs, notices, outage, connection, connections, dialled, closed: () => closed };
}

test('redial waits between attempts and resolves when a connection is there', async () => {
  const { time, attemptsMs, connection, connections, dialled } = rig(['refused', 'refused']);
  const result = dialled();
  await time.pass(250);
  await result;
  assert.deepEqual(connections, [connection]);
  assert.deepEqual(attemptsMs, [0, 100, 200]);
  assert.equal(time.waiting, 0);
});

test('each cause that differs from the one before is notified of once', async () => {
  const { time, notices, dialled } = rig(['refused', 'refused', 'absent', 'absent', 'refused']);
  const result = dialled();
  await time.pass(600);
  await result;
  assert.deepEqual(notices, ['refused', 'absent', 'refused']);
});

test('per outage only the first cause is notified of, until a connection was there', async () => {
  const causes = ['refused', 'absent'];
  const { time, notices, outage, dialled } = rig(causes, 'per outage');
  outage.down('the peer closed it');
  const first = dialled();
  await time.pass(300);
  await first;
  assert.deepEqual(notices, ['the peer closed it']);
  causes.push('refused', 'absent');
  const second = dialled();
  await time.pass(300);
  await second;
  assert.deepEqual(notices, ['the peer closed it', 'refused']);
});

test('the first attempt can be made to wait', async () => {
  const { time, attemptsMs, dialled } = rig([]);
  const result = dialled(30);
  await time.pass(40);
  await result;
  assert.deepEqual(attemptsMs, [30]);
});

test('an abort ends the wait at once, and nothing is dialled afterwards', async () => {
  const { time, abort, attemptsMs, dialled } = rig(['refused', 'refused']);
  const result = dialled();
  await time.pass(10);
  abort.abort();
  await result;
  assert.equal(time.waiting, 0);
  await dialled(30);
  assert.deepEqual(attemptsMs, [0]);
});

test('a connection that opens after the abort is closed; a refusal after it is not notified of', async () => {
  const opens = rig([]);
  const opened = opens.dialled();
  opens.abort.abort();
  await opened;
  assert.deepEqual([opens.closed(), opens.connections], [1, []]);

  const fails = rig(['refused']);
  const failed = fails.dialled();
  fails.abort.abort();
  await failed;
  assert.deepEqual(fails.notices, []);
});
