import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../docs/tables.ts';
import { BREAKS, EXCEPTIONS } from './all.ts';
import { callsIn, invariantCalls } from './source.ts';

/** False while areas of the code still add their breaks: missing ones are then printed and do not fail the test. */
const STRICT = true;

test('the text of every break stands in its file once', () => {
  for (const { file, find, put, message } of BREAKS) {
    const source = readFileSync(join(ROOT, file), 'utf8');
    assert.equal(source.split(find).length, 2, `"${message}": ${find} must stand in ${file} exactly once`);
    assert.notEqual(find, put, message);
  }
});

test('every break names an invariant and a test that exist', () => {
  const calls = invariantCalls();
  for (const { message, test: proof } of BREAKS) {
    const named = calls.filter(({ text }) => text.includes(message));
    assert.equal(named.length, 1, `"${message}" must be part of exactly one invariant's message`);
    if (typeof proof === 'string')
      assert.ok(existsSync(join(ROOT, proof)), `"${message}": ${proof} is no file`);
  }
});

test('every invariant is named by a break', (t) => {
  const calls = invariantCalls();
  const messages = [...BREAKS.map(({ message }) => message), ...EXCEPTIONS.keys()];
  const missing = calls.filter(({ text }) => !messages.some((message) => text.includes(message)));
  t.diagnostic(
    `${calls.length} invariants, ${BREAKS.length} breaks, ${missing.length} invariants without one`,
  );
  const list = missing.map(({ file, line, text }) => `${file}:${line} ${text.replace(/\s+/g, ' ')}`);
  if (STRICT) assert.deepEqual(list, []);
  else for (const line of list) t.diagnostic(line);
});

test('an exception names an invariant that exists and has no break', () => {
  const calls = invariantCalls();
  for (const message of EXCEPTIONS.keys()) {
    assert.equal(calls.filter(({ text }) => text.includes(message)).length, 1, message);
    assert.ok(!BREAKS.some((one) => one.message === message), message);
  }
});

test('a call is read to its end, whatever its strings hold', () => {
  const source =
    "function invariant(a) {}\nx.invariant(1);\ninvariant(f(a) > 0, `a \\`) b`);\n invariant(c, 'd)');";
  assert.deepEqual(callsIn('x.ts', source), [
    { file: 'x.ts', line: 3, text: 'invariant(f(a) > 0, `a \\`) b`)' },
    { file: 'x.ts', line: 4, text: "invariant(c, 'd)')" },
  ]);
});
