/** What is counted of clients that lived through a failover, with times that are made up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { figuresOf, Seen } from '../../../bench/failover/seen.ts';
import type { Client } from '../../../bench/service/clients.ts';
import { BrokenConnection } from '../../../lab/clients/net.ts';

/** A client's record; `requests` are when each was sent and replied to. */
function seen(requests: readonly (readonly [number, number])[]): Seen {
  const one = new Seen();
  one.replies.start(0);
  for (const [sentMs, repliedMs] of requests) {
    one.replies.arrive(repliedMs);
    one.requests.push({ sentMs, repliedMs });
  }
  one.replies.finish(requests.at(-1)?.[1] ?? 0);
  return one;
}

test('requests before, under way and after are told apart, for all clients', () => {
  const clients = [
    seen([
      [0, 90],
      [90, 100],
      [100, 100],
      [100, 950],
      [950, 960],
    ]),
    seen([[101, 140]]),
    seen([
      [0, 40],
      [40, 700],
      [700, 710],
    ]),
  ];
  assert.deepEqual(figuresOf(clients, 100), {
    ...{ before: 4, underWay: 2, after: 3, p50: 10, gapMs: 850 },
    ...{ failed: 0, broken: 0 },
  });
});

test('the gap is the longest one around the failover, not the longest of all', () => {
  const one = seen([
    [0, 5000],
    [5000, 6000],
    [6000, 6400],
    [6400, 20_000],
  ]);
  assert.equal(figuresOf([one], 6100).gapMs, 13_600);
  const later = seen([
    [0, 5000],
    [5000, 6000],
    [6000, 6400],
    [6400, 12_000],
    [12_000, 40_000],
  ]);
  assert.equal(figuresOf([later], 6100).gapMs, 5600);
});

test('nothing before has no median', () => {
  assert.equal(figuresOf([seen([[0, 300]])], 100).p50, null);
});

const client = (request: () => Promise<void>): Client => ({
  request,
  check: async () => {},
  close: () => {},
});

test('a request that is answered is written down, with its times', async () => {
  const one = new Seen();
  one.replies.start(0);
  await one.of(client(async () => {})).request();
  assert.equal(one.requests.length, 1);
  assert.ok(one.requests[0].repliedMs >= one.requests[0].sentMs);
  assert.equal(one.replies.count, 1);
});

test('a wrong reply has failed, and a broken connection besides is broken', async () => {
  const one = new Seen();
  one.replies.start(0);
  const wrong = one.of(client(() => Promise.reject(new Error('n is 3 after 1'))));
  const broken = one.of(client(() => Promise.reject(new BrokenConnection('reset', 'read ECONNRESET'))));
  await assert.rejects(wrong.request(), /n is 3/);
  await assert.rejects(broken.request(), /ECONNRESET/);
  const { failed, broken: count } = figuresOf([one], 0);
  assert.deepEqual([failed, count], [2, 1]);
});
