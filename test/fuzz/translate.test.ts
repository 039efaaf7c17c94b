/** The mappings against hostile frames: they change numbers of TCP headers and checksums, and nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LESSON } from '../../src/compare/lesson.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import type { Dice } from '../dice.ts';
import { internetChecksum, RST, u32 } from '../frames.ts';
import { vmSyn } from '../translate/connection.ts';
import { quoting } from '../translate/quotes.ts';
import { teachSyn } from '../translate/rig.ts';
import { fuzz } from './cases.ts';
import { hostileFrame } from './hostile.ts';
import { beginsTcp, type QuotedTcp, quotedTcp } from './quoted.ts';

const AROUND = 64;
const SMALL: Limits = { ...LIMITS, translationsMax: 8 };

type Translate = (bytes: Uint8Array, at: number, length: number) => void;
/** The segment of a frame that is translated: its own, or the one that it quotes. */
type Segment = QuotedTcp & { vmPort: 0 | 2; quoted: boolean };

/** Translates a frame that has other bytes around it, checks every change, and returns the frame. */
function apply(dice: Dice, frame: Buffer, fromVm: boolean, translate: Translate): Buffer {
  const bytes = Buffer.concat([dice.bytes(AROUND), frame, dice.bytes(AROUND)]);
  const before = Buffer.from(bytes);
  const view = new PacketView();
  parsePacket(before, AROUND, frame.length, view);
  translate(bytes, AROUND, frame.length);
  const hex = frame.toString('hex');
  const segment = segmentOf(before, view, fromVm);
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] === before[at]) continue;
    assert.ok(segment !== null, `changed, with nothing to translate: ${hex}`);
    const ofError = segment.quoted && (at === view.l4 + 2 || at === view.l4 + 3);
    assert.ok(ofError || mayChange(before, segment, at), `byte ${at - AROUND} of ${hex}`);
  }
  assert.deepEqual(sums(bytes, view, segment), sums(before, view, segment), `checksums of ${hex}`);
  return bytes.subarray(AROUND, AROUND + frame.length);
}

function segmentOf(bytes: Buffer, view: PacketView, fromVm: boolean): Segment | null {
  const { kind, l4, end } = view;
  if (kind === PACKET.malformed) return null;
  if (kind === PACKET.tcp || beginsTcp(bytes, view)) {
    // The checksum in a first fragment covers the other fragments too.
    const whole = !view.fragment;
    return { l4, end, sourceAt: view.sourceAt, whole, vmPort: fromVm ? 0 : 2, quoted: false };
  }
  const quote = quotedTcp(bytes, view);
  // An error is about a segment of the other direction.
  return quote === null ? null : { ...quote, vmPort: fromVm ? 2 : 0, quoted: true };
}

/**
 * Returns true for a byte of the VM's port, a sequence number, the checksum or an option; false for one of the client's port, a
 * length, the flags, the window or the payload.
 */
function mayChange(bytes: Buffer, { l4, end, vmPort }: Segment, at: number): boolean {
  const place = at - l4;
  const options = l4 + 12 < end ? (bytes[l4 + 12] >> 4) * 4 : 0;
  return (
    at < end &&
    (place === vmPort ||
      place === vmPort + 1 ||
      (place >= 4 && place < 12) ||
      place === 16 ||
      place === 17 ||
      (place >= 20 && place < options))
  );
}

/** Returns which checksums are right: the error's own, and that of a segment that is complete. */
function sums(bytes: Buffer, view: PacketView, segment: Segment | null): boolean[] {
  const holds = (protocol: number, sourceAt: number, l4: number, end: number): boolean => {
    const addresses = bytes.subarray(sourceAt, sourceAt + (view.ipVersion === 4 ? 8 : 32));
    const pseudo = protocol === 1 ? Buffer.alloc(0) : Buffer.concat([addresses, u32(end - l4, protocol)]);
    const sum = internetChecksum(pseudo, bytes.subarray(l4, end));
    return sum === 0 || sum === 0xffff;
  };
  if (segment === null) return [];
  const { l4, end, sourceAt, whole, quoted } = segment;
  return [
    ...(quoted ? [holds(view.protocol, view.sourceAt, view.l4, view.end)] : []),
    ...(whole && l4 + 18 <= end ? [holds(6, sourceAt, l4, end)] : []),
  ];
}

/** Opens connections on the ports of hostile frames; each VM has its own numbers, and sometimes its own port. */
function begin(dice: Dice, translator: SvmTranslator): void {
  for (const version of [4, 6] as const) {
    for (const clientPort of [40000, 40001]) {
      if (dice.chance(4)) continue;
      const clientOpens = dice.chance(2);
      const c = {
        version,
        tags: [],
        stamped: dice.chance(2),
        clientOpens,
        clientIsn: 0x7fffffff,
        clientPort,
      };
      const numbers = (port: number) => ({ isn: dice.roll(2 ** 32), ts: dice.roll(2 ** 32), port });
      const pvm = vmSyn(c, numbers(80));
      const svm = vmSyn(c, numbers(clientOpens || dice.chance(2) ? 80 : 81));
      if (dice.chance(2)) teachSyn(translator, pvm);
      translator.output(svm, 0, svm.length);
      teachSyn(translator, pvm);
    }
  }
}

