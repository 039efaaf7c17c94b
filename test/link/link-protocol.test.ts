import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checkHello,
  type Hello,
  LINK_VERSION,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
  OFFSETS_PER_MESSAGE,
} from '../../src/link/link-protocol.ts';

const ours: Hello = {
  version: LINK_VERSION,
  channel: 'data',
  pair: 'web',
  node: 'a',
  generation: 3,
  role: 'primary',
  leaseMs: 250,
};
const theirs: Hello = { ...ours, node: 'b', role: 'candidate', generation: 2 };

test('a peer of the same pair, with another name, the other role and the same lease is taken', () => {
  assert.doesNotThrow(() => checkHello(theirs, ours));
});

for (const [what, difference, code] of [
  ['another version', { version: LINK_VERSION + 1 }, 'COLO_LINK_VERSION'],
  ['another pair', { pair: 'mail' }, 'COLO_LINK_PAIR'],
  ["this node's own name", { node: 'a' }, 'COLO_LINK_PEER'],
  ["this node's own role", { role: 'primary' }, 'COLO_LINK_PEER'],
  ['a shorter lease', { leaseMs: 200 }, 'COLO_LINK_LEASE'],
  ['a longer lease', { leaseMs: 300 }, 'COLO_LINK_LEASE'],
] as const) {
  test(`a peer with ${what} is refused`, () => {
    assert.throws(() => checkHello({ ...theirs, ...difference }, ours), { code });
  });
}

test('a full OFFSETS message fits, with every number at its longest', () => {
  const lowest = -0x80000000;
  const entry = {
    key: new Array(11).fill(lowest),
    vmIsn: lowest,
    seqDelta: lowest,
    tsDelta: lowest,
    clientPort: 65535,
  };
  const body = { first: false, last: false, offsets: new Array(OFFSETS_PER_MESSAGE).fill(entry) };
  assert.ok(MESSAGE_HEADER_BYTES + Buffer.byteLength(JSON.stringify(body)) <= MESSAGE_BYTES_MAX);
});
