import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SENDER, Segment, type Sender } from '../../src/translate/segment.ts';
import { NONE } from '../../src/units.ts';
import {
  ACK,
  isUntouchedAround,
  type LinkLayer,
  padded,
  placed,
  RST,
  SYN,
  sack,
  type TcpSegment,
  tcpFrame,
  timestamps,
} from '../frames.ts';
import { quoting } from './quotes.ts';

/** Rewrites the segment of a frame, and returns the frame. */
function rewritten(frame: Buffer, sender: Sender, seqDelta: number, tsDelta: number, port = NONE): string {
  const place = placed(frame);
  const { bytes, at, length } = place;
  const segment = new Segment(null);
  assert.equal(segment.parse(bytes, at, length, sender), true);
  segment.rewrite(bytes, seqDelta, tsDelta, port);
  assert.ok(isUntouchedAround(place), 'a byte outside the frame has changed');
  return bytes.toString('hex', at, at + length);
}

const output = (frame: Buffer, seqDelta: number, tsDelta: number): string =>
  rewritten(frame, SENDER.vm, seqDelta, tsDelta);
const input = (frame: Buffer, seqDelta: number, tsDelta: number): string =>
  rewritten(frame, SENDER.client, seqDelta, tsDelta);

/** Rewrites the segment that an error quotes, and returns the frame. `sender` has sent the quoted segment. */
function rewrittenQuote(
  error: Buffer,
  sender: Sender,
  seqDelta: number,
  tsDelta: number,
  port = NONE,
): string {
  const place = placed(error, 5, 64);
  const { bytes, at, length } = place;
  const frame = new Segment(null);
  const quote = new Segment(frame);
  assert.equal(frame.parse(bytes, at, length, sender === SENDER.vm ? SENDER.client : SENDER.vm), false);
  assert.equal(quote.parseQuote(bytes), true);
  assert.equal(quote.sender, sender);
  quote.rewrite(bytes, seqDelta, tsDelta, port);
  assert.ok(isUntouchedAround(place), 'a byte outside the frame has changed');
  return bytes.toString('hex', at, at + length);
}

const number32 = fc.oneof(
  fc.constantFrom(0, 1, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffff0000, 0xffffffff),
  fc.integer({ min: 0, max: 0xffffffff }),
);
const delta = number32.map((value) => value | 0);

/** Values in a segment, and where its options lie: NOPs before, between and after them give them any alignment. */
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

test("the VM's segment: sequence number and TSval change, nothing else does, and the checksum is right", () => {
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

test("a client's segment: ack, SACK blocks and TSecr change, nothing else does, and the checksum is right", () => {
  fc.assert(
    fc.property(anyCase, delta, delta, (c, seqDelta, tsDelta) => {
      const expected = build(c, {
        ack: c.ack + seqDelta,
        stamps: c.stamps && [c.stamps[0], c.stamps[1] + tsDelta],
        blocks: c.blocks.map(([left, right]) => [left + seqDelta, right + seqDelta]),
      });
      assert.equal(input(build(c), seqDelta, tsDelta), expected.toString('hex'));
    }),
    { numRuns: 1000 },
  );
});

test('any number of SACK blocks changes, at every alignment', () => {
  for (let count = 1; count <= 4; count++) {
    for (let before = 0; before < 4 && before + 2 + 8 * count <= 40; before++) {
      const frame = (down: number) => {
        const blocks = Array.from({ length: count }, (_, i): [number, number] => [
          0xffffffff - i - down,
          100 * i - down,
        ]);
        return tcpFrame({ ack: 50 - down, options: padded([...Array(before).fill(1), ...sack(blocks)]) });
      };
      assert.equal(input(frame(0), -0x12345678, 0), frame(0x12345678).toString('hex'), `${count}, ${before}`);
    }
  }
});

test('an acknowledgement that is not valid stays', () => {
  const frame = tcpFrame({ flags: RST, seq: 1, ack: 2, options: padded(timestamps(3, 4)) });
  assert.equal(input(frame, 99, 99), frame.toString('hex'));
});

test('a segment without timestamps gets the sequence delta only', () => {
  assert.equal(output(tcpFrame({ seq: 1 }), 5, 9), tcpFrame({ seq: 6 }).toString('hex'));
});

test('a timestamps option of a wrong length is not a timestamps option', () => {
  const frame = tcpFrame({ options: [8, 6, 1, 2, 3, 4, 1, 1] });
  assert.equal(output(frame, 0, 9), frame.toString('hex'));
});

test('a SACK option with half a block: no byte after it changes', () => {
  const frame = (edge: number) =>
    tcpFrame({ ack: edge, options: [5, 8, ...[0, 0, 0, edge], 7, 7, 1, 1, 1, 1] });
  assert.equal(input(frame(9), -4, 0), frame(5).toString('hex'));
});

test('a change and its reverse leave the frame as it was', () => {
  fc.assert(
    fc.property(anyCase, delta, delta, (c, seqDelta, tsDelta) => {
      const frame = build(c);
      for (const rewrite of [output, input]) {
        const there = Buffer.from(rewrite(frame, seqDelta, tsDelta), 'hex');
        assert.equal(rewrite(there, -seqDelta | 0, -tsDelta | 0), frame.toString('hex'));
      }
    }),
  );
});

test("the VM's port changes, with the checksum", () => {
  fc.assert(
    fc.property(anyCase, fc.nat(65535), (c, port) => {
      const frame = (ports: TcpSegment) => build({ ...c, segment: { ...c.segment, ...ports } });
      const sent = frame({ sourcePort: port });
      assert.equal(rewritten(frame({}), SENDER.vm, 0, 0, port), sent.toString('hex'));
      const returned = frame({ destinationPort: port });
      assert.equal(rewritten(frame({}), SENDER.client, 0, 0, port), returned.toString('hex'));
    }),
  );
});

/** A quote that ends at 17 has half a checksum, which stays as it is: no frame that is built anew has the same. */
const cut = (max: number) => fc.integer({ min: 4, max }).filter((bytes) => bytes !== 17);

/** A quoted segment, cut after `tcpBytes` bytes unless an extension follows the quote. */
const anyQuote = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  tcpBytes: cut(70),
  extension: fc.boolean(),
  numbers: fc.tuple(
    number32,
    number32.filter((n) => n !== 0),
    number32,
    number32,
    number32,
    number32,
  ),
  seqDelta: number32.map((n) => n | 0),
  tsDelta: number32.map((n) => n | 0),
  nops: fc.nat(3),
  flags: fc.constantFrom(ACK, ACK | 0x01, ACK | SYN),
});

