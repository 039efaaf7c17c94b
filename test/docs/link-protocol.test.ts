/** docs/link-protocol.md against the code: version, message numbers and limits, for whoever implements the other end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  FRAMES_HEADER_BYTES,
  LINK_VERSION,
  MESSAGE,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
} from '../../src/link/link-protocol.ts';
import { readDoc, tableRows } from './tables.ts';

const text = readDoc('docs/link-protocol.md');

test('the messages', () => {
  const documented = tableRows(text).map(([number, name]) => `${number} ${name}`);
  const names = Object.entries(MESSAGE).map(([name, number]) => {
    return `${number} ${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
  });
  assert.deepEqual(documented, names);
});

test('the version and the limits', () => {
  assert.ok(text.startsWith(`# The link protocol, version ${LINK_VERSION}\n`));
  assert.ok(text.includes(`of what follows, ${MESSAGE_HEADER_BYTES} to ${MESSAGE_BYTES_MAX}`));
  assert.equal(FRAMES_HEADER_BYTES, 8, 'epoch and index, as the page says');
});
