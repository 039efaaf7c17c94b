import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  replaceQuotedPort,
  translateQuotedInput,
  translateQuotedOutput,
} from '../../src/translate/quote-fields.ts';
import { viewQuote } from '../../src/wire/icmp-quote.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { ACK, padded, SYN, sack, tcpFrame, timestamps } from '../frames.ts';
import { quoting } from './quotes.ts';

const number32 = fc.integer({ min: 0, max: 0xffffffff });

/** Half a checksum, at 17, is left as it is, so nothing built anew would have the same. */
const cut = (max: number) => fc.integer({ min: 4, max }).filter((bytes) => bytes !== 17);

type Rewrite = (bytes: Buffer, view: PacketView, quote: PacketView) => void;

function rewritten(frame: Buffer, rewrite: Rewrite): string {
  const bytes = Buffer.concat([Buffer.alloc(5, 0xa5), frame, Buffer.alloc(64, 0xa5)]);
  const view = new PacketView();
  const quote = new PacketView();
  parsePacket(bytes, 5, frame.length, view);
  assert.equal(viewQuote(bytes, view, quote), true);
  rewrite(bytes, view, quote);
  assert.equal(
    bytes.subarray(5 + frame.length).every((byte) => byte === 0xa5),
    true,
    'nothing behind the frame',
  );
  return bytes.toString('hex', 5, 5 + frame.length);
}

/** Where a number of the segment lies decides whether the quote has it: `end` is the first byte behind it. */
const anyCase = fc.record({
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

for (const way of ['output', 'input'] as const) {
  test(`a quote of the VM's ${way}: what it holds moves, both checksums stay right, at every cut`, () => {
    fc.assert(
      fc.property(anyCase, (c) => {
        const { version, nops, seqDelta, tsDelta } = c;
        // A cut quote that is padded looks as if it went on.
        const has = (end: number) => c.extension || c.tcpBytes >= end;
        const build = (moved: boolean): Buffer => {
          let [seq, ack, value, echo, left, right] = c.numbers;
          const tsEnd = 20 + nops + 10;
          if (moved && way === 'output') {
            if (has(8)) seq -= seqDelta;
            if (has(tsEnd)) value -= tsDelta;
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
          quoting(build(moved), way === 'input', { version, tcpBytes, extension: c.extension });
        const rewrite = way === 'output' ? translateQuotedOutput : translateQuotedInput;
        assert.equal(
          rewritten(frame(false), (bytes, view, quote) => rewrite(bytes, view, quote, seqDelta, tsDelta)),
          frame(true).toString('hex'),
        );
      }),
      { numRuns: 1000 },
    );
  });
}

test('an acknowledgement that is not valid stays', () => {
  for (const tcpBytes of [12, 13, 14, 20, 24]) {
    const frame = quoting(tcpFrame({ flags: SYN, seq: 1, ack: 0 }), true, { version: 4, tcpBytes });
    assert.equal(
      rewritten(frame, (bytes, view, quote) => translateQuotedInput(bytes, view, quote, 99, 99)),
      frame.toString('hex'),
    );
  }
});

test('a port changes in both checksums, as far as they are there', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.nat(65535),
      cut(30),
      (version, port, tcpBytes) => {
        const frame = (sourcePort: number) =>
          quoting(tcpFrame({ version, sourcePort, payload: Buffer.alloc(10) }), false, { version, tcpBytes });
        assert.equal(
          rewritten(frame(40000), (bytes, view, quote) =>
            replaceQuotedPort(bytes, view, quote, quote.l4, port),
          ),
          frame(port).toString('hex'),
        );
      },
    ),
  );
});
