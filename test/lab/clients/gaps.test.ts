import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arrivals, blackout, gapAround } from '../../../lab/clients/gaps.ts';

function arrivalsAt(times: readonly number[], limit?: number): Arrivals {
  const arrivals = new Arrivals(limit);
  arrivals.start(times[0]);
  for (const at of times.slice(1)) arrivals.arrive(at);
  return arrivals;
}

test('the longest gap around a kill is found', () => {
  const arrivals = arrivalsAt([0, 10, 20, 30, 830, 840, 850]);
  assert.deepEqual(gapAround(arrivals, 100, 860), {
    fromMs: 30,
    toMs: 830,
    ms: 800,
    waitedMs: 800,
    open: false,
  });
});

test('a gap outside the window does not count, one that overlaps it does', () => {
  // Kill at 10000: the window is 9900 to 15000.
  const times = [0, 9000, 9800, 9910, 10_000, 10_020, 14_990, 17_000, 30_000];
  assert.equal(gapAround(arrivalsAt(times), 10_000, 30_000)?.ms, 4970);
  assert.equal(gapAround(arrivalsAt([0, 8000, 9850, 9905, 9950]), 10_000, 9960)?.ms, 55);
  // It began inside the window and ends long after it.
  assert.equal(gapAround(arrivalsAt([9990, 14_999, 40_000]), 10_000, 40_000)?.ms, 25_001);
  // It began after the window.
  assert.equal(gapAround(arrivalsAt([9990, 12_000, 15_001, 40_000]), 10_000, 40_000)?.ms, 3001);
});

test('an interval without an end counts until now', () => {
  const arrivals = arrivalsAt([0, 10, 20]);
  assert.deepEqual(gapAround(arrivals, 15, 720), {
    fromMs: 20,
    toMs: 720,
    ms: 700,
    waitedMs: 700,
    open: true,
  });
});

test('a client that is done has no open interval, but the time until its end counts', () => {
  const arrivals = arrivalsAt([0, 10, 20]);
  arrivals.finish(50);
  assert.equal(gapAround(arrivals, 15, 9000)?.ms, 30);
  assert.equal(gapAround(arrivals, 5000, 9000), undefined);
});

test('the pause of a rate limit is no gap, however long', () => {
  const arrivals = arrivalsAt([0, 10]);
  arrivals.pause(10);
  arrivals.resume(500);
  arrivals.arrive(501);
  arrivals.arrive(551);
  assert.deepEqual(gapAround(arrivals, 20, 551), {
    fromMs: 501,
    toMs: 551,
    ms: 50,
    waitedMs: 50,
    open: false,
  });
});

test('a blackout that begins in a pause is reported whole', () => {
  const arrivals = arrivalsAt([0, 10]);
  arrivals.pause(10);
  arrivals.resume(30);
  arrivals.arrive(710);
  assert.deepEqual(gapAround(arrivals, 20, 711), {
    fromMs: 10,
    toMs: 710,
    ms: 700,
    waitedMs: 680,
    open: false,
  });
});

test('a pause that lasts until now is not waiting', () => {
  const arrivals = arrivalsAt([0, 10]);
  arrivals.pause(12);
  assert.equal(gapAround(arrivals, 11, 900)?.waitedMs, 10);
});

test('a client that was not active has no gap', () => {
  assert.equal(gapAround(new Arrivals(), 100, 200), undefined);
});

test('the blackout is the gap of the client that waited longest', () => {
  const clients = {
    echo: arrivalsAt([0, 10, 310, 320]),
    counter: arrivalsAt([0, 20, 420]),
    late: new Arrivals(),
  };
  const worst = blackout(clients, 15, 420);
  assert.equal(worst?.client, 'counter');
  assert.equal(worst?.gap.ms, 400);
});

test('the amount since a time is summed up', () => {
  const arrivals = new Arrivals();
  arrivals.start(0);
  for (let at = 1; at <= 5000; at += 1) arrivals.arrive(at, 3);
  assert.equal(arrivals.amountSince(4000), 3000);
  assert.equal(arrivals.total, 15_000);
  assert.equal(arrivals.count, 5000);
});

test('at its limit the record forgets the older half, and refuses questions about it', () => {
  const arrivals = new Arrivals(2048);
  arrivals.start(0);
  for (let at = 1; at <= 10_000; at += 1) arrivals.arrive(at);
  arrivals.arrive(10_700);
  assert.equal(gapAround(arrivals, 10_000, 10_700)?.ms, 700);
  assert.equal(arrivals.amountSince(9990), 11);
  assert.throws(() => gapAround(arrivals, 500, 10_700), { code: 'COLO_INVARIANT' });
});

test('a clock that goes back is refused', () => {
  assert.throws(() => arrivalsAt([0, 10, 9]), { code: 'COLO_INVARIANT' });
});