function byKey(map: OffsetMap): unknown[] {
  return map.export().sort((a, b) => (a.key.join() < b.key.join() ? -1 : 1));
}

/** Bytes of a quoted TCP header: never half of a number, and no acknowledgement without its flag. */
const CUTS = [4, 8, 20, 40];

/**
 * Checks that an error about a segment that has just been translated quotes, translated back, the segment as it was. Returns false
 * if nothing had to change.
 */
function comesBack(dice: Dice, was: Buffer, is: Buffer, fromVm: boolean, translate: Translate): boolean {
  const view = new PacketView();
  if (parsePacket(was, 0, was.length, view) !== PACKET.tcp) return false;
  // A reset of the VM ends the connection in the map.
  if (fromVm && (view.tcpFlags & RST) !== 0) return false;
  const { l3, l4, ipVersion } = view;
  const tcpBytes = dice.pick(CUTS);
  const errorAbout = (frame: Buffer): Buffer => {
    const untagged = Buffer.concat([frame.subarray(0, 12), frame.subarray(l3 - 2)]);
    const version = ipVersion === 4 ? 4 : 6;
    const ipOptions = l4 - l3 - (version === 4 ? 20 : 40);
    const error = quoting(untagged, !fromVm, { version, ipOptions, tcpBytes });
    return Buffer.concat([frame.subarray(0, l3), error.subarray(14)]);
  };
  const back = apply(dice, errorAbout(is), !fromVm, translate);
  assert.equal(named(back), named(errorAbout(was)), `${tcpBytes} bytes of ${was.toString('hex')}`);
  return named(errorAbout(is)) !== named(back);
}

/** Returns what an error quotes of a segment, up to the acknowledgement. */
function named(error: Buffer): string {
  const view = new PacketView();
  parsePacket(error, 0, error.length, view);
  const quote = quotedTcp(error, view);
  assert.ok(quote !== null);
  return error.toString('hex', quote.l4, Math.min(quote.end, quote.l4 + 12));
}

test('an SVM translator that gets any frames in any order', async () => {
  let translatedBack = 0;
  await fuzz(600, (dice) => {
    const translator = new SvmTranslator(dice.roll(100), SMALL);
    const output: Translate = (bytes, at, length) => translator.output(bytes, at, length);
    const input: Translate = (bytes, at, length) => translator.input(bytes, at, length);
    begin(dice, translator);
    for (let steps = dice.roll(60); steps > 0; steps--) {
      const fromVm = dice.chance(2);
      const frame = hostileFrame(dice, fromVm);
      if (dice.chance(4))
        apply(dice, frame, true, (bytes, at, length) =>
          translator.teach(LESSON.tcpSyn, dice.chance(8) ? 'past' : 'current', bytes, at, length),
        );
      else if (dice.chance(8))
        apply(dice, frame, true, (bytes, at, length) => translator.correctSyn(bytes, at, length));
      else {
        const is = apply(dice, frame, fromVm, fromVm ? output : input);
        if (comesBack(dice, frame, is, fromVm, fromVm ? input : output)) translatedBack++;
      }
      assert.ok(translator.size <= SMALL.translationsMax);
      if (dice.chance(40)) translator.clear();
    }
    const offsets = new OffsetMap(1, SMALL);
    assert.equal(translator.carryOver(offsets), 0, 'the map has as many names as the translator');
    assert.ok(offsets.size <= translator.size);
    translator.clear();
    assert.equal(translator.size, 0);
  });
  assert.ok(translatedBack > 100, `only ${translatedBack} errors were about a translated segment`);
});

test('an offset map with connections of the same few addresses', async () => {
  let translatedBack = 0;
  await fuzz(600, (dice) => {
    const translator = new SvmTranslator(1, SMALL);
    begin(dice, translator);
    for (let i = dice.roll(40); i > 0; i--) {
      const syn = hostileFrame(dice, true);
      teachSyn(translator, syn);
      const other = hostileFrame(dice, true);
      translator.output(other, 0, other.length);
      const answer = hostileFrame(dice, false);
      translator.input(answer, 0, answer.length);
    }
    const offsets = new OffsetMap(1, SMALL);
    translator.carryOver(offsets);
    const sent = new OffsetMap(2, SMALL);
    sent.import(offsets.export());
    assert.deepEqual(byKey(sent), byKey(offsets));
    // An exported map does not have the times that clients have echoed; a map that is carried over has them.
    const copy = new OffsetMap(2, SMALL);
    translator.carryOver(copy);
    const output: Translate = (bytes, at, length) => offsets.output(bytes, at, length);
    const input: Translate = (bytes, at, length) => offsets.input(bytes, at, length);
    for (let steps = dice.roll(60); steps > 0; steps--) {
      const fromVm = dice.chance(2);
      const frame = hostileFrame(dice, fromVm);
      const other = Buffer.from(frame);
      if (fromVm) copy.output(other, 0, other.length);
      else copy.input(other, 0, other.length);
      const is = apply(dice, frame, fromVm, fromVm ? output : input);
      assert.ok(other.equals(is), 'the other node translates differently');
      assert.equal(copy.size, offsets.size);
      if (comesBack(dice, frame, is, fromVm, fromVm ? input : output)) translatedBack++;
    }
  });
  assert.ok(translatedBack > 100, `only ${translatedBack} errors were about a translated segment`);
});
