/** A node that starts again where the record names it as secondary: a change that it asked for before may come late. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newPair, type Pair, type PairEvent, step } from '../../src/pair/machine.ts';
import { alone, pairOf } from './arbiter-conformance.ts';

const PAIR_BA = pairOf(3, 'b', 'a');

function returning(): Pair {
  const stored = { revision: 7, record: PAIR_BA };
  return { ...newPair('a', true), state: { name: 'returning' }, stored };
}

function effectsOf(pair: Pair, event: PairEvent): string[] {
  return step(pair, event).map((effect) => effect.do);
}

test('it reads the record again, and waits on while that is the same', () => {
  const pair = returning();
  for (let i = 0; i < 3; i++) {
    assert.deepEqual(effectsOf(pair, { type: 'returnTimeOver' }), ['readRecord']);
    const stored = { revision: 7, record: PAIR_BA };
    assert.deepEqual(effectsOf(pair, { type: 'record', stored }), ['waitForReturn']);
    assert.equal(pair.state.name, 'returning');
  }
});

test('it claims to boot if its own change has come late', () => {
  const pair = returning();
  const stored = { revision: 8, record: alone(4, 'a') };
  assert.deepEqual(effectsOf(pair, { type: 'record', stored }), ['swap']);
  assert.partialDeepStrictEqual(pair.state, { name: 'claiming', purpose: 'boot' });
});

test('it becomes a candidate if the other node has become alone', () => {
  const pair = returning();
  const stored = { revision: 8, record: alone(4, 'b') };
  assert.deepEqual(effectsOf(pair, { type: 'record', stored }), ['becomeCandidate']);
  assert.equal(pair.state.name, 'candidate');
});
