import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError, InvariantError } from '../../src/error.ts';
import { PeerFence } from '../../src/node/peer-fence.ts';
import { Scope } from '../../src/node/scope.ts';
import type { PairEvent } from '../../src/pair/machine.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

function rig() {
  const time = new FakeTime();
  const scope = new Scope();
  const dispatched: string[] = [];
  const emitted: [string, unknown][] = [];
  const runs: { resolve: () => void; reject: (cause: Error) => void; signal: AbortSignal }[] = [];
  const fence = new PeerFence({
    fencer: (_peer, signal) => new Promise((resolve, reject) => runs.push({ resolve, reject, signal })),
    events: { emit: (type, details) => emitted.push([type, details]) },
    clock: time,
    scope,
    dispatch: (event: PairEvent) => dispatched.push(event.type),
  });
  return { fence, time, scope, dispatched, emitted, runs };
}

test('a run that fails is shown, and the promotion waits on for the next one', async () => {
  const { fence, time, dispatched, emitted, runs } = rig();
  const idle = { waitingMs: null, running: false, done: 0, failed: 0, message: null };
  assert.deepEqual(fence.status(time.now()), idle);
  const first = fence.run('b');
  await time.pass(30);
  assert.deepEqual(fence.status(time.now()), { ...idle, waitingMs: 30, running: true });
  runs[0].reject(new ColoError('COLO_FENCE_FAILED', 'no route'));
  await first;
  await time.pass(10);
  const message = 'COLO_FENCE_FAILED: no route';
  assert.deepEqual(fence.status(time.now()), { waitingMs: 40, running: false, done: 0, failed: 1, message });
  const second = fence.run('b');
  await time.pass(5);
  runs[1].resolve();
  await second;
  assert.deepEqual(fence.status(time.now()), { ...idle, done: 1, failed: 1 });
  assert.deepEqual(dispatched, ['fenceFailed', 'peerFenced']);
  assert.deepEqual(emitted, [
    ['fence.started', { peer: 'b' }],
    ['fence.failed', { peer: 'b', tookMs: 30, message }],
    ['fence.started', { peer: 'b' }],
    ['fence.done', { peer: 'b', tookMs: 5 }],
  ]);
});

test('two runs at once are refused', async () => {
  const { fence } = rig();
  void fence.run('b');
  await assert.rejects(fence.run('b'), InvariantError);
});

test('a node that has ended dispatches nothing, and its run is told', async () => {
  const { fence, scope, dispatched, runs } = rig();
  const run = fence.run('b');
  scope.end();
  assert.equal(runs[0].signal.aborted, true);
  runs[0].resolve();
  await run;
  assert.deepEqual(dispatched, []);
});
