import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generationOf, type PairEvent, type PairState, step } from '../../src/pair/machine.ts';
import {
  ALONE_A,
  ALONE_B,
  alone,
  candidate,
  claiming,
  next,
  orphaned,
  PAIR_AB,
  PAIR_BA,
  pairIn,
  primary,
  secondary,
  starting,
  stored,
  syncing,
  testRows,
} from './machine-rows.ts';

const linkLost: PairEvent = { type: 'linkLost', cause: 'cable' };

const returning: PairState = { name: 'returning' };
const leased: PairState = { name: 'orphaned', cause: 'cable', waitsFor: 'lease' };
const asking: PairState = { name: 'asking' };
const yielding: PairState = { name: 'yielding', peer: 'b' };
const handedOver: PairState = { name: 'handed-over' };
const fenced: PairState = { name: 'fenced', why: '' };
const arbiterFailed: PairEvent = { type: 'arbiterFailed', message: 'no' };

testRows([
  [
    'claims to boot at the first start',
    starting,
    null,
    { type: 'record', stored: stored(null) },
    'claiming',
    'swap',
  ],
  [
    'claims to boot if the record says alone(this node)',
    starting,
    null,
    { type: 'record', stored: stored(ALONE_A) },
    'claiming',
    'swap',
  ],
  [
    'becomes a candidate if the other node is alone',
    starting,
    null,
    { type: 'record', stored: stored(ALONE_B) },
    'candidate',
    'becomeCandidate',
  ],
  [
    'dials and waits for the other node if it was primary of a pair',
    starting,
    null,
    { type: 'record', stored: stored(PAIR_AB) },
    'returning',
    'becomeCandidate waitForReturn',
  ],
  [
    'dials the other node if it was secondary of a pair',
    starting,
    null,
    { type: 'record', stored: stored(PAIR_BA) },
    'returning',
    'becomeCandidate waitForReturn',
  ],
  ['retries without an arbiter', starting, null, arbiterFailed, 'starting', 'retryAfter'],
  ['reads the record again', starting, null, { type: 'retry' }, 'starting', 'readRecord'],
  [
    'claims to boot if the other node did not connect',
    returning,
    PAIR_AB,
    { type: 'returnTimeOver' },
    'claiming',
    'swap',
  ],
  [
    'becomes a candidate if the other node has the VM',
    returning,
    PAIR_AB,
    { type: 'linkUp', peer: 'b' },
    'candidate',
    '',
  ],
  ['ignores the end of another state’s wait', starting, PAIR_AB, { type: 'returnTimeOver' }, 'starting', ''],

  ['takes a copy', candidate, ALONE_B, { type: 'syncAsked' }, 'copying', ''],
  [
    'is a secondary after the first commit',
    { name: 'copying' },
    ALONE_B,
    { type: 'committed' },
    'secondary',
    '',
  ],
  [
    'starts again without the link',
    { name: 'copying' },
    ALONE_B,
    linkLost,
    'starting',
    'closeLink retryAfter',
  ],
  [
    'starts again without its VM',
    { name: 'copying' },
    ALONE_B,
    { type: 'vmLost', message: '' },
    'starting',
    'closeLink retryAfter',
  ],

  [
    'waits until the lease that it promised is over',
    secondary,
    PAIR_BA,
    linkLost,
    'orphaned',
    'waitForLease',
  ],
  [
    'reads the record before it asks the primary to yield',
    secondary,
    PAIR_BA,
    { type: 'failover' },
    'asking',
    'readRecord',
  ],
  [
    'checks its VM before it asks',
    asking,
    PAIR_BA,
    { type: 'record', stored: stored(PAIR_BA) },
    'asking',
    'checkVm',
  ],
  ['asks when its VM replies', asking, PAIR_BA, { type: 'vmAnswers' }, 'asking', 'askTakeover retryAfter'],
  ['does not ask without its VM', asking, PAIR_BA, { type: 'vmSilent' }, 'secondary', ''],
  ['does not ask without the arbiter', asking, PAIR_BA, arbiterFailed, 'secondary', ''],
  [
    'does not ask if the record names it no more',
    asking,
    PAIR_BA,
    { type: 'record', stored: stored(ALONE_B) },
    'secondary',
    '',
  ],
  ['goes on if the primary does not yield', asking, PAIR_BA, { type: 'retry' }, 'secondary', ''],
  ['claims at once when the primary has yielded', asking, PAIR_BA, { type: 'yielded' }, 'claiming', 'swap'],
  ['claims when the primary has yielded late', secondary, PAIR_BA, { type: 'yielded' }, 'claiming', 'swap'],
  ['waits for the lease if the link is lost instead', asking, PAIR_BA, linkLost, 'orphaned', 'waitForLease'],
  [
    'starts again without its VM',
    asking,
    PAIR_BA,
    { type: 'vmLost', message: '' },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'starts again without its VM',
    secondary,
    PAIR_BA,
    { type: 'vmLost', message: '' },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'reads the record when the lease is over',
    leased,
    PAIR_BA,
    { type: 'leaseOver' },
    'orphaned',
    'readRecord',
  ],
  [
    'ignores a record that was asked for before the link was lost',
    leased,
    null,
    { type: 'record', stored: stored(PAIR_BA) },
    'orphaned',
    '',
  ],
  ['ignores the failure of such a question', leased, PAIR_BA, arbiterFailed, 'orphaned', ''],
  [
    'claims to be promoted if the record names it as secondary',
    orphaned,
    null,
    { type: 'record', stored: stored(PAIR_BA) },
    'claiming',
    'checkVm',
  ],
  [
    'starts again if its copy has died',
    orphaned,
    PAIR_BA,
    { type: 'vmLost', message: '' },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'starts again if the other node is alone',
    orphaned,
    null,
    { type: 'record', stored: stored(ALONE_B) },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'starts again if there is no record',
    orphaned,
    null,
    { type: 'record', stored: stored(null) },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'retries without an arbiter, and is not promoted',
    orphaned,
    PAIR_BA,
    arbiterFailed,
    'orphaned',
    'retryAfter',
  ],
  ['is alone when QEMU has left COLO', { name: 'promoting' }, ALONE_A, { type: 'promoted' }, 'alone', ''],

  ['copies its VM to a candidate', alone, ALONE_A, { type: 'linkUp', peer: 'b' }, 'syncing', 'startSync'],
  ['ignores the request without a candidate', alone, ALONE_A, { type: 'protect' }, 'alone', ''],
  [
    'copies its VM to the candidate that waits',
    { name: 'alone', peer: 'b' },
    ALONE_A,
    { type: 'protect' },
    'syncing',
    'startSync',
  ],
  [
    'speaks by the lease before it claims to be protected',
    syncing,
    ALONE_A,
    { type: 'committed' },
    'claiming',
    'speakByLease swap',
  ],
  [
    'is alone again after a failed copy',
    syncing,
    ALONE_A,
    { type: 'syncFailed', message: '' },
    'alone',
    'closeLink goAlone',
  ],
  ['is alone again without the link', syncing, ALONE_A, linkLost, 'alone', 'closeLink goAlone'],

  ['checks its own VM before it claims to be alone', primary, PAIR_AB, linkLost, 'claiming', 'checkVm'],
  [
    'closes the link and claims to be alone',
    primary,
    PAIR_AB,
    { type: 'failover' },
    'claiming',
    'closeLink checkVm',
  ],
  [
    'gives its voice up before it says so, and keeps its VM',
    primary,
    PAIR_AB,
    { type: 'takeoverAsked' },
    'yielding',
    'yieldVoice retryAfter',
  ],
  [
    'stops its VM when the other node has taken over',
    yielding,
    PAIR_AB,
    { type: 'taken' },
    'handed-over',
    'handOver retryAfter',
  ],
  ['claims its VM back if the link is lost', yielding, PAIR_AB, linkLost, 'claiming', 'checkVm'],
  [
    'claims its VM back if the other node does not take over',
    yielding,
    PAIR_AB,
    { type: 'retry' },
    'claiming',
    'closeLink checkVm',
  ],
  [
    'starts again when the other node needs no more input',
    handedOver,
    ALONE_B,
    linkLost,
    'starting',
    'closeLink retryAfter',
  ],
  ['starts again after a while', handedOver, ALONE_B, { type: 'retry' }, 'starting', 'closeLink retryAfter'],
  ['has given its VM up', handedOver, ALONE_B, { type: 'vmLost', message: '' }, 'handed-over', ''],
  [
    'stops, so that the secondary is promoted',
    primary,
    PAIR_AB,
    { type: 'vmLost', message: '' },
    'stopped',
    'closeLink exit',
  ],

  [
    'boots after it has won',
    claiming('boot'),
    ALONE_A,
    { type: 'swapped', won: true, stored: stored(next(ALONE_A), 8) },
    'alone',
    'bootVm',
  ],
  [
    'starts again after it has lost a boot',
    claiming('boot'),
    ALONE_A,
    { type: 'swapped', won: false, stored: stored(next(ALONE_B), 8) },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'is protected after it has won',
    claiming('protect', 'b'),
    ALONE_A,
    { type: 'swapped', won: true, stored: stored(next(PAIR_AB), 8) },
    'primary',
    'confirmProtected',
  ],
  [
    'claims to be alone if the link was lost meanwhile',
    { name: 'claiming', purpose: 'protect', peer: 'b', cause: '', linkLost: true },
    ALONE_A,
    { type: 'swapped', won: true, stored: stored(next(PAIR_AB), 8) },
    'claiming',
    'checkVm',
  ],
  [
    'asks to be alone when its VM replies',
    claiming('alone'),
    PAIR_AB,
    { type: 'vmAnswers' },
    'claiming',
    'swap',
  ],
  [
    'asks for its promotion when its VM replies',
    claiming('promote'),
    PAIR_BA,
    { type: 'vmAnswers' },
    'claiming',
    'swap',
  ],
  [
    'retries while its VM does not reply',
    claiming('alone'),
    PAIR_AB,
    { type: 'vmSilent' },
    'claiming',
    'retryAfter',
  ],
  [
    'stops without its VM',
    claiming('alone'),
    PAIR_AB,
    { type: 'vmLost', message: '' },
    'stopped',
    'closeLink exit',
  ],
  [
    'is alone after it has won',
    claiming('alone'),
    PAIR_AB,
    { type: 'swapped', won: true, stored: stored(next(ALONE_A), 8) },
    'alone',
    'goAlone',
  ],
  [
    'is fenced after it has lost against the secondary',
    claiming('alone'),
    PAIR_AB,
    { type: 'swapped', won: false, stored: stored(next(ALONE_B), 8) },
    'fenced',
    'fence closeLink retryAfter',
  ],
  [
    'is alone if its own change, whose reply was lost, is stored already',
    claiming('alone'),
    PAIR_AB,
    { type: 'swapped', won: false, stored: stored(next(ALONE_A), 8) },
    'alone',
    'goAlone',
  ],
  [
    'is fenced if the other node has changed the record since it won',
    claiming('protect', 'b'),
    ALONE_A,
    { type: 'swapped', won: true, stored: stored({ ...ALONE_B, generation: 5 }, 9) },
    'fenced',
    'fence closeLink retryAfter',
  ],
  [
    'is promoted after it has won',
    claiming('promote'),
    PAIR_BA,
    { type: 'swapped', won: true, stored: stored(next(ALONE_A), 8) },
    'promoting',
    'promote',
  ],
  [
    'is fenced after it has lost against the primary',
    claiming('promote'),
    PAIR_BA,
    { type: 'swapped', won: false, stored: stored(next(ALONE_B), 8) },
    'fenced',
    'fence closeLink retryAfter',
  ],
  [
    'retries without a reply of the arbiter',
    claiming('alone'),
    PAIR_AB,
    arbiterFailed,
    'claiming',
    'retryAfter',
  ],
  [
    'reads the record before it asks again',
    claiming('alone'),
    PAIR_AB,
    { type: 'retry' },
    'claiming',
    'readRecord',
  ],
  [
    'checks its VM and asks again if the change was not made',
    claiming('alone'),
    PAIR_AB,
    { type: 'record', stored: stored(PAIR_AB) },
    'claiming',
    'checkVm',
  ],
  [
    'is alone if the change was made',
    claiming('alone'),
    PAIR_AB,
    { type: 'record', stored: stored(next(ALONE_A), 8) },
    'alone',
    'goAlone',
  ],
  [
    'is fenced if another change was made',
    claiming('alone'),
    PAIR_AB,
    { type: 'record', stored: stored(next(ALONE_B), 8) },
    'fenced',
    'fence closeLink retryAfter',
  ],

  ['starts again after a while', fenced, ALONE_B, { type: 'retry' }, 'starting', 'closeLink retryAfter'],
  ['ignores requests while it is fenced', fenced, ALONE_B, { type: 'failover' }, 'fenced', ''],
  ['closes the link and exits', primary, PAIR_AB, { type: 'stop' }, 'stopped', 'closeLink exit'],
  ['ignores everything after it has stopped', { name: 'stopped' }, PAIR_AB, { type: 'retry' }, 'stopped', ''],
]);

