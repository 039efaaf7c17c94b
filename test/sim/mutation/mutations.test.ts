import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../../docs/tables.ts';
import { MUTATIONS } from './mutations.ts';

test('the text of every mutation stands in its file once', () => {
  for (const { name, file, find, put } of MUTATIONS) {
    const source = readFileSync(join(ROOT, file), 'utf8');
    assert.equal(source.split(find).length, 2, `${name}: its text stands in ${file} exactly once`);
    assert.notEqual(find, put, name);
  }
  assert.equal(new Set(MUTATIONS.map(({ name }) => name)).size, MUTATIONS.length);
});
