/** Compares docs/qemu-differences.md with the cases that test/compare/oracle.e2e.ts plays to a real QEMU. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BY_HAND } from '../compare/oracle/by-hand.ts';
import { DEVIATIONS } from '../compare/oracle/deviations.ts';
import { sideBySide } from '../compare/oracle/side-by-side.ts';
import { readDoc } from './tables.ts';

const sections = new Map(
  readDoc('docs/qemu-differences.md')
    .split(/^### /m)
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf('\n')), section]),
);

test('docs/qemu-differences.md has an entry for each difference that is played, and no other', () => {
  const played = [...Object.keys(DEVIATIONS), ...Object.keys(BY_HAND)];
  assert.deepEqual([...sections.keys()].sort(), played.sort());
});

for (const [name, deviation] of Object.entries(DEVIATIONS)) {
  test(`docs/qemu-differences.md shows the frames of ${name}`, () => {
    const block = /^```\n(.*?)\n```$/ms.exec(sections.get(name) ?? '')?.[1];
    assert.equal(block, sideBySide(deviation).join('\n'));
  });
}
