/** What a node does about a VM in trouble: rows as in machine.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PairRecord, Stored } from '../../src/pair/arbiter.ts';
import { newPair, type PairEvent, type PairState, type Purpose, step } from '../../src/pair/machine.ts';
import type { TroubleKind } from '../../src/pair/vm-trouble-rules.ts';

const ALONE_A: PairRecord = { generation: 3, state: 'alone', primary: 'a', secondary: null };
const ALONE_B: PairRecord = { generation: 3, state: 'alone', primary: 'b', secondary: null };
const PAIR_AB: PairRecord = { generation: 3, state: 'pair', primary: 'a', secondary: 'b' };
const PAIR_BA: PairRecord = { generation: 3, state: 'pair', primary: 'b', secondary: 'a' };

const stored = (record: PairRecord | null, revision = 7): Stored => ({ revision, record });
const next = (record: PairRecord): PairRecord => ({ ...record, generation: 4 });

const orphaned: PairState = { name: 'orphaned', cause: 'cable', waitsFor: 'record' };
const candidate: PairState = { name: 'candidate', linked: true };
const alone: PairState = { name: 'alone', peer: null };
const syncing: PairState = { name: 'syncing', peer: 'b' };
const primary: PairState = { name: 'primary', peer: 'b' };
const secondary: PairState = { name: 'secondary' };
const claiming = (purpose: Purpose, peer: string | null = null): PairState => ({
  name: 'claiming',
  purpose,
  peer,
  cause: 'why',
  linkLost: false,
});
const trouble = (kind: TroubleKind): PairEvent => ({ type: 'vmTrouble', kind, message: 'it' });

type Row = [
  name: string,
  state: PairState,
  record: PairRecord | null,
  event: PairEvent,
  after: string,
  effects: string,
];

const ROWS: Row[] = [
  [
    'says so when the primary’s guest is switched off, and asks for the record',
    primary,
    PAIR_AB,
    trouble('off'),
    'claiming',
    'reportOff swap waitForPowerOff',
  ],
  [
    'releases what is held, and ends, when the record names the node whose guest is off',
    claiming('off'),
    PAIR_AB,
    { type: 'swapped', stored: stored(next(ALONE_A), 8), won: true },
    'stopped',
    'release exit',
  ],
  [
    'ends without the record if the arbiter is away',
    claiming('off'),
    PAIR_AB,
    { type: 'powerOffTimeOver' },
    'stopped',
    'exit',
  ],
  ['asks once', claiming('off'), PAIR_AB, trouble('off'), 'claiming', ''],
  [
    'is fenced if the secondary was promoted before its guest was off',
    claiming('off'),
    PAIR_AB,
    { type: 'swapped', stored: stored(next(ALONE_B), 8), won: false },
    'fenced',
    'fence closeLink retryAfter',
  ],
  ['ends when the guest of a lone VM is off', alone, ALONE_A, trouble('off'), 'stopped', 'reportOff exit'],
  [
    'ends when the guest is off in a first copy',
    syncing,
    ALONE_A,
    trouble('off'),
    'stopped',
    'reportOff exit',
  ],
  [
    'gives up its copy when the guest of an orphan is off',
    orphaned,
    PAIR_BA,
    trouble('off'),
    'starting',
    'reportVm closeLink retryAfter',
  ],
  [
    'waits for the primary’s word when the secondary’s guest is off',
    secondary,
    PAIR_BA,
    trouble('off'),
    'secondary',
    'waitForPowerOff',
  ],
  ['waits once', { name: 'secondary', isOff: true }, PAIR_BA, trouble('off'), 'secondary', ''],
  ['ends when the primary’s guest is off', secondary, PAIR_BA, { type: 'peerOff' }, 'stopped', 'exit'],
  [
    'ends as a candidate when the primary’s guest is off',
    candidate,
    ALONE_B,
    { type: 'peerOff' },
    'stopped',
    'exit',
  ],
  [
    'gives up its copy when only that is off',
    { name: 'secondary', isOff: true },
    PAIR_BA,
    { type: 'powerOffTimeOver' },
    'starting',
    'reportVm closeLink retryAfter',
  ],
  ...(['stopped', 'failing'] as const).map(
    (kind): Row => [
      `ends the first copy when the VM is ${kind}`,
      syncing,
      ALONE_A,
      trouble(kind),
      'syncing',
      'reportVm',
    ],
  ),
  ['waits for the last VM in a first copy', syncing, ALONE_A, trouble('hung'), 'syncing', ''],
  [
    'lets the next checkpoint wake a guest that sleeps',
    secondary,
    PAIR_BA,
    trouble('asleep'),
    'secondary',
    '',
  ],
  ...(['hung', 'failing'] as const).flatMap((kind): Row[] => [
    [
      `ends the pair when the primary's VM is ${kind}`,
      primary,
      PAIR_AB,
      trouble(kind),
      'claiming',
      'reportVm checkVm',
    ],
    [`ends its copy when that is ${kind}`, secondary, PAIR_BA, trouble(kind), 'secondary', 'reportVm'],
    [
      `starts again when the VM that is to get a copy is ${kind}`,
      { name: 'copying' },
      ALONE_B,
      trouble(kind),
      'starting',
      'reportVm closeLink retryAfter',
    ],
    [`keeps the last VM, even if it is ${kind}`, alone, ALONE_A, trouble(kind), 'alone', ''],
    [
      `keeps a VM that it is about to be promoted with, even if it is ${kind}`,
      orphaned,
      PAIR_BA,
      trouble(kind),
      'orphaned',
      '',
    ],
    [
      `waits for the arbiter, even if the VM is ${kind}`,
      claiming('protect', 'b'),
      ALONE_A,
      trouble(kind),
      'claiming',
      '',
    ],
  ]),
  [
    'keeps the pair when an operator stops the primary’s VM',
    primary,
    PAIR_AB,
    trouble('stopped'),
    'primary',
    '',
  ],
  ['ends its copy when somebody stops that', secondary, PAIR_BA, trouble('stopped'), 'secondary', 'reportVm'],
  [
    'takes a dead VM for lost: primary',
    primary,
    PAIR_AB,
    trouble('dead'),
    'stopped',
    'reportVm closeLink exit',
  ],
  [
    'takes a dead VM for lost: secondary',
    secondary,
    PAIR_BA,
    trouble('dead'),
    'starting',
    'reportVm closeLink retryAfter',
  ],
];

for (const [name, state, record, event, after, effects] of ROWS)
  test(name, () => {
    const pair = { ...newPair('a', true), state, stored: { revision: 7, record } };
    const done = step(pair, event).map((effect) => effect.do);
    assert.deepEqual([pair.state.name, done.join(' ')], [after, effects]);
  });
