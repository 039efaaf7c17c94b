/** ICMP errors through both mappings: the receiver of an error gets the quoted segment in its own numbers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import {
  anyConnection,
  anyExchange,
  anyNumbers,
  CONNECTION,
  type Connection,
  fromClient,
  fromVm,
  type Numbers,
  PVM,
  SVM,
  vmSyn,
} from './connection.ts';
import { type QuoteOptions, quoting } from './quotes.ts';
import { becomes, type Translator, teachSyn } from './rig.ts';

/** One connection in a secondary's translator, and in the map that a failover makes of it. */
function bothOf(c: Connection, pvm: Numbers, svm: Numbers): Translator[] {
  const translator = new SvmTranslator(1);
  const [known, own] = [vmSyn(c, pvm), vmSyn(c, svm)];
  teachSyn(translator, known);
  translator.output(own, 0, own.length);
  const offsets = new OffsetMap(1);
  assert.equal(translator.carryOver(offsets), 0);
  return [translator, offsets];
}

function toVm(translator: Translator, frame: Buffer, expected: Buffer): void {
  becomes((bytes, at, length) => translator.input(bytes, at, length), frame, expected, 'to the VM');
}

function toClient(translator: Translator, frame: Buffer, expected: Buffer): void {
  becomes((bytes, at, length) => translator.output(bytes, at, length), frame, expected, 'from the VM');
}

/** The minimum of RFC 792, the whole segment, and the whole segment followed by an extension. */
const anyQuote: fc.Arbitrary<Omit<QuoteOptions, 'version' | 'tags'>> = fc.constantFrom(
  { tcpBytes: 8 },
  {},
  { extension: true },
);

test('errors in IPv4, IPv6 and VLANs are translated both ways, however much they quote', () => {
  fc.assert(
    fc.property(
      anyConnection,
      anyNumbers,
      anyNumbers,
      anyExchange,
      anyQuote,
      fc.constantFrom(0, 1),
      (c, pvm, svm, exchange, quote, which) => {
        const options = { version: c.version, tags: c.tags, ...quote };
        for (const translator of bothOf(c, pvm, svm)) {
          const aboutOutput = (vm: Numbers) => quoting(fromVm(c, vm, exchange), false, options);
          const aboutInput = (vm: Numbers) => quoting(fromClient(c, vm, exchange), true, options);
          toVm(translator, aboutOutput(pvm), aboutOutput(svm));
          toClient(translator, aboutInput(svm), aboutInput(pvm));
          const elsewhere = {
            ...c,
            tags: [...c.tags, { id: 9 }].slice(-2),
            clientPort: c.clientPort ^ which,
          };
          const other = quoting(fromVm(elsewhere, pvm, exchange), false, {
            ...options,
            tags: elsewhere.tags,
          });
          toVm(translator, other, other);
        }
      },
    ),
    { numRuns: 300 },
  );
});

const exchange = { clientAt: 9, vmAt: 5, time: 3, payload: Buffer.from('data') };

test('a quote with impossible lengths is translated as far as the frame has it', () => {
  for (const version of [4, 6] as const) {
    const c = { ...CONNECTION, version };
    const options = { version };
    const l3 = 14 + (version === 4 ? 20 : 40) + 8;
    const headerBytes = version === 4 ? 20 : 40;
    const l4 = l3 + headerBytes;
    const frameOf = (vm: Numbers, lie: (frame: Buffer) => void): Buffer => {
      const frame = quoting(fromVm(c, vm, exchange), false, options);
      lie(frame);
      return frame;
    };
    const lengthAt = l3 + (version === 4 ? 2 : 4);
    const claimed = (tcpBytes: number) => (version === 4 ? headerBytes : 0) + tcpBytes;
    const wrong: [string, (frame: Buffer) => void][] = [
      ['no port is in the packet', (frame) => frame.writeUInt16BE(claimed(3), lengthAt)],
      ['the sequence number is cut', (frame) => frame.writeUInt16BE(claimed(7), lengthAt)],
      ['TCP has no whole header', (frame) => frame.writeUInt8(0x40, l4 + 12)],
      ['another protocol', (frame) => frame.writeUInt8(17, l3 + (version === 4 ? 9 : 6))],
      ['the other version', (frame) => frame.writeUInt8(version === 4 ? 0x65 : 0x40, l3)],
      ['RFC 4884: the quote ends before TCP', (frame) => frame.writeUInt8(2, l3 - (version === 4 ? 3 : 4))],
    ];
    if (version === 4) {
      wrong.push(['a later fragment', (frame) => frame.writeUInt16BE(1, l3 + 6)]);
      wrong.push(['an IP header as long as the message', (frame) => frame.writeUInt8(0x4f, l3)]);
      wrong.push(['an IP header of 16 bytes', (frame) => frame.writeUInt8(0x44, l3)]);
    }
    for (const translator of bothOf(c, PVM, SVM)) {
      for (const [, lie] of wrong) toVm(translator, frameOf(PVM, lie), frameOf(PVM, lie));
      // A length beyond the frame is cut to the frame: the part that is there is translated, with all checksums.
      for (const lie of [
        (frame: Buffer) => frame.writeUInt16BE(60_000, lengthAt),
        (frame: Buffer) => frame.writeUInt8(255, l3 - (version === 4 ? 3 : 4)),
      ])
        toVm(translator, frameOf(PVM, lie), frameOf(SVM, lie));
    }
  }
});
