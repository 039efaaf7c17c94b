/** The claims of the bench on figures that are made up: each holds at its bound, and fails beyond it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { claimsOf, OF_ROWS, type RowFigures, type Rows } from '../../../bench/service/claims.ts';
import { ROWS } from '../../../bench/service/rows.ts';
import type { Column } from '../../../bench/service/side.ts';

const OURS: RowFigures = { rate: 500, p50: 3, p99: 12, div1000: 0, cp1000: 0 };
const OTHERS = {
  unprotected: { rate: 1000, p50: 2, p99: 4, div1000: 0, cp1000: 0 },
  stock: { rate: 100, p50: 20, p99: 80, div1000: 400, cp1000: 400 },
  before: { rate: 200, p50: 10, p99: 30, div1000: 150, cp1000: 150 },
} as const;

/** The vCPUs, the claim, the column that it needs beside ours, the figure at its bound, and the same beyond it. */
type Case = readonly [number, string, keyof typeof OTHERS | null, Partial<RowFigures>, Partial<RowFigures>];

const OF_ONE_ROW: readonly Case[] = [
  [1, "redis-incr10: rate, at least 2 times before's", 'before', { rate: 400 }, { rate: 399 }],
  [1, "redis-incr10: p99, at most 0.6 times before's", 'before', { p99: 18 }, { p99: 18.1 }],
  [1, 'redis-incr10: divergences per 1000, at most 1', null, { div1000: 1 }, { div1000: 1.1 }],
  [1, "redis-incr10: rate, at least 2.5 times stock's", 'stock', { rate: 250 }, { rate: 249 }],
  [
    1,
    "redis-incr10: checkpoints per 1000, at most 0.05 times stock's",
    'stock',
    { cp1000: 20 },
    { cp1000: 21 },
  ],
  [2, 'redis-incr10: divergences per 1000, at most 5', null, { div1000: 5 }, { div1000: 5.1 }],
  [1, "http-keep8: rate, at least 1.3 times before's", 'before', { rate: 260 }, { rate: 259 }],
  [1, 'tls-new: divergences per 1000, at most 10', null, { div1000: 10 }, { div1000: 10.1 }],
  [1, "tls-new8: rate, at least 1.7 times before's", 'before', { rate: 340 }, { rate: 339 }],
  [1, "tls-new8: p99, at most 0.333 times before's", 'before', { p99: 10 }, { p99: 10.1 }],
  [1, 'tls-new8: divergences per 1000, at most 10', null, { div1000: 10 }, { div1000: 10.1 }],
  [1, 'ssh-new: checkpoints per 1000, at most 500', null, { cp1000: 500 }, { cp1000: 501 }],
  [1, "redis-beside-tls: p99, at most 2 times before's", 'before', { p99: 60 }, { p99: 61 }],
  [1, "redis-beside-upload: p99, at most 2 times before's", 'before', { p99: 60 }, { p99: 61 }],
];

/** Each shown of one row. */
const OF_MANY_ROWS: readonly Case[] = [
  [1, "dns: rate, at least 0.97 times before's", 'before', { rate: 194 }, { rate: 193 }],
  [1, "pg8: rate, at least 1 times stock's", 'stock', { rate: 100 }, { rate: 99 }],
  [1, "pg8: rate, at least 0.45 times unprotected's", 'unprotected', { rate: 450 }, { rate: 449 }],
  [1, "dns-half: p50, at most 1.5 times unprotected's", 'unprotected', { p50: 3 }, { p50: 3.1 }],
  [1, "dns-half: p99, at most 3 times unprotected's", 'unprotected', { p99: 12 }, { p99: 12.1 }],
];

const rowOf = (text: string): string => text.split(':')[0];
const boundOf = (text: string): string => text.split(': ')[1];
const texts = (rows: Rows, vcpus = 1): string[] => claimsOf(rows, vcpus).map(({ text }) => text);

for (const [vcpus, text, other, at, beyond] of [...OF_ONE_ROW, ...OF_MANY_ROWS])
  test(`${vcpus} vCPU: ${text}`, () => {
    const others: Partial<Record<Column, RowFigures>> = other === null ? {} : { [other]: OTHERS[other] };
    const holds = (change: Partial<RowFigures>): boolean | undefined => {
      const claims = claimsOf({ [rowOf(text)]: { ours: { ...OURS, ...change }, ...others } }, vcpus);
      return claims.find((claim) => claim.text === text)?.holds;
    };
    assert.equal(holds(at), true, 'at the bound');
    assert.equal(holds(beyond), false, 'beyond it');
  });

