import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newPair, type PairEvent, type PairState, step } from '../../src/pair/machine.ts';
import { decideYield, type UplinkState } from '../../src/pair/uplink-yield.ts';

const away = (sinceMs: number): UplinkState => ({ cause: 'not-connected', sinceMs });
const up = (sinceMs: number): UplinkState => ({ cause: null, sinceMs });

const decide = (
  own: UplinkState,
  peer: UplinkState | null,
  nowMs: number,
  promotedAtMs: number | null = null,
) => decideYield({ own, peer, nowMs, promotedAtMs, awayMsMax: 2000, holdDownMs: 60_000 });

test('a primary stays while its uplink is up, and for awayMsMax after that', () => {
  assert.equal(decide(up(0), up(0), 1_000_000), 'stay');
  assert.equal(decide(away(10_000), up(0), 11_999), 'stay');
  assert.equal(decide(away(10_000), up(0), 12_000), 'yield');
});

test('nobody moves to a secondary whose uplink is away, is not known, or has only just come up', () => {
  assert.equal(decide(away(10_000), away(5000), 1_000_000), 'peer-away');
  assert.equal(decide(away(10_000), null, 1_000_000), 'peer-away');
  assert.equal(decide(away(10_000), up(18_500), 20_000), 'peer-away');
  assert.equal(decide(away(10_000), up(18_000), 20_000), 'yield');
});

test('a node that was promoted yields only after the hold-down', () => {
  assert.equal(decide(away(10_000), up(0), 64_999, 5000), 'hold-down');
  assert.equal(decide(away(10_000), up(0), 65_000, 5000), 'yield');
});

test('a primary offers a takeover, and only a secondary takes it', () => {
  const states: PairState[] = [
    { name: 'starting' },
    { name: 'candidate', linked: true },
    { name: 'secondary' },
    { name: 'orphaned', cause: '', waitsFor: 'lease' },
    { name: 'alone', peer: 'b' },
    { name: 'syncing', peer: 'b' },
    { name: 'primary', peer: 'b' },
    { name: 'fenced', why: '' },
  ];
  const effects = (state: PairState, event: PairEvent) => step({ ...newPair('a', true), state }, event);
  for (const state of states) {
    const offer = state.name === 'primary' ? [{ do: 'offerTakeover' }] : [];
    assert.deepEqual(effects(state, { type: 'uplinkAway' }), offer, state.name);
    const ask = state.name === 'secondary' ? [{ do: 'readRecord' }] : [];
    assert.deepEqual(effects(state, { type: 'takeoverOffered' }), ask, state.name);
  }
});
