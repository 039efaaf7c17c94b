import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Voice } from '../../src/pair/voice.ts';
import type { Instant } from '../../src/units.ts';

const at = (ms: number) => ms as Instant;

test('a voice is silent until it is granted', () => {
  const voice = new Voice();
  assert.equal(voice.maySpeak(at(0)), false);
  voice.prolong(1000);
  assert.throws(() => voice.lease(1000), { code: 'COLO_INVARIANT' });
  assert.equal(voice.maySpeak(at(0)), false);
  voice.grantAlone(1);
  assert.equal(voice.maySpeak(at(1e12)), true);
});

test('a lease ends at its instant, is prolonged, and never becomes shorter', () => {
  const voice = new Voice();
  voice.grantAlone(1);
  voice.lease(1000);
  assert.equal(voice.maySpeak(at(999.9)), true);
  assert.equal(voice.maySpeak(at(1000)), false);
  voice.prolong(1500);
  assert.equal(voice.maySpeak(at(1499)), true);
  assert.throws(() => voice.prolong(1400), { code: 'COLO_INVARIANT' });
});

test('only a newer record makes a leased node speak alone again', () => {
  const voice = new Voice();
  voice.grantAlone(4);
  voice.grantAlone(4);
  voice.lease(1000);
  assert.throws(() => voice.grantAlone(4), { code: 'COLO_INVARIANT' });
  assert.equal(voice.maySpeak(at(2000)), false);
  voice.grantAlone(6);
  assert.equal(voice.maySpeak(at(2000)), true);
  assert.throws(() => voice.grantAlone(5), { code: 'COLO_INVARIANT' });
});

test('whatever comes after a fence, a fenced voice is silent', () => {
  const act = fc.oneof(
    fc.record({ do: fc.constant('grant' as const), value: fc.integer({ min: 1, max: 9 }) }),
    fc.record({ do: fc.constant('lease' as const), value: fc.integer({ min: 0, max: 9000 }) }),
    fc.record({ do: fc.constant('prolong' as const), value: fc.integer({ min: 0, max: 9000 }) }),
  );
  fc.assert(
    fc.property(fc.array(act), fc.array(act), (before, after) => {
      const voice = new Voice();
      const perform = ({ do: what, value }: (typeof before)[number]) => {
        try {
          if (what === 'grant') voice.grantAlone(value);
          else if (what === 'lease') voice.lease(value);
          else voice.prolong(value);
        } catch (cause) {
          assert.equal((cause as { code: string }).code, 'COLO_INVARIANT');
        }
      };
      for (const one of before) perform(one);
      voice.fence();
      for (const one of after) {
        perform(one);
        assert.ok(voice.isFenced);
        assert.equal(voice.maySpeak(at(-1)), false);
      }
    }),
  );
});

test('the status has what is left of a lease, and never less than nothing', () => {
  const voice = new Voice();
  assert.deepEqual(voice.status(at(0)), { state: 'silent' });
  voice.grantAlone(1);
  assert.deepEqual(voice.status(at(0)), { state: 'alone' });
  voice.lease(100);
  assert.deepEqual(voice.status(at(40)), { state: 'leased', leftMs: 60 });
  assert.deepEqual(voice.status(at(140)), { state: 'leased', leftMs: 0 });
  voice.yield();
  assert.deepEqual(voice.status(at(40)), { state: 'yielded' });
  voice.fence();
  assert.deepEqual(voice.status(at(40)), { state: 'fenced' });
});
