import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checkGeneration,
  checkHello,
  type Hello,
  LINK_VERSION,
  MESSAGE,
  parseControl,
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

test('a peer of the same pair, with another name, the other role and the same lease is accepted', () => {
  assert.doesNotThrow(() => checkHello(theirs, ours));
});

for (const [what, difference, code] of [
  ['another version', { version: LINK_VERSION + 1 }, 'COLO_LINK_VERSION'],
  ['another pair', { pair: 'mail' }, 'COLO_LINK_PAIR'],
  ["this node's own name", { node: 'a' }, 'COLO_LINK_TWIN'],
  ["this node's own role", { role: 'primary' }, 'COLO_LINK_PEER'],
  ['a shorter lease', { leaseMs: 200 }, 'COLO_LINK_LEASE'],
  ['a longer lease', { leaseMs: 300 }, 'COLO_LINK_LEASE'],
] as const) {
  test(`a peer with ${what} is refused`, () => {
    assert.throws(() => checkHello({ ...theirs, ...difference }, ours), { code });
  });
}

test('a candidate may know an older record than the primary, and no later one', () => {
  for (const generation of [0, 2, 3]) checkGeneration({ ...theirs, generation }, ours);
  assert.throws(() => checkGeneration({ ...theirs, generation: 4 }, ours), {
    code: 'COLO_LINK_GENERATION',
    message:
      'the candidate "b" has read generation 4 of the record, the primary "a" generation 3; do both use the same arbiter?',
  });
});

const startSync = (channels: unknown, disks?: unknown) => JSON.stringify({ generation: 1, channels, disks });

test('a control message is passed on as it was sent', () => {
  const body = { generation: 1, channels: ['state'] };
  assert.deepEqual(parseControl(MESSAGE.startSync, startSync(['state'])), { type: MESSAGE.startSync, body });
});

test('a copy with disks names each with its size and its channel', () => {
  const disks = [
    { id: 'b', bytes: 512 },
    { id: 'a', bytes: 2 ** 53 - 512 },
  ];
  const channels = ['disk:a', 'state', 'disk:b'];
  assert.deepEqual(parseControl(MESSAGE.startSync, startSync(channels, disks)).body, {
    generation: 1,
    channels,
    disks,
  });
});

for (const [what, type, text] of [
  ['an unknown type', 200, '{}'],
  ['a type that carries no JSON', MESSAGE.input, '{}'],
  ['no JSON', MESSAGE.gate, '{"epoch":'],
  ['no object', MESSAGE.gated, 'null'],
  ['a field missing', MESSAGE.gated, '{"epoch":1}'],
  ['a field of another type', MESSAGE.protected, '{"generation":"7"}'],
  ['a negative epoch', MESSAGE.gate, '{"epoch":-1}'],
  ['no reason for a refusal', MESSAGE.failed, '{}'],
  ['a copy without the state', MESSAGE.startSync, startSync([])],
  ['a copy through a channel that has messages', MESSAGE.startSync, startSync(['state', 'data'])],
  ['a copy through an unknown channel', MESSAGE.startSync, startSync(['state', 'disc:vda'])],
  ['a channel for no disk', MESSAGE.startSync, startSync(['state', 'disk:vda'])],
  ['a disk without a channel', MESSAGE.startSync, startSync(['state'], [{ id: 'a', bytes: 512 }])],
  ['a channel of another disk', MESSAGE.startSync, startSync(['state', 'disk:b'], [{ id: 'a', bytes: 512 }])],
  [
    'a disk of a part of a sector',
    MESSAGE.startSync,
    startSync(['state', 'disk:a'], [{ id: 'a', bytes: 513 }]),
  ],
  ['an empty disk', MESSAGE.startSync, startSync(['state', 'disk:a'], [{ id: 'a', bytes: 0 }])],
  ['a copy through one channel twice', MESSAGE.startSync, startSync(['state', 'state'])],
] as const) {
  test(`a control message with ${what} is garbled`, () => {
    assert.throws(() => parseControl(type, text), { code: 'COLO_LINK_GARBLED' });
  });
}
