/** The sizes of the docs: a README that is read to its end, and lines that fit beside each other. */
import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { test } from 'node:test';
import { ROOT, readDoc } from './tables.ts';

const README_LINES_MAX = 80;
const COLUMNS_MAX = 140;

/** A command for QMP is one line. */
const isQmpCommand = (line: string): boolean => line.startsWith('{"execute":');

test('the README has at most 80 lines', () => {
  assert.ok(readDoc('README.md').trimEnd().split('\n').length <= README_LINES_MAX);
});

for (const doc of ['README.md', 'CHANGELOG.md', ...globSync('docs/*.md', { cwd: ROOT }).sort()]) {
  test(`${doc} has lines of at most ${COLUMNS_MAX} columns`, () => {
    const wide = readDoc(doc)
      .split('\n')
      .flatMap((line, i) => ([...line].length > COLUMNS_MAX && !isQmpCommand(line) ? [i + 1] : []));
    assert.deepEqual(wide, [], `${doc}: lines that are too long`);
  });
}

test('docs/README.md has an entry for each page', () => {
  const index = readDoc('docs/README.md');
  for (const doc of globSync('docs/*.md', { cwd: ROOT })) {
    const name = doc.slice('docs/'.length);
    assert.ok(name === 'README.md' || index.includes(`(${name})`), name);
  }
});
