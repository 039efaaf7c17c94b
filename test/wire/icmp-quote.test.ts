import assert from 'node:assert/strict';
import { test } from 'node:test';
import { viewQuote } from '../../src/wire/icmp-quote.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import {
  ethernet,
  fragmentExtension,
  icmpFrame,
  ipv4,
  paddingExtension,
  placed,
  tcpFrame,
  udpFrame,
} from '../frames.ts';
import { quoting } from '../translate/quotes.ts';

function quoteOf(frame: Buffer): PacketView | null {
  const { bytes, at, length } = placed(frame, 3, 64);
  const view = new PacketView();
  parsePacket(bytes, at, length, view);
  const quote = new PacketView();
  return viewQuote(bytes, view, quote) ? quote : null;
}

const segment = (version: 4 | 6) =>
  tcpFrame({ version, sourcePort: 4321, destinationPort: 443, payload: Buffer.alloc(9) });

test('the ports of a quoted segment are found wherever the quote ends', () => {
  for (const version of [4, 6] as const) {
    for (let tcpBytes = 0; tcpBytes <= 29; tcpBytes++) {
      const frame = quoting(segment(version), false, { version, tcpBytes, tags: [] });
      const quote = quoteOf(frame);
      if (tcpBytes < 4) {
        assert.equal(quote, null);
        continue;
      }
      assert.ok(quote);
      assert.deepEqual([quote.kind, quote.sourcePort, quote.destinationPort], [PACKET.tcp, 4321, 443]);
      assert.equal(quote.end - quote.l4, tcpBytes, 'ends with the quote');
      assert.equal(quote.payload - quote.l4, Math.min(20, tcpBytes));
      assert.equal(quote.end, 3 + frame.length);
    }
  }
});

test('errors quote a segment, and no other message does', () => {
  for (const [version, errors] of [
    [4, [3, 4, 5, 11, 12]],
    [6, [1, 2, 3, 4]],
  ] as const) {
    for (let type = 0; type < 256; type++) {
      const quote = quoteOf(quoting(segment(version), false, { version, type }));
      assert.equal(quote !== null, (errors as readonly number[]).includes(type), `${version}: ${type}`);
    }
  }
});

test('an extension after the quote is not part of it', () => {
  for (const version of [4, 6] as const) {
    const quote = quoteOf(quoting(segment(version), false, { version, extension: true, tcpBytes: 20 }));
    assert.ok(quote);
    const ip = version === 4 ? 20 : 40;
    assert.equal(
      quote.end - quote.l3,
      Math.min(128, ip + 29),
      'as long as the length of the quoted packet, and no longer',
    );
  }
  const long = tcpFrame({ payload: Buffer.alloc(500) });
  const cut = quoteOf(quoting(long, false, { version: 4, extension: true, tcpBytes: 108 }));
  assert.equal(cut && cut.end - cut.l3, 128);
});

test('options and extension headers before the segment are skipped', () => {
  const four = tcpFrame({ sourcePort: 4321, ipOptions: [1, 1, 1, 1] });
  assert.equal(quoteOf(quoting(four, false, { version: 4, ipOptions: 4, tcpBytes: 8 }))?.sourcePort, 4321);
  const extensions = [paddingExtension(0), paddingExtension(60, 1), fragmentExtension(0, true, 7)];
  const six = tcpFrame({ version: 6, sourcePort: 4321, extensions });
  assert.equal(quoteOf(quoting(six, false, { version: 6, ipOptions: 32, tcpBytes: 8 }))?.sourcePort, 4321);
  for (let cut = -40; cut < 36; cut++)
    assert.equal(quoteOf(quoting(six, false, { version: 6, ipOptions: cut, tcpBytes: 0 })), null, `${cut}`);
  const later = tcpFrame({ version: 6, extensions: [fragmentExtension(8, true, 7)] });
  assert.equal(quoteOf(quoting(later, false, { version: 6 })), null, 'a later fragment has no ports');
  const nine = Array.from({ length: 9 }, () => paddingExtension(60));
  assert.equal(quoteOf(quoting(tcpFrame({ version: 6, extensions: nine }), false, { version: 6 })), null);
});

test('a quote of any bytes is viewed within the frame or not at all', () => {
  assert.equal(quoteOf(quoting(udpFrame({}), false, { version: 4 })), null);
  assert.equal(quoteOf(quoting(udpFrame({ version: 6 }), false, { version: 6 })), null);
  assert.equal(quoteOf(icmpFrame({ type: 3 })), null, 'nothing');
  assert.equal(quoteOf(icmpFrame({ version: 6, type: 1 })), null, 'nothing');
  const short = ethernet(0x0800, ipv4({ protocol: 1 }, Buffer.from([3, 1, 0, 0])));
  assert.equal(quoteOf(short), null, 'not even the rest of the header');
  assert.equal(quoteOf(segment(4)), null, 'no error');
  const later = ethernet(0x0800, ipv4({ protocol: 6, fragmentOffset: 8 }, Buffer.alloc(30)));
  assert.equal(quoteOf(quoting(later, false, { version: 4 })), null, 'a later fragment');
  const lies = segment(4);
  lies[14 + 20 + 12] = 0x10;
  assert.equal(quoteOf(quoting(lies, false, { version: 4 })), null, 'a header shorter than a header');
  const wrong = segment(6);
  wrong[14] = 0x45;
  assert.equal(quoteOf(quoting(wrong, false, { version: 6 })), null, 'another version than the error');
});
