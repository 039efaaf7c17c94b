import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { tcpKeyOf } from '../../src/flow/key.ts';
import {
  MESSAGE,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
  parseControl,
} from '../../src/link/link-protocol.ts';
import { VALUES_MAX, type Values, valuesMessage, valuesOf } from '../../src/link/values-message.ts';
import type { UnifiedValue } from '../../src/translate/unified-values.ts';
import { httpDate } from '../../src/unify/http-date.ts';
import type { Seq } from '../../src/units.ts';

const hex = (digits: number) =>
  fc
    .uint8Array({ minLength: digits / 2, maxLength: digits / 2 })
    .map((bytes) => Buffer.from(bytes).toString('hex'));
const port = fc.integer({ min: 0, max: 0xffff });
const date = fc
  .integer({ min: 0, max: 253_402_300_799 })
  .map((seconds) => Uint8Array.from(Buffer.from(httpDate(new Date(1000 * seconds)))));
const anyValue: fc.Arbitrary<UnifiedValue> = fc
  .record({
    family: fc.constantFrom(4 as const, 6 as const),
    vlans: fc.constantFrom([], [5], [5, 6]),
    addresses: fc.tuple(hex(32), hex(32)),
    ports: fc.tuple(port, port),
    seq: fc.integer({ min: -0x80000000, max: 0x7fffffff }),
    own: date,
    told: date,
  })
  .map(({ family, vlans, addresses, ports, seq, own, told }) => {
    const [localAddress, remoteAddress] = addresses.map((text) => text.slice(0, 8 * (family === 4 ? 1 : 4)));
    const [localPort, remotePort] = ports;
    const flow = { family, vlans, localAddress, localPort, remoteAddress, remotePort };
    return { key: Int32Array.from(tcpKeyOf(flow)), seq: seq as Seq, own, told };
  });

function received(body: unknown): Values {
  return parseControl(MESSAGE.values, JSON.stringify(body)).body as Values;
}

test('values reach the other node as they are', () => {
  fc.assert(
    fc.property(fc.array(anyValue, { maxLength: 3 }), (values) => {
      assert.deepEqual(valuesOf(received(valuesMessage(values))), values);
    }),
  );
});

const [VALUE] = fc.sample(anyValue, { numRuns: 1, seed: 1 });

test('as many as there may be fit into one message, at their longest', () => {
  const flow = {
    family: 6 as const,
    vlans: [4095, 4095],
    localAddress: 'f'.repeat(32),
    localPort: 65535,
    remoteAddress: 'f'.repeat(32),
    remotePort: 65535,
  };
  const value = { ...VALUE, key: Int32Array.from(tcpKeyOf(flow)), seq: -0x80000000 as Seq };
  const body = valuesMessage(new Array(VALUES_MAX).fill(value));
  assert.ok(JSON.stringify(body).length + MESSAGE_HEADER_BYTES <= MESSAGE_BYTES_MAX);
  assert.equal(received(body).values.length, VALUES_MAX);
  assert.throws(() => received({ values: [...body.values, body.values[0]] }), /COLO_LINK_GARBLED|values/);
});

test('what a peer sends is not believed', () => {
  const [right] = valuesMessage([VALUE]).values;
  const wrong: [what: string, entry: object][] = [
    ['a family', { ...right, family: 5 }],
    ['an address', { ...right, vmAddress: `${right.vmAddress}0` }],
    ['an address in capitals', { ...right, clientAddress: 'F'.repeat(right.clientAddress.length) }],
    ['a port', { ...right, vmPort: 65536 }],
    ['a VLAN', { ...right, vlans: [4096] }],
    ['a place', { ...right, seq: 2 ** 31 }],
    ['a date', { ...right, own: 'x'.repeat(29) }],
    ['a longer date', { ...right, told: `${right.told} ` }],
    ['a letter of two bytes', { ...right, told: `Ř${right.told.slice(1)}` }],
    ['a missing value', { ...right, told: undefined }],
  ];
  for (const [what, entry] of wrong) assert.throws(() => received({ values: [entry] }), what);
});
