/** The rule as a table: on which image a VM may boot. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootProblem } from '../../src/disk/disk-rules.ts';
import type { DiskState } from '../../src/disk/store.ts';

type Row = readonly [
  what: string,
  state: DiskState | null,
  generation: number,
  /** while it is not known whether a commit of overlays has ended */
  unknown: 'boots' | 'not',
  /** when it has */
  ended: 'boots' | 'not',
];

const ROWS: readonly Row[] = [
  ['an image that no node has used, at the first start', null, 1, 'boots', 'boots'],
  ['one whose disk was added to a pair that is there', null, 40, 'boots', 'boots'],
  ['one that this node ran on', { state: 'complete', generation: 7 }, 8, 'boots', 'boots'],
  ['one of which the claim is on record already', { state: 'complete', generation: 8 }, 8, 'boots', 'boots'],
  [
    'one whose node could not write for some starts',
    { state: 'complete', generation: 4 },
    8,
    'boots',
    'boots',
  ],
  ['an older copy', { state: 'complete', generation: 3 }, 8, 'not', 'not'],
  ['one of a record that was lost', { state: 'complete', generation: 7 }, 1, 'not', 'not'],
  ['one that is newer than the record', { state: 'complete', generation: 9 }, 8, 'not', 'not'],
  ['a half copy', { state: 'target', generation: 7 }, 8, 'not', 'not'],
  ['a half copy, whatever the record says', { state: 'target', generation: 9 }, 8, 'not', 'not'],
  ['one that lacks a write', { state: 'lacking', generation: 8 }, 8, 'not', 'not'],
  ['one that followed another', { state: 'secondary', generation: 7 }, 8, 'not', 'not'],
  ['one of a promotion', { state: 'promoting', generation: 7 }, 8, 'not', 'boots'],
  ['one of a promotion, after many tries', { state: 'promoting', generation: 7 }, 99, 'not', 'boots'],
  ['one of a promotion, of a record that was lost', { state: 'promoting', generation: 7 }, 1, 'not', 'not'],
];

for (const [what, state, generation, unknown, ended] of ROWS)
  test(`${what}: ${unknown}${ended === unknown ? '' : `, and ${ended} when the commit has ended`}`, () => {
    for (const [commit, expected] of [
      ['unknown', unknown],
      ['ended', ended],
    ] as const) {
      const problem = bootProblem(state, generation, commit);
      assert.equal(problem === null ? 'boots' : 'not', expected, commit);
      if (problem !== null) assert.ok(problem.why !== '' && problem.advice !== '');
    }
  });
