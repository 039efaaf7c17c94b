import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FLOW_KEY_WORDS, writeOutputKey } from '../../src/flow/key.ts';
import { LIMITS } from '../../src/limits.ts';
import {
  MESSAGE,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
  parseControl,
} from '../../src/link/link-protocol.ts';
import {
  type ConnectionOffsets,
  OFFSETS_PER_MESSAGE,
  type Offsets,
  OffsetsReader,
  offsetsMessages,
} from '../../src/link/offsets-message.ts';
import { PACKET, PacketView } from '../../src/wire/packet.ts';

const bytes = new Uint8Array(64);

type Drawn = {
  ipVersion: 4 | 6;
  vlans: number[];
  addresses: Uint8Array;
  ports: [number, number];
  numbers: [number, number, number];
  clientPort: number;
};

/** The row of a connection whose key is written as the translator writes it: from a parsed frame. */
function row({ ipVersion, vlans, addresses, ports, numbers, clientPort }: Drawn): ConnectionOffsets {
  const view = new PacketView();
  view.kind = PACKET.tcp;
  view.protocol = 6;
  view.ipVersion = ipVersion;
  view.vlan = vlans.reduce((vlan, id) => (vlan << 12) | id, 0);
  bytes.set(addresses);
  view.sourceAt = 0;
  view.destinationAt = 16;
  if (ipVersion === 4) [view.source4, view.destination4] = new Int32Array(addresses.buffer, 0, 2);
  [view.sourcePort, view.destinationPort] = ports;
  const key = new Int32Array(FLOW_KEY_WORDS);
  writeOutputKey(bytes, view, key);
  const [vmIsn, seqDelta, tsDelta] = numbers;
  return { key: [...key], vmIsn, seqDelta, tsDelta, clientPort };
}

const port = fc.integer({ min: 0, max: 0xffff });
const int32 = fc.integer({ min: -0x80000000, max: 0x7fffffff });
const drawn: fc.Arbitrary<Drawn> = fc.record({
  ipVersion: fc.constantFrom(4, 6),
  vlans: fc.array(fc.integer({ min: 0, max: 0xfff }), { maxLength: 2 }),
  addresses: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  ports: fc.tuple(port, port),
  numbers: fc.tuple(int32, int32, int32),
  clientPort: port,
});

/** Sends a map as text and reads it again. */
function carried(map: readonly ConnectionOffsets[]): ConnectionOffsets[] | null {
  const reader = new OffsetsReader();
  let result: ConnectionOffsets[] | null = null;
  for (const body of offsetsMessages(map)) {
    assert.equal(result, null, 'complete before its last message');
    result = reader.read(received(body));
  }
  return result;
}

function received(body: unknown): Offsets {
  const message = parseControl(MESSAGE.offsets, JSON.stringify(body));
  assert.ok(message.type === MESSAGE.offsets);
  return message.body;
}

const ONE = row({
  ipVersion: 4,
  vlans: [100, 7],
  addresses: new Uint8Array(32).fill(10),
  ports: [80, 40112],
  numbers: [1, -2, 3],
  clientPort: 81,
});

test('a map arrives as it was sent: IPv4 and IPv6, with no VLAN tag, one and two', () => {
  fc.assert(
    fc.property(fc.array(drawn, { maxLength: 20 }), (all) => {
      const map = all.map(row);
      assert.deepEqual(carried(map), map);
    }),
  );
});

test('a map of any size arrives whole, in messages of at most OFFSETS_PER_MESSAGE', () => {
  for (const size of [0, 1, OFFSETS_PER_MESSAGE, OFFSETS_PER_MESSAGE + 1, 3 * OFFSETS_PER_MESSAGE]) {
    const map = Array.from({ length: size }, (_, vmIsn) => ({ ...ONE, vmIsn }));
    for (const { offsets } of offsetsMessages(map)) assert.ok(offsets.length <= OFFSETS_PER_MESSAGE);
    assert.deepEqual(carried(map), map);
  }
});

