/** Compares docs/init.md with the reasons of `colo init`: it lists each, in the same words, and no other. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHANGES, REFUSALS } from '../../src/init/reasons.ts';
import { readDoc } from './tables.ts';

const [, ofRefusals, ofChanges] = readDoc('docs/init.md').split(/^## What is (?:refused|changed)$/m);
const capital = (text: string): string => text[0].toUpperCase() + text.slice(1);
const kindsOf = (section: string): string[] =>
  [...section.matchAll(/^- `([a-z-]+)`: /gm)].map(([, kind]) => kind);
/** Without line breaks, and without the marks of code, which a terminal does not have. */
const plain = (section: string): string => section.replaceAll('`', '').replaceAll(/\s+/g, ' ');

test('docs/init.md lists every reason for a refusal', () => {
  assert.deepEqual(kindsOf(ofRefusals), Object.keys(REFUSALS));
  for (const [kind, [why, advice]] of Object.entries(REFUSALS))
    assert.ok(plain(ofRefusals).includes(`- ${kind}: ${why}. ${capital(advice)}.`), kind);
});

test('docs/init.md lists every change', () => {
  assert.deepEqual(kindsOf(ofChanges), Object.keys(CHANGES));
  for (const [kind, why] of Object.entries(CHANGES))
    assert.ok(plain(ofChanges).includes(`- ${kind}: ${why}.`), kind);
});
