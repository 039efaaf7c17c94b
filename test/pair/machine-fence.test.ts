/** The state machine with a fence command. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PairRecord } from '../../src/pair/arbiter.ts';
import { newPair, type Pair, step } from '../../src/pair/machine.ts';
import {
  ALONE_A,
  ALONE_B,
  next,
  orphaned,
  PAIR_BA,
  secondary,
  starting,
  stored,
  testRows,
} from './machine-rows.ts';

const FENCING_AB: PairRecord = { generation: 3, state: 'fencing', primary: 'a', secondary: 'b' };

testRows([
  [
    'tries the fence again',
    { name: 'fencing', peer: 'b', purpose: 'promote', cause: 'cable' },
    FENCING_AB,
    { type: 'fenceFailed' },
    'fencing',
    'retryAfter',
  ],
  [
    'runs the fence again after a while',
    { name: 'fencing', peer: 'b', purpose: 'promote', cause: 'cable' },
    FENCING_AB,
    { type: 'retry' },
    'fencing',
    'fencePeer',
  ],
  [
    'claims to be promoted when the peer is cut off',
    { name: 'fencing', peer: 'b', purpose: 'promote', cause: 'cable' },
    FENCING_AB,
    { type: 'peerFenced' },
    'claiming',
    'checkVm',
  ],
  [
    'claims to boot when the peer is cut off',
    { name: 'fencing', peer: 'b', purpose: 'boot', cause: 'cold start' },
    FENCING_AB,
    { type: 'peerFenced' },
    'claiming',
    'swap',
  ],
  [
    'stops without its VM, and fences again when it starts',
    { name: 'fencing', peer: 'b', purpose: 'promote', cause: 'cable' },
    FENCING_AB,
    { type: 'vmLost', message: '' },
    'stopped',
    'closeLink exit',
  ],
  [
    'boots without a fence if there is none any more',
    starting,
    null,
    { type: 'record', stored: stored(FENCING_AB) },
    'claiming',
    'swap',
  ],
  [
    'becomes a candidate of the node that fences it',
    starting,
    null,
    { type: 'record', stored: stored({ ...FENCING_AB, primary: 'b', secondary: 'a' }) },
    'candidate',
    'becomeCandidate',
  ],
]);

test('with a fence: wins first, then cuts the former primary off, then is promoted', () => {
  const pair: Pair = { ...newPair('a', true, 'fence'), state: orphaned };
  const asked = step(pair, { type: 'record', stored: stored(PAIR_BA) });
  assert.deepEqual(asked, [{ do: 'checkVm' }]);
  const won = next(FENCING_AB);
  assert.deepEqual(step(pair, { type: 'vmAnswers' }), [{ do: 'swap', revision: 7, record: won }]);
  const fences = step(pair, { type: 'swapped', won: true, stored: stored(won, 8) });
  assert.deepEqual(fences, [{ do: 'fencePeer', peer: 'b' }]);
  assert.equal(pair.state.name, 'fencing');
  assert.deepEqual(step(pair, { type: 'peerFenced' }), [{ do: 'checkVm' }]);
  const alone = { ...won, generation: 5, state: 'alone', secondary: null };
  assert.deepEqual(step(pair, { type: 'vmAnswers' }), [{ do: 'swap', revision: 8, record: alone }]);
});

test('with a fence: one that has lost the first claim cuts nobody off', () => {
  const pair: Pair = { ...newPair('a', true, 'fence'), state: orphaned };
  step(pair, { type: 'record', stored: stored(PAIR_BA) });
  const lost = step(pair, { type: 'swapped', won: false, stored: stored(next(ALONE_B), 8) });
  assert.deepEqual(
    lost.map((effect) => effect.do),
    ['fence', 'closeLink', 'retryAfter'],
  );
});

test('with a fence: a primary that has yielded is not cut off', () => {
  const pair: Pair = { ...newPair('a', true, 'fence'), state: secondary };
  step(pair, { type: 'failover' });
  step(pair, { type: 'record', stored: stored(PAIR_BA) });
  step(pair, { type: 'vmAnswers' });
  const claims = step(pair, { type: 'yielded' });
  assert.deepEqual(claims, [{ do: 'swap', revision: 7, record: next(ALONE_A) }]);
});

test('with a fence: one that starts again before it is done runs it before it boots', () => {
  const pair = newPair('a', true, 'fence');
  assert.deepEqual(step(pair, { type: 'record', stored: stored(FENCING_AB) }), [
    { do: 'fencePeer', peer: 'b' },
  ]);
});