test('a connection has fields of its own on the wire', () => {
  assert.deepEqual(offsetsMessages([ONE]), [
    {
      first: true,
      last: true,
      offsets: [
        {
          family: 4,
          vlans: [100, 7],
          protocol: 6,
          vmAddress: '0a0a0a0a',
          vmPort: 80,
          vmPortAtClient: 81,
          clientAddress: '0a0a0a0a',
          clientPort: 40112,
          vmIsn: 1,
          seqDelta: -2,
          tsDelta: 3,
        },
      ],
    },
  ]);
});

test('a full message fits, with every number at its longest', () => {
  const longest = row({
    ipVersion: 6,
    vlans: [0xfff, 0xfff],
    addresses: new Uint8Array(32).fill(0xff),
    ports: [0xffff, 0xffff],
    numbers: [-0x80000000, -0x80000000, -0x80000000],
    clientPort: 0xffff,
  });
  const [body] = offsetsMessages(new Array(2 * OFFSETS_PER_MESSAGE).fill(longest));
  assert.equal(body.offsets.length, OFFSETS_PER_MESSAGE);
  const bodyBytes = Buffer.byteLength(JSON.stringify({ ...body, first: false }));
  assert.ok(MESSAGE_HEADER_BYTES + bodyBytes <= MESSAGE_BYTES_MAX, `${bodyBytes} bytes`);
});

const [
  {
    offsets: [wire],
  },
] = offsetsMessages([ONE]) as [Offsets];
for (const [what, change] of [
  ['of no family', { family: 5 }],
  ['of another protocol', { protocol: 17 }],
  ['with an IPv6 address in IPv4', { vmAddress: '0'.repeat(32) }],
  ['with an address that is not hexadecimal', { clientAddress: '0a0a0a0g' }],
  ['without an address', { clientAddress: undefined }],
  ['with a port above 65535', { vmPort: 65536 }],
  ['with a negative port', { vmPortAtClient: -1 }],
  ['with three VLAN tags', { vlans: [1, 2, 3] }],
  ['with VLAN id 4096', { vlans: [4096] }],
  ['with an outer VLAN id of 0', { vlans: [0, 1] }],
  ['with a number of 33 bits', { seqDelta: 2 ** 31 }],
  ['with a fraction', { tsDelta: 0.5 }],
  ['of null', null],
] as const) {
  test(`a connection ${what} is garbled`, () => {
    const entry = change === null ? null : { ...wire, ...change };
    assert.throws(() => received({ first: true, last: true, offsets: [entry] }), {
      code: 'COLO_LINK_GARBLED',
      message: /offsets/,
    });
  });
}

test('more connections than a message may have are garbled', () => {
  const offsets = new Array(OFFSETS_PER_MESSAGE + 1).fill(wire);
  assert.throws(() => received({ first: true, last: true, offsets }), { code: 'COLO_LINK_GARBLED' });
});

test('a map begins with its first message, and a first message begins another one', () => {
  const reader = new OffsetsReader();
  const part = (first: boolean, last: boolean, ...isns: number[]) =>
    reader.read({ first, last, offsets: isns.map((vmIsn) => ({ ...wire, vmIsn })) });
  assert.throws(() => part(false, true, 1), { code: 'COLO_LINK_GARBLED' });
  assert.equal(part(true, false, 1), null, 'the primary may die now: the map before is the right one');
  assert.equal(part(true, false, 2), null);
  assert.deepEqual(
    part(false, true, 3)?.map(({ vmIsn }) => vmIsn),
    [2, 3],
  );
  assert.throws(() => part(false, true, 4), { code: 'COLO_LINK_GARBLED' });
});

test('a map of more connections than the translator has room for is garbled', () => {
  const reader = new OffsetsReader();
  const offsets = new Array(OFFSETS_PER_MESSAGE).fill(wire);
  const messages = LIMITS.translationsMax / OFFSETS_PER_MESSAGE;
  for (let nth = 0; nth < messages; nth++) reader.read({ first: nth === 0, last: false, offsets });
  assert.throws(() => reader.read({ first: false, last: true, offsets: [wire] }), {
    code: 'COLO_LINK_GARBLED',
  });
});
