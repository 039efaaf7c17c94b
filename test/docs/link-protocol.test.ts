/** docs/link-protocol.md against the code: version, channels, messages, fields and limits, for other implementers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tcpKeyOf } from '../../src/flow/key.ts';
import { LIMITS } from '../../src/limits.ts';
import { CHANNELS } from '../../src/link/channels.ts';
import {
  FRAMES_HEADER_BYTES,
  LINK_VERSION,
  MESSAGE,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
} from '../../src/link/link-protocol.ts';
import { OFFSETS_PER_MESSAGE, offsetsMessages } from '../../src/link/offsets-message.ts';
import { codeOf, readDoc, tableRows } from './tables.ts';

const text = readDoc('docs/link-protocol.md');
const rows = tableRows(text);

test('every message has its number, and no other', () => {
  const documented = rows
    .filter(([number]) => /^\d+$/.test(number))
    .map(([number, name]) => `${number} ${name}`);
  const names = Object.entries(MESSAGE).map(([name, number]) => {
    return `${number} ${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
  });
  assert.deepEqual(documented, names);
});

test('every channel has a row, and no other', () => {
  const documented = rows
    .filter((row) => row.length === 4 && codeOf(row[0]) !== null)
    .map(([name]) => codeOf(name));
  assert.deepEqual(documented, Object.keys(CHANNELS));
});

test('a connection of OFFSETS has the fields of the page', () => {
  const address = '0a000202';
  const key = tcpKeyOf({
    family: 4,
    vlans: [],
    localAddress: address,
    localPort: 1,
    remoteAddress: address,
    remotePort: 2,
  });
  const [{ offsets }] = offsetsMessages([{ key, vmIsn: 0, seqDelta: 0, tsDelta: 0, clientPort: 1 }]);
  assert.ok(text.includes(`\n{${Object.keys(offsets[0]).join(', ')}}\n`), Object.keys(offsets[0]).join(', '));
});

test('the version and the limits are those of the code', () => {
  assert.ok(text.startsWith(`# The link protocol, version ${LINK_VERSION}\n`));
  assert.ok(text.includes(`of what follows, ${MESSAGE_HEADER_BYTES} to ${MESSAGE_BYTES_MAX}`));
  assert.equal(FRAMES_HEADER_BYTES, 8, 'epoch and index, as the page says');
  assert.ok(text.includes(`at most ${OFFSETS_PER_MESSAGE} entries`));
  assert.equal(LIMITS.translationsMax, 65_536, 'the entries of a map, as the page says');
});
