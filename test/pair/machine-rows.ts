/** The state machine as a table: one row for what a node `a` does about an event in a state, and what tests of it start from. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PairRecord, Stored } from '../../src/pair/arbiter.ts';
import {
  newPair,
  type Pair,
  type PairEvent,
  type PairState,
  type Purpose,
  step,
} from '../../src/pair/machine.ts';

export const ALONE_A: PairRecord = { generation: 3, state: 'alone', primary: 'a', secondary: null };
export const ALONE_B: PairRecord = { generation: 3, state: 'alone', primary: 'b', secondary: null };
export const PAIR_AB: PairRecord = { generation: 3, state: 'pair', primary: 'a', secondary: 'b' };
export const PAIR_BA: PairRecord = { generation: 3, state: 'pair', primary: 'b', secondary: 'a' };

export const stored = (record: PairRecord | null, revision = 7): Stored => ({ revision, record });
export const next = (record: PairRecord): PairRecord => ({ ...record, generation: 4 });

export const starting: PairState = { name: 'starting' };
export const candidate: PairState = { name: 'candidate', linked: true };
export const orphaned: PairState = { name: 'orphaned', cause: 'cable', waitsFor: 'record' };
export const alone: PairState = { name: 'alone', peer: null };
export const syncing: PairState = { name: 'syncing', peer: 'b' };
export const primary: PairState = { name: 'primary', peer: 'b' };
export const secondary: PairState = { name: 'secondary' };
export const claiming = (purpose: Purpose, peer: string | null = null): PairState => ({
  name: 'claiming',
  purpose,
  peer,
  cause: 'why',
  linkLost: false,
});

/** Node `a` in `state`, with `record` stored. */
export function pairIn(state: PairState, record: PairRecord | null, autoProtect = true): Pair {
  return { ...newPair('a', autoProtect), state, stored: stored(record) };
}

/** `record`: what is stored. `after`: the name of the next state. `effects`: their names, separated by spaces. */
export type Row = [
  name: string,
  state: PairState,
  record: PairRecord | null,
  event: PairEvent,
  after: string,
  effects: string,
];

/** One test for each row. */
export function testRows(rows: readonly Row[]): void {
  for (const [name, state, record, event, after, effects] of rows)
    test(`${state.name}, ${event.type}: a node ${name}`, () => {
      const pair = pairIn(state, record);
      const done = step(pair, event).map((effect) => effect.do);
      assert.equal(pair.state.name, after);
      assert.equal(done.join(' '), effects);
    });
}
