import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PairRecord, Stored } from '../../src/pair/arbiter.ts';
import {
  generationOf,
  newPair,
  type Pair,
  type PairEvent,
  type PairState,
  step,
} from '../../src/pair/machine.ts';

const ALONE_A: PairRecord = { generation: 3, state: 'alone', primary: 'a', secondary: null };
const ALONE_B: PairRecord = { generation: 3, state: 'alone', primary: 'b', secondary: null };
const PAIR_AB: PairRecord = { generation: 3, state: 'pair', primary: 'a', secondary: 'b' };
const PAIR_BA: PairRecord = { generation: 3, state: 'pair', primary: 'b', secondary: 'a' };

const stored = (record: PairRecord | null, revision = 7): Stored => ({ revision, record });
const next = (record: PairRecord): PairRecord => ({ ...record, generation: 4 });
const linkLost: PairEvent = { type: 'linkLost', cause: 'cable' };

/** Node `a` in some state, holding some record. */
function pairIn(state: PairState, record: PairRecord | null, autoProtect = true): Pair {
  return { ...newPair('a', autoProtect), state, stored: stored(record) };
}

const claiming = (
  purpose: 'boot' | 'protect' | 'alone' | 'promote',
  peer: string | null = null,
): PairState => ({
  name: 'claiming',
  purpose,
  peer,
  cause: 'why',
  linkLost: false,
});
const starting: PairState = { name: 'starting' };
const returning: PairState = { name: 'returning' };
const candidate: PairState = { name: 'candidate', linked: true };
const orphaned: PairState = { name: 'orphaned', cause: 'cable' };
const alone: PairState = { name: 'alone', peer: null };
const syncing: PairState = { name: 'syncing', peer: 'b' };
const primary: PairState = { name: 'primary', peer: 'b' };
const secondary: PairState = { name: 'secondary' };
const fenced: PairState = { name: 'fenced', why: '' };
const arbiterFailed: PairEvent = { type: 'arbiterFailed', message: 'no' };

type Row = [
  name: string,
  state: PairState,
  record: PairRecord | null,
  event: PairEvent,
  after: string,
  effects: string,
];

