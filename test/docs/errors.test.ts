/** Compares docs/errors.md with the sources: it lists every code that can be printed, and no other. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { codeOf, ROOT, readDoc, tableRows } from './tables.ts';

/** A code is a whole string, or the start of one before a colon. Names of environment variables never are. */
const IN_ERROR_POSITION = /['"`](COLO_[A-Z]+(?:_[A-Z]+)*)(?=['"`:])/g;

/** Words of Xen's notify protocol and of QMP that look like codes. */
const PROTOCOL_WORDS = [
  'COLO_CHECKPOINT',
  'COLO_COMPARE_GET_XEN_INIT',
  'COLO_USERSPACE_PROXY_INIT',
  'COLO_EXIT',
];

test('docs/errors.md lists every error code', () => {
  const files = globSync('{src,lab,demo,scripts,bench}/**/*.{ts,mjs}', { cwd: ROOT });
  const used = new Set<string>();
  for (const file of [...files, 'bin/colo']) {
    for (const [, code] of readFileSync(join(ROOT, file), 'utf8').matchAll(IN_ERROR_POSITION)) used.add(code);
  }
  for (const word of PROTOCOL_WORDS) assert.ok(used.delete(word), word);
  const codes = tableRows(readDoc('docs/errors.md')).map(([first]) => codeOf(first));
  const documented = codes.filter((code) => code !== null);
  assert.deepEqual(documented.toSorted(), [...used].sort());
});
