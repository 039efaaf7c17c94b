/** The clients of a row at work, with services that the test plays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../../bench/service/clients.ts';
import { Load } from '../../../bench/service/load.ts';
import { processorMs } from '../../../bench/service/processor.ts';

const client = (request: () => Promise<void>, close = (): void => {}): Client => ({
  request,
  check: request,
  close,
});

test('every client works, one request at a time, and is closed', async () => {
  const open = new Set<number>();
  const counts = [0, 0, 0];
  const load = await Load.start(3, async (index) => {
    open.add(index);
    let busy = false;
    return client(
      async () => {
        assert.equal(busy, false);
        busy = true;
        await sleep(1);
        busy = false;
        counts[index]++;
      },
      () => open.delete(index),
    );
  });
  const outcome = await load.run(50);
  load.close();
  assert.equal(open.size, 0);
  assert.ok(counts.every((count) => count > 0));
  assert.equal(
    outcome.requests,
    counts.reduce((sum, count) => sum + count, 0),
  );
  assert.equal(outcome.latenciesMs.length, outcome.requests);
  assert.ok(outcome.perSecond > 0);
  assert.equal(outcome.errors, 0);
});

test('a client whose request fails is replaced, and the failure counted', async () => {
  let opened = 0;
  const load = await Load.start(1, async () => {
    const isFirst = opened++ === 0;
    return client(async () => {
      await sleep(1);
      if (isFirst) throw new Error('reset');
    });
  });
  const outcome = await load.run(300);
  assert.equal(opened, 2);
  assert.equal(outcome.errors, 1);
  assert.equal(outcome.firstError, 'reset');
  assert.ok(outcome.requests > 0);
});

test('if one client cannot start, those before it are closed', async () => {
  const closed: number[] = [];
  const start = Load.start(3, async (index) => {
    if (index === 2) throw new Error('refused');
    return client(
      async () => {},
      () => closed.push(index),
    );
  });
  await assert.rejects(start, /refused/);
  assert.deepEqual(closed, [0, 1]);
});

test('every client checks what was acknowledged to it, whatever the others find', async () => {
  let checks = 0;
  const load = await Load.start(3, async (index) => ({
    ...client(async () => {}),
    check: async () => {
      checks++;
      if (index < 2) throw new Error(`${index} is lost`);
    },
  }));
  assert.deepEqual(await load.check(), ['0 is lost', '1 is lost']);
  assert.equal(checks, 3);
});

test('a service that never works ends the run', async () => {
  const load = await Load.start(1, async () => client(() => Promise.reject(new Error('gone'))));
  await assert.rejects(load.run(60_000), /gone/);
});

test('at a given rate no request is sent before it is due', async () => {
  const load = await Load.start(2, async () => client(async () => {}));
  const startMs = performance.now();
  const { requests } = await load.run(200, 100);
  const passedMs = performance.now() - startMs;
  assert.ok(requests > 0 && requests <= 2 + passedMs / 10, `${requests} in ${passedMs} ms`);
});

test('a request that had to wait for the last one is late from when it was due', async () => {
  const load = await Load.start(1, async () => client(() => sleep(20).then(() => {})));
  const { latenciesMs } = await load.run(200, 1000);
  const last = latenciesMs.length - 1;
  // Each takes 19 ms at least and is due 1 ms after the one before.
  assert.ok(latenciesMs[last] >= 18 * last, `${latenciesMs}`);
});

test("a process's processor time only grows", () => {
  const before = processorMs(process.pid);
  for (const endMs = performance.now() + 100; performance.now() < endMs; );
  assert.ok(before > 0 && processorMs(process.pid) >= before);
});