const ROWS: Row[] = [
  ['first start', starting, null, { type: 'record', stored: stored(null) }, 'claiming', 'swap'],
  ['cold start of the one', starting, null, { type: 'record', stored: stored(ALONE_A) }, 'claiming', 'swap'],
  [
    'the other has it',
    starting,
    null,
    { type: 'record', stored: stored(ALONE_B) },
    'candidate',
    'becomeCandidate',
  ],
  [
    'was primary of a pair',
    starting,
    null,
    { type: 'record', stored: stored(PAIR_AB) },
    'returning',
    'becomeCandidate waitForReturn',
  ],
  [
    'was secondary',
    starting,
    null,
    { type: 'record', stored: stored(PAIR_BA) },
    'returning',
    'becomeCandidate',
  ],
  ['no arbiter at the start', starting, null, arbiterFailed, 'starting', 'retryAfter'],
  ['asks again', starting, null, { type: 'retry' }, 'starting', 'readRecord'],
  ['nobody showed the VM', returning, PAIR_AB, { type: 'returnTimeOver' }, 'claiming', 'swap'],
  ['the other has the VM', returning, PAIR_AB, { type: 'linkUp', peer: 'b' }, 'candidate', ''],
  ['a start has no return time', starting, PAIR_AB, { type: 'returnTimeOver' }, 'starting', ''],

  ['asked to take a copy', candidate, ALONE_B, { type: 'syncAsked' }, 'copying', ''],
  ['has a copy', { name: 'copying' }, ALONE_B, { type: 'committed' }, 'secondary', ''],
  ['no link, no copy', { name: 'copying' }, ALONE_B, linkLost, 'starting', 'closeLink retryAfter'],
  [
    'its VM is gone',
    { name: 'copying' },
    ALONE_B,
    { type: 'vmLost', message: '' },
    'starting',
    'closeLink retryAfter',
  ],

  ['waits for its promise', secondary, PAIR_BA, linkLost, 'orphaned', 'waitForLease'],
  ['asks to take over', secondary, PAIR_BA, { type: 'failover' }, 'secondary', 'askTakeover'],
  ['the primary has yielded', secondary, PAIR_BA, { type: 'yielded' }, 'orphaned', 'closeLink readRecord'],
  [
    'its VM is gone too',
    secondary,
    PAIR_BA,
    { type: 'vmLost', message: '' },
    'starting',
    'closeLink retryAfter',
  ],
  ['asks when its promise is over', orphaned, PAIR_BA, { type: 'leaseOver' }, 'orphaned', 'readRecord'],
  ['may take over', orphaned, null, { type: 'record', stored: stored(PAIR_BA) }, 'claiming', 'checkVm'],
  [
    'its copy died, too',
    orphaned,
    PAIR_BA,
    { type: 'vmLost', message: '' },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'may not: the other went alone',
    orphaned,
    null,
    { type: 'record', stored: stored(ALONE_B) },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'may not: never protected',
    orphaned,
    null,
    { type: 'record', stored: stored(null) },
    'starting',
    'closeLink retryAfter',
  ],
  ['no arbiter, no takeover', orphaned, PAIR_BA, arbiterFailed, 'orphaned', 'retryAfter'],
  ['promoted', { name: 'promoting' }, ALONE_A, { type: 'promoted' }, 'alone', ''],

  ['a candidate comes', alone, ALONE_A, { type: 'linkUp', peer: 'b' }, 'syncing', 'startSync'],
  ['nobody to protect with', alone, ALONE_A, { type: 'protect' }, 'alone', ''],
  ['asked to protect', { name: 'alone', peer: 'b' }, ALONE_A, { type: 'protect' }, 'syncing', 'startSync'],
  ['the first commit', syncing, ALONE_A, { type: 'committed' }, 'claiming', 'speakByLease swap'],
  ['the copy failed', syncing, ALONE_A, { type: 'syncFailed', message: '' }, 'alone', 'closeLink goAlone'],
  ['no peer, no copy', syncing, ALONE_A, linkLost, 'alone', 'closeLink goAlone'],

  ['the secondary is gone, or its own VM', primary, PAIR_AB, linkLost, 'claiming', 'checkVm'],
  ['told to do without', primary, PAIR_AB, { type: 'failover' }, 'claiming', 'closeLink checkVm'],
  ['yields', primary, PAIR_AB, { type: 'takeoverAsked' }, 'fenced', 'fence sendYielded retryAfter'],
  ['lost its VM', primary, PAIR_AB, { type: 'vmLost', message: '' }, 'stopped', 'closeLink exit'],

  [
    'may boot',
    claiming('boot'),
    ALONE_A,
    { type: 'swapped', won: true, stored: stored(next(ALONE_A), 8) },
    'alone',
    'bootVm',
  ],
  [
    'may not boot',
    claiming('boot'),
    ALONE_A,
    { type: 'swapped', won: false, stored: stored(next(ALONE_B), 8) },
    'starting',
    'closeLink retryAfter',
  ],
  [
    'is protected',
    claiming('protect', 'b'),
    ALONE_A,
    { type: 'swapped', won: true, stored: stored(next(PAIR_AB), 8) },
    'primary',
    'confirmProtected',
  ],
  [
    'lost the link while it claimed: takes it back',
    { name: 'claiming', purpose: 'protect', peer: 'b', cause: '', linkLost: true },
    ALONE_A,
    { type: 'swapped', won: true, stored: stored(next(PAIR_AB), 8) },
    'claiming',
    'checkVm',
  ],
  ['its VM lives', claiming('alone'), PAIR_AB, { type: 'vmAnswers' }, 'claiming', 'swap'],
  ['its VM lives, too', claiming('promote'), PAIR_BA, { type: 'vmAnswers' }, 'claiming', 'swap'],
  ['its VM says nothing', claiming('alone'), PAIR_AB, { type: 'vmSilent' }, 'claiming', 'retryAfter'],
  [
    'its VM was dead',
    claiming('alone'),
    PAIR_AB,
    { type: 'vmLost', message: '' },
    'stopped',
    'closeLink exit',
  ],
  [
    'goes alone',
    claiming('alone'),
    PAIR_AB,
    { type: 'swapped', won: true, stored: stored(next(ALONE_A), 8) },
    'alone',
    'goAlone',
  ],
  [
    'lost against the secondary',
    claiming('alone'),
    PAIR_AB,
    { type: 'swapped', won: false, stored: stored(next(ALONE_B), 8) },
    'fenced',
    'fence closeLink retryAfter',
  ],
  [
    'refused because it stands already: the first answer was lost',
    claiming('alone'),
    PAIR_AB,
    { type: 'swapped', won: false, stored: stored(next(ALONE_A), 8) },
    'alone',
    'goAlone',
  ],
  [
    'won, and was overtaken before it knew',
    claiming('protect', 'b'),
    ALONE_A,
    { type: 'swapped', won: true, stored: stored({ ...ALONE_B, generation: 5 }, 9) },
    'fenced',
    'fence closeLink retryAfter',
  ],
  [
    'takes over',
    claiming('promote'),
    PAIR_BA,
    { type: 'swapped', won: true, stored: stored(next(ALONE_A), 8) },
    'promoting',
    'promote',
  ],
  [
    'lost against the primary',
    claiming('promote'),
    PAIR_BA,
    { type: 'swapped', won: false, stored: stored(next(ALONE_B), 8) },
    'fenced',
    'fence closeLink retryAfter',
  ],
  ['no answer', claiming('alone'), PAIR_AB, arbiterFailed, 'claiming', 'retryAfter'],
  ['looks before it asks again', claiming('alone'), PAIR_AB, { type: 'retry' }, 'claiming', 'readRecord'],
  [
    'the change was not made',
    claiming('alone'),
    PAIR_AB,
    { type: 'record', stored: stored(PAIR_AB) },
    'claiming',
    'checkVm',
  ],
  [
    'the change was made',
    claiming('alone'),
    PAIR_AB,
    { type: 'record', stored: stored(next(ALONE_A), 8) },
    'alone',
    'goAlone',
  ],
  [
    'another change was made',
    claiming('alone'),
    PAIR_AB,
    { type: 'record', stored: stored(next(ALONE_B), 8) },
    'fenced',
    'fence closeLink retryAfter',
  ],

  ['starts again', fenced, ALONE_B, { type: 'retry' }, 'starting', 'closeLink retryAfter'],
  ['a fenced node takes no orders', fenced, ALONE_B, { type: 'failover' }, 'fenced', ''],
  ['stops', primary, PAIR_AB, { type: 'stop' }, 'stopped', 'closeLink exit'],
  ['stays stopped', { name: 'stopped' }, PAIR_AB, { type: 'retry' }, 'stopped', ''],
];

for (const [name, state, record, event, after, effects] of ROWS) {
  test(`${state.name}, ${event.type}: ${name}`, () => {
    const pair = pairIn(state, record);
    const done = step(pair, event).map((effect) => effect.do);
    assert.equal(pair.state.name, after);
    assert.equal(done.join(' '), effects);
  });
}

test('each claim asks for the next generation, from the revision that was read', () => {
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

test('without autoProtect a candidate waits to be asked for', () => {
  const pair = pairIn(alone, ALONE_A, false);
  assert.deepEqual(step(pair, { type: 'linkUp', peer: 'b' }), []);
  assert.deepEqual(pair.state, { name: 'alone', peer: 'b' });
  step(pair, linkLost);
  assert.deepEqual(pair.state, { name: 'alone', peer: null });
});
