/** What the page makes of messages: what it says loudly, and that it does not grow. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { alarmsOf, isStale } from '../../page/alarms.ts';
import { EMPTY, type Store, withEvents, withHello, withView } from '../../page/store.ts';
import { Sampler } from '../../src/dashboard/sampler.ts';
import type { NodeStatus } from '../../src/observe/status.ts';
import { fakeStatus } from '../observe/fake-node.ts';

const NOW_MS = 1_800_000_000_000;

function storeOf(change: (status: NodeStatus) => void = () => {}): Store {
  const status = fakeStatus();
  status.uplink.peer = null;
  status.link.tls = null;
  change(status);
  const view = { nowMs: NOW_MS, status, statusAtMs: NOW_MS, away: null };
  return withHello(EMPTY, { ...view, samples: [], events: [], turns: [] }, NOW_MS);
}

const titles = (store: Store, nowMs = NOW_MS): string[] =>
  alarmsOf(store, nowMs).map(({ level, title }) => `${level}: ${title}`);

test('a protected pair is shown as such', () => {
  assert.deepEqual(titles(storeOf()), ['good: Protected']);
});

const LOUD: [string, (status: NodeStatus) => void][] = [
  ['bad: UNPROTECTED', (status) => Object.assign(status, { phase: 'alone' })],
  ['bad: UNPROTECTED', (status) => Object.assign(status, { phase: 'syncing' })],
  ['bad: FAILOVER', (status) => Object.assign(status, { phase: 'promoting' })],
  ['bad: FENCED', (status) => Object.assign(status, { phase: 'fenced' })],
  ['bad: STOPPED', (status) => Object.assign(status, { phase: 'stopped' })],
  [
    'bad: NO FAILOVER NOW',
    ({ arbiter }) =>
      Object.assign(arbiter, { state: 'fails', failing: { forMs: 1, code: 'COLO_X', message: 'm' } }),
  ],
  [
    "bad: This node's uplink is away",
    ({ uplink }) => Object.assign(uplink.own, { up: false, cause: 'no-carrier' }),
  ],
  ['bad: The secondary is of no use', ({ secondary }) => Object.assign(secondary ?? {}, { unmatched: true })],
  [
    'bad: The VM is hung',
    ({ vm }) => Object.assign(vm, { trouble: { kind: 'hung', state: null, message: 'm', forMs: 1 } }),
  ],
  [
    'warn: Protected, but for some flows',
    (status) =>
      Object.assign(status, {
        rules: [{ match: 'udp 161', exempt: { frames: 0, bytes: 0 }, intervalMsMin: null, unify: null }],
      }),
  ],
];

for (const [title, change] of LOUD)
  test(`the page says first: ${title}`, () => {
    assert.equal(titles(storeOf(change))[0], title);
  });

test('an alarm reads the same from second to second, so that it is read aloud once', () => {
  const store = storeOf((status) => Object.assign(status, { phase: 'alone' }));
  const later = withView(store, { ...store.view!, nowMs: NOW_MS + 1000, sample: null }, NOW_MS + 1000);
  assert.deepEqual(alarmsOf(store, NOW_MS), alarmsOf(later, NOW_MS + 1000));
});

test('what is not news is called stale: no message, a node that is away, a dashboard that is gone', () => {
  const store = storeOf();
  assert.equal(isStale(store, NOW_MS + 3000), false);
  assert.equal(isStale(store, NOW_MS + 5000), true);
  // "Protected" is not said of what is not known any more.
  assert.deepEqual(titles(store, NOW_MS + 5000), ['bad: STALE: no news']);
  const away = { sinceMs: NOW_MS, code: 'COLO_NODE_UNREACHABLE', message: 'no node runs' };
  const gone = withView(store, { ...store.view!, away, sample: null }, NOW_MS);
  assert.equal(isStale(gone, NOW_MS), true);
  assert.equal(titles(gone)[0], 'bad: STALE: the node does not reply');
  const lost: Store = { ...store, connection: { state: 'lost', sinceMs: NOW_MS, message: 'm' } };
  assert.equal(isStale(lost, NOW_MS), true);
  assert.equal(titles(lost)[0], 'bad: STALE: the dashboard does not reply');
  const alone = storeOf((status) => Object.assign(status, { phase: 'alone' }));
  assert.deepEqual(titles(alone, NOW_MS + 5000), ['bad: STALE: no news', 'bad: Before that: UNPROTECTED']);
});

test('a page that is open for a week has a bounded memory', () => {
  let store = storeOf();
  const sampler = new Sampler();
  for (let i = 0; i < 1000; i++) {
    const events = Array.from({ length: 100 }, (_, j) => ({
      seq: 100 * i + j,
      at: new Date(NOW_MS + i).toISOString(),
      node: 'alpha',
      type: j === 0 ? 'pair.state' : 'compare.diverged',
      flow: `tcp 192.0.2.1:80 <-> 192.0.2.9:${100 * i + j}`,
      service: `tcp ${i}`,
      class: 'clock',
      why: 'a time',
    }));
    store = withEvents(store, { events, missed: 7 });
    const sample = sampler.sample(fakeStatus(), NOW_MS + 1000 * i);
    store = withView(store, { ...store.view!, sample }, NOW_MS);
  }
  const { events, turns, diverged, samples, missed } = store;
  assert.deepEqual(
    [events.length, turns.length, diverged.length, samples.length, missed],
    [1000, 200, 50, 900, 7000],
  );
  assert.deepEqual(diverged[0], {
    service: 'tcp 999',
    class: 'clock',
    why: 'a time',
    count: 99,
    lastFlow: 'tcp 192.0.2.1:80 <-> 192.0.2.9:99999',
    lastAt: new Date(NOW_MS + 999).toISOString(),
  });
});