test('each claim asks for the next generation, by a swap from the revision that was read', () => {
  for (const [state, record, event, wanted] of [
    [
      claiming('alone'),
      PAIR_AB,
      { type: 'vmAnswers' },
      { generation: 4, state: 'alone', primary: 'a', secondary: null },
    ],
    [syncing, ALONE_A, { type: 'committed' }, { generation: 4, state: 'pair', primary: 'a', secondary: 'b' }],
  ] as const) {
    const effects = step(pairIn(state, record), event);
    assert.deepEqual(effects.at(-1), { do: 'swap', revision: 7, record: wanted });
  }
  const pair = pairIn(starting, null);
  assert.deepEqual(step(pair, { type: 'record', stored: stored(null, 0) }), [
    { do: 'swap', revision: 0, record: { generation: 1, state: 'alone', primary: 'a', secondary: null } },
  ]);
  assert.equal(generationOf(pair), 0);
});

test('without autoProtect a candidate waits until an operator asks for protection', () => {
  const pair = pairIn(alone, ALONE_A, false);
  assert.deepEqual(step(pair, { type: 'linkUp', peer: 'b' }), []);
  assert.deepEqual(pair.state, { name: 'alone', peer: 'b' });
  step(pair, linkLost);
  assert.deepEqual(pair.state, { name: 'alone', peer: null });
});

