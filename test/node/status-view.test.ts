import assert from 'node:assert/strict';
import { test } from 'node:test';
import { phaseOf, roleOf } from '../../src/node/status-view.ts';
import { newPair, type PairState, type Purpose } from '../../src/pair/machine.ts';

const claiming = (purpose: Purpose): PairState => ({
  name: 'claiming',
  purpose,
  peer: null,
  cause: '',
  linkLost: false,
});

for (const [state, role, phase] of [
  [{ name: 'starting' }, null, 'starting'],
  [{ name: 'returning' }, null, 'starting'],
  [{ name: 'candidate', linked: true }, 'secondary', 'starting'],
  [{ name: 'copying' }, 'secondary', 'syncing'],
  [{ name: 'secondary' }, 'secondary', 'protected'],
  [{ name: 'orphaned', cause: '' }, 'secondary', 'promoting'],
  [{ name: 'promoting' }, 'secondary', 'promoting'],
  [{ name: 'alone', peer: null }, 'primary', 'alone'],
  [{ name: 'syncing', peer: 'b' }, 'primary', 'syncing'],
  [{ name: 'primary', peer: 'b' }, 'primary', 'protected'],
  [claiming('boot'), 'primary', 'starting'],
  [claiming('protect'), 'primary', 'syncing'],
  // Its lease may end while it asks, so "alone" would mislead: that one may speak.
  [claiming('alone'), 'primary', 'promoting'],
  [claiming('promote'), 'secondary', 'promoting'],
  [{ name: 'fenced', why: '' }, null, 'fenced'],
  [{ name: 'stopped' }, null, 'stopped'],
] as [PairState, string | null, string][]) {
  const purpose = state.name === 'claiming' ? ` ${state.purpose}` : '';
  test(`state ${state.name}${purpose} is shown as ${role ?? 'no role'}, ${phase}`, () => {
    const pair = newPair('a', true);
    pair.state = state;
    assert.deepEqual([roleOf(pair), phaseOf(pair)], [role, phase]);
  });
}
