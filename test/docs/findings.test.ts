/**
 * The rules of findings/: each file runs by itself, wherever it is copied to, and installs what it needs in the version that it
 * names. So what several of them need stands in each, and must be the same in all.
 */
import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { test } from 'node:test';
import { ROOT, readDoc } from './tables.ts';

const FILES = globSync('findings/*', { cwd: ROOT });
const PARTS = [
  '\n# Most would expect: ',
  '\n# Behaviour: ',
  '\n# Seen',
  '\nset -euo pipefail\n',
  'CHANGED: ',
];
/** What unpacks Debian packages, and starts QEMU from them. */
const UNPACKING = /^# Unpacks Debian packages .*?^chmod \+x qemu\n/ms;

test('each finding says what one would expect, what happens and what was seen, and fails if that changes', () => {
  assert.ok(FILES.length > 0);
  for (const file of FILES) {
    assert.match(file, /\.sh$/);
    const text = readDoc(file);
    const places = PARTS.map((part) => text.indexOf(part));
    assert.ok(!places.includes(-1), `${file} lacks ${PARTS[places.indexOf(-1)]}`);
    assert.deepEqual(
      places,
      places.toSorted((a, b) => a - b),
      file,
    );
  }
});

test('each finding pins what it installs, to a version of its first line', () => {
  for (const file of FILES) {
    const text = readDoc(file);
    const [, head] = text.split('\n');
    const packages = [...text.matchAll(/^(?:fetch \S+|npm install .*--prefix "\$folder") (.*)$/gm)].flatMap(
      ([, words]) => words.split(' '),
    );
    assert.ok(packages.length > 0, `${file} installs nothing`);
    for (const one of packages) {
      const [, version] = /^[a-z0-9.-]+[=@](\d\S*)$/.exec(one) ?? [];
      assert.ok(version !== undefined, `${file}: ${one} has no version`);
      assert.ok(head.includes(version), `${file}: its first line does not name ${version}`);
    }
  }
});

test('what unpacks Debian packages is the same in each finding', () => {
  const copies = FILES.map((file) => UNPACKING.exec(readDoc(file))?.[0]).filter((copy) => copy !== undefined);
  assert.ok(copies.length > 1);
  assert.equal(new Set(copies).size, 1);
});