test('every claim of the bench is one of those above', () => {
  const names = Object.keys(ROWS).flatMap((name) => [name, `${name}-half`]);
  const rows = Object.fromEntries(names.map((name) => [name, { ours: OURS, ...OTHERS }]));
  const ofOne = new Set(OF_ONE_ROW.map(([vcpus, text]) => `${vcpus} ${text}`));
  const ofMany = new Set(OF_MANY_ROWS.map(([, text]) => boundOf(text)));
  for (const vcpus of [1, 2])
    for (const text of texts(rows, vcpus))
      assert.ok(ofOne.has(`${vcpus} ${text}`) || ofMany.has(boundOf(text)), `${vcpus} vCPU: ${text}`);
});

test('a row has what is claimed of it, of every row, and of rows with one client', () => {
  const row = { ours: OURS, ...OTHERS };
  const every = ["rate, at least 1 times stock's", "rate, at least 0.45 times unprotected's"];
  const one = "rate, at least 0.97 times before's";
  const half = ["p50, at most 1.5 times unprotected's", "p99, at most 3 times unprotected's"];
  const bounds = (name: string, vcpus: number): string[] => texts({ [name]: row }, vcpus).map(boundOf);
  assert.deepEqual(bounds('dns', 1), [...every, one]);
  assert.deepEqual(bounds('pg8', 1), every);
  assert.deepEqual(bounds('tls-new', 1), ['divergences per 1000, at most 10', ...every, one]);
  assert.deepEqual(bounds('tls-new', 2), [...every, one]);
  assert.deepEqual(bounds('redis-incr10', 2), ['divergences per 1000, at most 5', ...every]);
  for (const vcpus of [1, 2]) assert.deepEqual(bounds('redis-incr10-half', vcpus), half);
});

test('a row that did not run claims nothing, nor does one without the columns that a claim needs', () => {
  assert.deepEqual(texts({}), []);
  assert.deepEqual(texts({ 'redis-incr10': {} }), []);
  assert.deepEqual(texts({ 'redis-incr10': OTHERS }), []);
  assert.deepEqual(texts({ 'redis-incr10': { ours: OURS } }), [
    'redis-incr10: divergences per 1000, at most 1',
  ]);
  assert.deepEqual(texts({ dns: { ours: OURS, before: OTHERS.before } }), [
    "dns: rate, at least 0.97 times before's",
  ]);
});

test('the ratio is of the two figures, and the figure itself where there is one', () => {
  const ratios = (ours: RowFigures, stock: RowFigures): Record<string, number> =>
    Object.fromEntries(
      claimsOf({ 'redis-incr10': { ours, stock } }, 1).map(({ text, ratio }) => [boundOf(text), ratio]),
    );
  assert.deepEqual(ratios({ ...OURS, div1000: 0.4, cp1000: 8 }, OTHERS.stock), {
    'divergences per 1000, at most 1': 0.4,
    "rate, at least 2.5 times stock's": 5,
    "checkpoints per 1000, at most 0.05 times stock's": 0.02,
    "rate, at least 1 times stock's": 5,
  });
});

test('no checkpoint is not more than no checkpoint; some are', () => {
  const holds = (cp1000: number): boolean | undefined => {
    const row = { ours: { ...OURS, cp1000 }, stock: { ...OTHERS.stock, cp1000: 0 } };
    return claimsOf({ 'redis-incr10': row }, 1).find(({ text }) => text.includes('checkpoints'))?.holds;
  };
  assert.equal(holds(0), true);
  assert.equal(holds(0.1), false);
});

test('a figure that is missing does not hold', () => {
  const ours = { ...OURS, rate: Number.NaN, div1000: Number.NaN };
  const claims = claimsOf({ 'tls-new': { ours, before: OTHERS.before } }, 1);
  assert.deepEqual(
    claims.map(({ holds }) => holds),
    [false, false],
  );
});

test('each row that is named in a claim is a row of the bench', () => {
  for (const rows of Object.values(OF_ROWS))
    for (const name of Object.keys(rows ?? {})) assert.ok(Object.hasOwn(ROWS, name), name);
});
