/** The options of `npm run bench -- service`, which scripts rely on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROWS } from '../../../bench/service/rows.ts';
import { inOrder, readOptions } from '../../../bench/service.ts';

const refuses = (args: string[], message: RegExp): void => {
  assert.throws(() => readOptions(args), { code: 'COLO_USAGE', message }, args.join(' '));
};

test('without options all rows run, in every column but the other build', () => {
  assert.deepEqual(readOptions([]), {
    rows: Object.keys(ROWS),
    columns: ['unprotected', 'stock', 'ours'],
    before: null,
    rounds: 3,
    ms: 5000,
    vcpus: 1,
  });
});

test('--help asks for nothing but help', () => {
  assert.equal(readOptions(['--rows', 'dns', '--help']), null);
});

test('rows stay in the order that was asked for, and columns have one order', () => {
  const args = [
    '--rows',
    'tls-new8,redis-incr10',
    '--columns',
    'ours,before,stock,unprotected',
    '--before',
    'x',
  ];
  const options = readOptions([...args, '--rounds', '1', '--seconds', '2', '--vcpus', '2']);
  assert.deepEqual(options, {
    rows: ['tls-new8', 'redis-incr10'],
    columns: ['unprotected', 'stock', 'before', 'ours'],
    before: 'x',
    rounds: 1,
    ms: 2000,
    vcpus: 2,
  });
});

test('with another checkout its column is there without being named', () => {
  assert.deepEqual(readOptions(['--before', 'x'])?.columns, ['unprotected', 'stock', 'before', 'ours']);
});

test('what cannot be measured is refused', () => {
  refuses(['--rows', 'redis'], /no row "redis"; choose of redis-incr, /);
  refuses(['--rows', 'toString'], /no row "toString"/);
  refuses(['--columns', 'theirs'], /no column "theirs"/);
  refuses(['--columns', 'before,ours'], /needs --before CHECKOUT/);
  refuses(['--rounds', '0'], /--rounds takes a whole number from 1 to/);
  refuses(['--seconds', '1.5'], /--seconds takes/);
  refuses(['--vcpus', '3'], /--vcpus takes a whole number from 1 to 2/);
  refuses(['--bogus'], /--bogus/);
});

test('a row at half load needs the unprotected rate at full load', () => {
  assert.ok(readOptions(['--rows', 'dns,dns-half', '--columns', 'unprotected,ours']));
  refuses(['--rows', 'dns,dns-half', '--columns', 'ours'], /dns-half needs/);
  refuses(['--rows', 'dns-half', '--columns', 'unprotected,ours'], /dns-half needs/);
  refuses(['--rows', 'dns-half,dns', '--columns', 'unprotected,ours'], /the row dns before it/);
});

test('rounds go forth and back, and the unprotected guest is always first', () => {
  assert.deepEqual(inOrder(['unprotected', 'stock', 'ours'], 0), ['unprotected', 'stock', 'ours']);
  assert.deepEqual(inOrder(['unprotected', 'stock', 'ours'], 1), ['unprotected', 'ours', 'stock']);
});
