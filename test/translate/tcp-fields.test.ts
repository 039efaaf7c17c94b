import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  hasTimestamps,
  opensConnection,
  readTsVal,
  translateInput,
  translateOutput,
} from '../../src/translate/tcp-fields.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import {
  ACK,
  type LinkLayer,
  padded,
  RST,
  SYN,
  sack,
  type TcpSegment,
  tcpFrame,
  timestamps,
} from '../frames.ts';

const AT = 5;

function parsed(frame: Buffer): { bytes: Buffer; view: PacketView } {
  const bytes = Buffer.concat([Buffer.alloc(AT, 0xa5), frame, Buffer.alloc(4, 0xa5)]);
  const view = new PacketView();
  assert.equal(parsePacket(bytes, AT, frame.length, view), PACKET.tcp);
  return { bytes, view };
}

function output(frame: Buffer, seqDelta: number, tsDelta: number): string {
  const { bytes, view } = parsed(frame);
  translateOutput(bytes, view, seqDelta, tsDelta);
  return bytes.toString('hex', AT, AT + frame.length);
}

function input(frame: Buffer, seqDelta: number, tsDelta: number): string {
  const { bytes, view } = parsed(frame);
  translateInput(bytes, view, seqDelta, tsDelta);
  return bytes.toString('hex', AT, AT + frame.length);
}

const number32 = fc.oneof(
  fc.constantFrom(0, 1, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffff0000, 0xffffffff),
  fc.integer({ min: 0, max: 0xffffffff }),
);
const delta = number32.map((value) => value | 0);

/** Values in a segment, and how its options lie: NOPs before, between and after put them at any alignment. */
type Case = {
  segment: TcpSegment;
  seq: number;
  ack: number;
  stamps: [value: number, echo: number] | null;
  blocks: [number, number][];
  nops: [number, number, number];
  sackFirst: boolean;
};

const link: fc.Arbitrary<LinkLayer> = fc.constantFrom(
  {},
  { tags: [{ id: 7 }] },
  { tags: [{ id: 8, type: 0x88a8 }, { id: 9 }] },
  { padTo: 130 },
);

const anyCase: fc.Arbitrary<Case> = fc
  .record({
    version: fc.constantFrom(4 as const, 6 as const),
    link,
    flags: fc.constantFrom(ACK, ACK | 0x08, ACK | 0x01, ACK | RST, ACK | SYN),
    payload: fc.uint8Array({ maxLength: 9 }),
    seq: number32,
    ack: number32,
    stamps: fc.option(fc.tuple(number32, number32)),
    blocks: fc.array(fc.tuple(number32, number32), { maxLength: 4 }),
    nops: fc.tuple(fc.nat(3), fc.nat(3), fc.nat(3)),
    sackFirst: fc.boolean(),
  })
  .map(({ version, link: l, flags, payload, ...rest }) => ({
    segment: { ...l, version, flags, payload },
    ...rest,
    // Forty bytes hold four blocks, or three beside timestamps.
    blocks: rest.stamps === null ? rest.blocks : rest.blocks.slice(0, 3),
  }));

function build(c: Case, change: Partial<Pick<Case, 'seq' | 'ack' | 'stamps' | 'blocks'>> = {}): Buffer {
  const { seq, ack, stamps, blocks } = { ...c, ...change };
  const parts = [stamps === null ? [] : timestamps(...stamps), blocks.length === 0 ? [] : sack(blocks)];
  if (c.sackFirst) parts.reverse();
  let spare = 40 - parts[0].length - parts[1].length;
  const nops = c.nops.map((wanted) => {
    const given = Math.min(wanted, spare);
    spare -= given;
    return Array<number>(given).fill(1);
  });
  const options = padded([...nops[0], ...parts[0], ...nops[1], ...parts[1], ...nops[2]]);
  return tcpFrame({ ...c.segment, seq, ack, options });
}

