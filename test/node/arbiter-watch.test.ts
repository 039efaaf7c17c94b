import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { ArbiterHistory } from '../../src/node/arbiter-history.ts';
import { ArbiterWatch } from '../../src/node/arbiter-watch.ts';
import { Scope } from '../../src/node/scope.ts';
import { namesNode } from '../../src/node/status-view.ts';
import type { Arbiter, PairRecord, Stored } from '../../src/pair/arbiter.ts';
import { newPair } from '../../src/pair/machine.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { alone, pairOf } from '../pair/arbiter-conformance.ts';

const PAIR = pairOf(2, 'a', 'b');
const unreachable = (message: string): ColoError => new ColoError('COLO_ARBITER_UNREACHABLE', message);

/** An arbiter that replies after `delayMs`, hangs, or fails as a test sets it. */
function rig() {
  const time = new FakeTime();
  const scope = new Scope();
  const emitted: [string, unknown][] = [];
  const arbiter = {
    delayMs: 5,
    record: PAIR as PairRecord | null,
    failure: null as ColoError | null,
    /** the probe and changes fail, reads do not */
    isReadOnly: false,
    hangs: false,
    probes: 0,
  };
  const reply = <T>(value: T, fails: boolean): Promise<T> =>
    new Promise((resolve, reject) => {
      if (arbiter.hangs) return;
      time.after(arbiter.delayMs, () => {
        if (fails && arbiter.failure !== null) reject(arbiter.failure);
        else resolve(value);
      });
    });
  const stored = (): Stored => ({ revision: 1, record: arbiter.record });
  const asked: Arbiter = {
    read: () => reply(stored(), !arbiter.isReadOnly),
    compareAndSwap: () => reply({ ...stored(), won: true }, true),
    probe: () => {
      arbiter.probes++;
      return reply(stored(), true);
    },
    close() {},
  };
  const history = new ArbiterHistory();
  const pair = newPair('b', true);
  pair.state = { name: 'secondary' };
  const watch = new ArbiterWatch({
    arbiter: asked,
    history,
    events: { emit: (type, details) => emitted.push([type, details]) },
    surroundings: {
      clock: time,
      timers: time,
      transports: { connect: async () => assert.fail(), listen: async () => assert.fail(), unlink() {} },
    },
    scope,
    agrees: (one) => namesNode(pair, one),
  });
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 5) {
      await time.pass(5);
      await settled();
    }
  };
  const status = () => history.summary('etcd', time.now());
  return { arbiter, watch, scope, pair, emitted, pass, status };
}

test('an arbiter that replies is asked every two seconds, and how quickly it does is known', async () => {
  const { arbiter, watch, scope, emitted, pass, status } = rig();
  assert.deepEqual(status(), {
    kind: 'etcd',
    state: 'unknown',
    lastReplyMs: null,
    latencyMs: { p50: null, p99: null },
    failing: null,
  });
  watch.start();
  await pass(10_100);
  assert.ok(arbiter.probes === 5 || arbiter.probes === 4, `${arbiter.probes} probes`);
  const { state, lastReplyMs, latencyMs, failing } = status();
  assert.deepEqual([state, latencyMs, failing], ['replies', { p50: 5, p99: 5 }, null]);
  assert.ok(lastReplyMs !== null && lastReplyMs <= 2000);
  assert.deepEqual(emitted, []);
  const { probes } = arbiter;
  scope.end();
  await pass(10_000);
  assert.equal(arbiter.probes, probes, 'a node that has ended asks nobody');
});

test('an outage is noticed though nobody fails over, is reported once per cause, and ends', async () => {
  const { arbiter, watch, emitted, pass, status } = rig();
  watch.start();
  await pass(3000);
  arbiter.failure = unreachable('no quorum');
  await pass(10_000);
  assert.deepEqual(emitted, [['arbiter.failed', { code: 'COLO_ARBITER_UNREACHABLE', message: 'no quorum' }]]);
  const failing = status().failing;
  assert.ok(failing !== null && failing.forMs > 7000 && failing.forMs < 10_000, JSON.stringify(failing));
  assert.ok((status().lastReplyMs ?? 0) > 7000);
  arbiter.failure = new ColoError('COLO_ARBITER_AUTH', 'no token');
  await pass(5000);
  arbiter.failure = unreachable('no quorum');
  await pass(5000);
  assert.equal(emitted.length, 2, 'a cause that was reported is not reported again');
  arbiter.failure = null;
  await pass(3000);
  const [type, details] = emitted[2];
  assert.equal(type, 'arbiter.replies');
  assert.ok((details as { forMs: number }).forMs > 17_000);
  assert.equal(status().state, 'replies');
  arbiter.failure = unreachable('no quorum');
  await pass(3000);
  assert.equal(emitted.length, 4, 'a new outage is reported again');
});

test('an arbiter that can be read and not written fails', async () => {
  const { arbiter, watch, emitted, pass, status } = rig();
  watch.start();
  arbiter.isReadOnly = true;
  arbiter.failure = new ColoError('COLO_ARBITER_SPACE', 'no space');
  await pass(3000);
  for (let i = 0; i < 5; i++) {
    const read = watch.read();
    await pass(100);
    assert.equal((await read).revision, 1);
    assert.equal(status().state, 'fails');
  }
  assert.equal(emitted.length, 1);
  arbiter.failure = null;
  const swap = watch.compareAndSwap(1, PAIR);
  await pass(100);
  assert.equal((await swap).won, true);
  assert.equal(status().state, 'replies');
});

test('an arbiter that hangs for good is noticed', async () => {
  const { arbiter, watch, pass, status } = rig();
  watch.start();
  await pass(2500);
  arbiter.hangs = true;
  await pass(8000);
  const { state, failing } = status();
  assert.equal(state, 'fails');
  assert.match(failing?.message ?? '', /has not replied for 5 s/);
});

test('a protected node notices a record that does not name it, and forgives one look', async () => {
  for (const record of [null, alone(3, 'a'), pairOf(3, 'a', 'c')]) {
    const { arbiter, watch, emitted, pair, pass, status } = rig();
    watch.start();
    await pass(2500);
    arbiter.record = record;
    await pass(2000);
    assert.equal(status().state, 'replies');
    await pass(2500);
    assert.equal(status().failing?.code, 'COLO_ARBITER_RECORD');
    assert.equal(emitted.length, 1);
    pair.state = { name: 'candidate', linked: true };
    await pass(2500);
    assert.equal(status().state, 'replies', 'of a node that is not protected any record is right');
  }
});
