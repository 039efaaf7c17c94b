import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LeasePromise, SpeakingRight } from '../../src/pair/lease.ts';
import type { Instant } from '../../src/units.ts';

const LEASE_MS = 1000;

/** One heartbeat: when it is sent, how long it and its reply take, and which of them is lost. */
const beat = fc.record({
  afterMs: fc.integer({ min: 0, max: 400 }),
  thereMs: fc.integer({ min: 0, max: 3000 }),
  backMs: fc.integer({ min: 0, max: 3000 }),
  lostThere: fc.boolean(),
  lostBack: fc.boolean(),
  repeated: fc.boolean(),
});

/** Returns the end of the right after the reply to heartbeat `number`. */
function untilAfter(right: SpeakingRight, number: number): number {
  right.replied(number);
  return right.untilMs;
}

test('the secondary’s promise never ends before the primary’s lease', () => {
  const clock = fc.record({
    offsetMs: fc.integer({ min: -1e6, max: 1e6 }),
    rate: fc.double({ min: 0.96, max: 1.04, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(beat, { minLength: 1, maxLength: 90 }), clock, (beats, { offsetMs, rate }) => {
      // True time runs on the primary's clock; the secondary's has its own zero and its own speed.
      const secondaryClock = (ms: number) => ms * rate + offsetMs;
      const trueTime = (ms: number) => (ms - offsetMs) / rate;
      const right = new SpeakingRight(LEASE_MS);
      const promise = new LeasePromise(LEASE_MS, secondaryClock(0) as Instant);
      const events: { ms: number; run: (ms: number) => void }[] = [];
      let speakUntilMs = Number.NEGATIVE_INFINITY;
      let sentMs = 0;
      for (const { afterMs, thereMs, backMs, lostThere, lostBack, repeated } of beats) {
        sentMs += afterMs;
        events.push({
          ms: sentMs,
          run: (ms) => {
            const number = right.send(ms as Instant);
            if (lostThere) return;
            later(ms + thereMs, (heardMs) => {
              promise.renew(secondaryClock(heardMs) as Instant);
              if (lostBack) return;
              for (let i = 0; i < (repeated ? 2 : 1); i++) {
                later(heardMs + backMs + 500 * i, () => {
                  right.replied(number);
                  speakUntilMs = right.untilMs;
                });
              }
            });
          },
        });
      }
      function later(ms: number, run: (ms: number) => void): void {
        events.push({ ms, run });
      }
      while (events.length > 0) {
        events.sort((a, b) => a.ms - b.ms);
        const event = events.shift()!;
        // As if the secondary received no further heartbeat:
        assert.ok(speakUntilMs < trueTime(promise.overAtMs));
        event.run(event.ms);
        assert.ok(speakUntilMs < trueTime(promise.overAtMs));
      }
    }),
    { numRuns: 300 },
  );
});

test('a reply proves the lease from when its heartbeat was sent', () => {
  const right = new SpeakingRight(LEASE_MS);
  const number = right.send(5000 as Instant);
  right.send(5100 as Instant);
  assert.equal(untilAfter(right, number), 5900);
  assert.equal(untilAfter(right, number), 5900);
});

test('a late reply to an older heartbeat does not shorten the lease', () => {
  const right = new SpeakingRight(LEASE_MS);
  const first = right.send(0 as Instant);
  const second = right.send(100 as Instant);
  assert.equal(untilAfter(right, second), 1000);
  assert.equal(untilAfter(right, first), 1000);
});

test('a reply to a heartbeat that was never sent, or that is more than 64 heartbeats old, proves nothing', () => {
  const right = new SpeakingRight(LEASE_MS);
  assert.equal(untilAfter(right, 0), Number.NEGATIVE_INFINITY);
  right.send(10 as Instant);
  assert.equal(untilAfter(right, 0), Number.NEGATIVE_INFINITY);
  assert.equal(untilAfter(right, 2), Number.NEGATIVE_INFINITY);
  for (let i = 0; i < 64; i++) right.send((1000 + i) as Instant);
  assert.equal(untilAfter(right, 1), Number.NEGATIVE_INFINITY);
  assert.equal(untilAfter(right, 2), 1900);
});

test('a promise counts from the last heartbeat, or from its creation', () => {
  const promise = new LeasePromise(LEASE_MS, 50 as Instant);
  assert.equal(promise.overAtMs, 1050);
  promise.renew(70 as Instant);
  assert.equal(promise.lastHeardMs, 70);
  assert.equal(promise.overAtMs, 1070);
});
