/** A VM's own value of a field, and the one that clients have from another VM. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FLOW_KEY_WORDS, writeOutputKey } from '../../src/flow/key.ts';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import { UnifiedValues } from '../../src/translate/unified-values.ts';
import { HTTP_DATE_BYTES, httpDate } from '../../src/unify/http-date.ts';
import type { Seq } from '../../src/units.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { ACK, CLIENT_ADDRESS, CLIENT_MAC, RST, SYN, tcpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { becomes, type Rewrite } from './rig.ts';

const OWN = Buffer.from(httpDate(new Date(1_000_000_000_000)));
const TOLD = Buffer.from(httpDate(new Date(1_000_000_001_000)));
const PLACE = 5000 as Seq;

type Version = 4 | 6;
const fromVm = (seq: number, payload: Uint8Array, version: Version = 4, flags = ACK) =>
  tcpFrame({
    version,
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
    source: VM_ADDRESS[version],
    destination: CLIENT_ADDRESS[version],
    sourcePort: 80,
    destinationPort: 40000,
    flags,
    seq,
    ack: 1,
    payload,
  });
const fromClient = (ack: number, flags = ACK) =>
  tcpFrame({
    source: CLIENT_ADDRESS[4],
    destination: VM_ADDRESS[4],
    sourcePort: 40000,
    destinationPort: 80,
    flags,
    seq: 1,
    ack,
  });

function keyOf(frame: Buffer): Int32Array {
  const view = new PacketView();
  parsePacket(frame, 0, frame.length, view);
  const key = new Int32Array(FLOW_KEY_WORDS);
  writeOutputKey(frame, view, key);
  return key;
}

const value = (seq = PLACE, version: Version = 4) => ({
  key: keyOf(fromVm(1, Buffer.alloc(0), version)),
  seq,
  own: OWN,
  told: TOLD,
});

function knowing(seq = PLACE, version: Version = 4): UnifiedValues {
  const values = new UnifiedValues(2, 1);
  assert.ok(values.add(value(seq, version)));
  return values;
}

const outputOf =
  (values: UnifiedValues): Rewrite =>
  (bytes, at, length) =>
    values.output(bytes, at, length);

const input = (values: UnifiedValues, frame: Buffer) => values.input(frame, 0, frame.length);

test('however a VM cuts its stream, clients get the value that they were told, with a right checksum', () => {
  const cut = fc.integer({ min: -40, max: 70 });
  const place = fc.constantFrom(PLACE, 0x7ffffff0 as Seq, -10 as Seq);
  const property = fc.property(
    cut,
    fc.integer({ min: 0, max: 90 }),
    place,
    fc.constantFrom(4, 6),
    (from, bytes, seq, version) => {
      const stream = (middle: Buffer) =>
        Buffer.concat([Buffer.alloc(40, 'a'), middle, Buffer.alloc(140, 'b')]);
      const part = (middle: Buffer) =>
        fromVm((seq + from) >>> 0, stream(middle).subarray(40 + from, 40 + from + bytes), version as Version);
      const values = knowing(seq, version as Version);
      becomes(outputOf(values), part(OWN), part(TOLD));
      // A frame that was corrected before stays.
      becomes(outputOf(values), part(TOLD), part(TOLD));
      assert.equal(values.size, 1);
    },
  );
  fc.assert(property, { numRuns: 500 });
});

test('bytes that are not the VM’s own value stay, whatever the difference', () => {
  for (let at = 0; at < HTTP_DATE_BYTES; at++) {
    const other = Buffer.from(OWN);
    other[at] ^= 1;
    becomes(outputOf(knowing()), fromVm(PLACE, other), fromVm(PLACE, other), `byte ${at}`);
  }
  const elsewhere = fromVm(PLACE + 1, OWN);
  becomes(outputOf(knowing()), elsewhere, elsewhere);
  const other = fromVm(PLACE, OWN, 6);
  becomes(outputOf(knowing()), other, other, 'another flow');
});

test('a value is forgotten when the client has acknowledged all of it, and not earlier', () => {
  const end = PLACE + HTTP_DATE_BYTES;
  for (const ack of [PLACE, end - 1, end - 0x70000000]) {
    const values = knowing();
    input(values, fromClient(ack >>> 0));
    assert.equal(values.size, 1, `${ack}`);
  }
  for (const ack of [end, end + 1, end + 100_000]) {
    const values = knowing();
    input(values, fromClient(ack));
    assert.equal(values.size, 0, `${ack}`);
    const frame = fromVm(PLACE, OWN);
    becomes(outputOf(values), frame, frame);
  }
  const values = knowing();
  input(values, fromClient(end, SYN));
  assert.equal(values.size, 1, 'no ACK');
});

test('a connection that ends takes its values along', () => {
  const ended = knowing();
  becomes(outputOf(ended), fromVm(1, Buffer.alloc(0), 4, RST), fromVm(1, Buffer.alloc(0), 4, RST));
  assert.equal(ended.size, 0);
  const reset = knowing();
  input(reset, fromClient(0, RST));
  assert.equal(reset.size, 0);
  const begun = (isn: number) => {
    const values = knowing();
    const syn = fromVm(isn >>> 0, Buffer.alloc(0), 4, SYN | ACK);
    becomes(outputOf(values), syn, syn);
    return values.size;
  };
  assert.equal(begun(PLACE - 100), 1, 'its own SYN, repeated');
  assert.equal(begun(PLACE + 1), 0);
  assert.equal(begun(PLACE + 0x70000000), 0);
});

test('there is room for so many values, and a place is told of once', () => {
  const values = knowing();
  const third = Buffer.from(httpDate(new Date(1_000_000_002_000)));
  assert.ok(values.add({ ...value(), own: third, told: OWN }));
  assert.equal(values.size, 1);
  becomes(
    outputOf(values),
    fromVm(PLACE, third),
    fromVm(PLACE, TOLD),
    'clients have what they were told first',
  );
  assert.ok(values.add(value(9000 as Seq)));
  assert.ok(!values.add(value(9500 as Seq)));
  assert.deepEqual(
    values.all().map(({ seq }) => seq),
    [PLACE, 9000],
  );
  values.clear();
  assert.equal(values.size, 0);
  assert.ok(values.add(value(9500 as Seq)));
});

test('a promotion keeps the values in the numbers of the clients', () => {
  const offsets = new OffsetMap(1);
  const { key } = value();
  offsets.add(key, { vmIsn: 1, seqDelta: 700, tsDelta: 0, clientPort: 8080 });
  const translator = new SvmTranslator(1);
  translator.values.add(value());
  assert.equal(translator.carryOver(offsets), 0);
  const frame = fromVm(PLACE, OWN);
  const told = tcpFrame({
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
    source: VM_ADDRESS[4],
    destination: CLIENT_ADDRESS[4],
    sourcePort: 8080,
    destinationPort: 40000,
    flags: ACK,
    seq: PLACE + 700,
    ack: 1,
    payload: TOLD,
  });
  becomes((bytes, at, length) => offsets.output(bytes, at, length), frame, told);
  translator.clear();
  assert.equal(translator.values.size, 0);
});