for (const sender of ['vm', 'client'] as const) {
  test(`a quoted segment of the ${sender}: what the quote has of it changes, with both checksums, at every cut`, () => {
    fc.assert(
      fc.property(anyQuote, (c) => {
        const { version, nops, seqDelta, tsDelta } = c;
        // A quote that is padded for an extension looks as if it went on. `end` is the first byte after a field.
        const has = (end: number) => c.extension || c.tcpBytes >= end;
        const build = (moved: boolean): Buffer => {
          let [seq, ack, value, echo, left, right] = c.numbers;
          const tsEnd = 20 + nops + 10;
          if (moved && sender === 'vm') {
            if (has(8)) seq += seqDelta;
            if (has(tsEnd)) value += tsDelta;
          } else if (moved && has(12)) {
            ack += seqDelta;
            if (has(tsEnd)) echo += tsDelta;
            if (has(tsEnd + 10)) {
              left += seqDelta;
              right += seqDelta;
            }
          }
          const options = padded([
            ...Array<number>(nops).fill(1),
            ...timestamps(value, echo),
            ...sack([[left, right]]),
          ]);
          return tcpFrame({ version, seq, ack, flags: c.flags, options, payload: Buffer.alloc(40, 7) });
        };
        const tcpBytes = c.extension ? 100 : c.tcpBytes;
        const frame = (moved: boolean) =>
          quoting(build(moved), sender === 'client', { version, tcpBytes, extension: c.extension });
        assert.equal(
          rewrittenQuote(frame(false), SENDER[sender], seqDelta, tsDelta),
          frame(true).toString('hex'),
        );
      }),
      { numRuns: 1000 },
    );
  });
}

test('a quoted acknowledgement that is not valid stays', () => {
  for (const tcpBytes of [12, 13, 14, 20, 24]) {
    const frame = quoting(tcpFrame({ flags: SYN, seq: 1, ack: 0 }), true, { version: 4, tcpBytes });
    assert.equal(rewrittenQuote(frame, SENDER.client, 99, 99), frame.toString('hex'));
  }
});

test('a quoted port changes, with both checksums as far as they are there', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.nat(65535),
      cut(30),
      (version, port, tcpBytes) => {
        const frame = (sourcePort: number) =>
          quoting(tcpFrame({ version, sourcePort, payload: Buffer.alloc(10) }), false, { version, tcpBytes });
        assert.equal(rewrittenQuote(frame(40000), SENDER.vm, 0, 0, port), frame(port).toString('hex'));
      },
    ),
  );
});