test('protectedBy changes the generation that is shown, and neither state nor revision', () => {
  const pair = pairIn(secondary, ALONE_B);
  assert.deepEqual(step(pair, { type: 'protectedBy', generation: 4 }), []);
  assert.equal(pair.state, secondary);
  assert.deepEqual(pair.stored, { revision: 7, record: next(ALONE_B) });
  assert.equal(generationOf(pair), 4);
  assert.equal(ALONE_B.generation, 3, 'the stored record itself is not changed');
  const unread = pairIn(candidate, null);
  assert.deepEqual(step(unread, { type: 'protectedBy', generation: 4 }), []);
  assert.equal(unread.stored.record, null);
});

test('a VM that has failed ends the node with exit code 1, in every state but stopped', () => {
  for (const state of [
    starting,
    candidate,
    secondary,
    orphaned,
    alone,
    syncing,
    primary,
    claiming('boot'),
    fenced,
  ]) {
    const pair = pairIn(state, ALONE_A);
    const effects = step(pair, { type: 'vmFailed', message: 'QEMU hangs' });
    assert.deepEqual(effects, [{ do: 'exit', code: 1, message: 'QEMU hangs' }], state.name);
    assert.equal(pair.state.name, 'stopped');
    assert.deepEqual(step(pair, { type: 'vmFailed', message: 'again' }), []);
  }
});
