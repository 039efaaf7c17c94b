/** The options of `npm run bench -- checkpoint`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOptions } from '../../../bench/checkpoint/options.ts';

test('without options the guests are idle, and no other build runs', () => {
  assert.deepEqual(readOptions([]), { count: 60, paceMs: 100, load: false, before: null });
});

test('each option is read', () => {
  assert.deepEqual(readOptions(['--count', '8', '--pace', '0.5', '--load', '--before', 'x']), {
    count: 8,
    paceMs: 0.5,
    load: true,
    before: 'x',
  });
});

test('--help asks for nothing but help', () => {
  assert.equal(readOptions(['--count', '8', '-h']), null);
});

test('what cannot be measured is refused', () => {
  for (const args of [
    ['--count', '0'],
    ['--count', '1.5'],
    ['--count', 'many'],
    ['--pace', '-1'],
    ['--pace', '60001'],
    ['--unix'],
    ['more'],
  ])
    assert.throws(() => readOptions(args), { code: 'COLO_USAGE' }, args.join(' '));
});