test('output: seq and TSval move up, everything else stays, checksum right', () => {
  fc.assert(
    fc.property(anyCase, delta, delta, (c, seqDelta, tsDelta) => {
      const expected = build(c, {
        seq: c.seq + seqDelta,
        stamps: c.stamps && [c.stamps[0] + tsDelta, c.stamps[1]],
      });
      assert.equal(output(build(c), seqDelta, tsDelta), expected.toString('hex'));
    }),
    { numRuns: 1000 },
  );
});

test('input: ack, SACK blocks and TSecr move down, everything else stays, checksum right', () => {
  fc.assert(
    fc.property(anyCase, delta, delta, (c, seqDelta, tsDelta) => {
      const expected = build(c, {
        ack: c.ack - seqDelta,
        stamps: c.stamps && [c.stamps[0], c.stamps[1] - tsDelta],
        blocks: c.blocks.map(([left, right]) => [left - seqDelta, right - seqDelta]),
      });
      assert.equal(input(build(c), seqDelta, tsDelta), expected.toString('hex'));
    }),
    { numRuns: 1000 },
  );
});

test('every number of SACK blocks at every alignment', () => {
  for (let count = 1; count <= 4; count++) {
    for (let before = 0; before < 4 && before + 2 + 8 * count <= 40; before++) {
      const frame = (down: number) => {
        const blocks = Array.from({ length: count }, (_, i): [number, number] => [
          0xffffffff - i - down,
          100 * i - down,
        ]);
        return tcpFrame({ ack: 50 - down, options: padded([...Array(before).fill(1), ...sack(blocks)]) });
      };
      assert.equal(input(frame(0), 0x12345678, 0), frame(0x12345678).toString('hex'), `${count}, ${before}`);
    }
  }
});

test('an ack that is not valid is not touched', () => {
  const frame = tcpFrame({ flags: RST, seq: 1, ack: 2, options: padded(timestamps(3, 4)) });
  assert.equal(input(frame, 99, 99), frame.toString('hex'));
});

test('a segment without timestamps takes the sequence delta only', () => {
  assert.equal(output(tcpFrame({ seq: 1 }), 5, 9), tcpFrame({ seq: 6 }).toString('hex'));
});

test('a timestamps option of a wrong length is no timestamps option', () => {
  const options = [8, 6, 1, 2, 3, 4, 1, 1];
  const { bytes, view } = parsed(tcpFrame({ options }));
  assert.deepEqual([hasTimestamps(bytes, view), readTsVal(bytes, view)], [false, 0]);
  assert.equal(output(tcpFrame({ options }), 0, 9), tcpFrame({ options }).toString('hex'));
});

test('a SACK option that holds half a block: no byte behind it changes', () => {
  const frame = (edge: number) =>
    tcpFrame({ ack: edge, options: [5, 8, ...[0, 0, 0, edge], 7, 7, 1, 1, 1, 1] });
  assert.equal(input(frame(9), 4, 0), frame(5).toString('hex'));
});

test('reads TSval', () => {
  const { bytes, view } = parsed(tcpFrame({ options: padded(timestamps(0xfffffffe, 1)) }));
  assert.deepEqual([hasTimestamps(bytes, view), readTsVal(bytes, view)], [true, -2]);
});

test('there and back is where we were', () => {
  fc.assert(
    fc.property(anyCase, delta, delta, (c, seqDelta, tsDelta) => {
      const frame = build(c);
      const { bytes, view } = parsed(frame);
      translateOutput(bytes, view, seqDelta, tsDelta);
      translateOutput(bytes, view, -seqDelta, -tsDelta);
      translateInput(bytes, view, seqDelta, tsDelta);
      translateInput(bytes, view, -seqDelta, -tsDelta);
      assert.equal(bytes.toString('hex', AT, AT + frame.length), frame.toString('hex'));
    }),
  );
});

test('a SYN without ACK opens a connection', () => {
  assert.deepEqual([SYN, SYN | ACK, ACK, RST, SYN | 0xc0].map(opensConnection), [
    true,
    false,
    false,
    false,
    true,
  ]);
});
