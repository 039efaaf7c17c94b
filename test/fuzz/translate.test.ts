/** The translators against hostile frames: they move numbers of TCP headers and their checksum, and nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS, type Limits } from '../../src/limits.ts';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import type { Dice } from '../dice.ts';
import { internetChecksum, u32 } from '../frames.ts';
import { fuzz } from './cases.ts';
import { hostileFrame } from './hostile.ts';

const AROUND = 64;
const SMALL: Limits = { ...LIMITS, translationsMax: 8 };

type Translate = (bytes: Uint8Array, at: number, length: number) => void;

/** Translates a frame among other bytes, and looks at what has become of it. */
function apply(dice: Dice, frame: Buffer, translate: Translate): void {
  const bytes = Buffer.concat([dice.bytes(AROUND), frame, dice.bytes(AROUND)]);
  const before = Buffer.from(bytes);
  const view = new PacketView();
  const kind = parsePacket(before, AROUND, frame.length, view);
  translate(bytes, AROUND, frame.length);
  if (kind !== PACKET.tcp) {
    assert.ok(bytes.equals(before), `not TCP, and changed: ${frame.toString('hex')}`);
    return;
  }
  // Ports, data offset, flags, window, urgent pointer and payload stay.
  const mayChange = (at: number) => {
    const inHeader = at - view.l4;
    return (
      (inHeader >= 4 && inHeader < 12) ||
      inHeader === 16 ||
      inHeader === 17 ||
      (inHeader >= 20 && at < view.payload)
    );
  };
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] !== before[at]) assert.ok(mayChange(at), `byte ${at - AROUND} of ${frame.toString('hex')}`);
  }
  assert.equal(
    checksumHolds(bytes, view),
    checksumHolds(before, view),
    `checksum of ${frame.toString('hex')}`,
  );
}

function checksumHolds(bytes: Buffer, { sourceAt, ipVersion, l4, end }: PacketView): boolean {
  const addresses = bytes.subarray(sourceAt, sourceAt + (ipVersion === 4 ? 8 : 32));
  const pseudo = Buffer.concat([addresses, u32(end - l4, 6)]);
  const sum = internetChecksum(pseudo, bytes.subarray(l4, end));
  return sum === 0 || sum === 0xffff;
}

test('an SVM translator that hears anything in any order', async () => {
  await fuzz(600, (dice) => {
    const translator = new SvmTranslator(dice.roll(100), SMALL);
    for (let steps = dice.roll(60); steps > 0; steps--) {
      const fromVm = dice.chance(2);
      const frame = hostileFrame(dice, fromVm);
      if (dice.chance(4)) apply(dice, frame, (bytes, at, length) => translator.pvmSyn(bytes, at, length));
      else if (dice.chance(8))
        apply(dice, frame, (bytes, at, length) => translator.correctSyn(bytes, at, length));
      else if (fromVm) apply(dice, frame, (bytes, at, length) => translator.output(bytes, at, length));
      else apply(dice, frame, (bytes, at, length) => translator.input(bytes, at, length));
      assert.ok(translator.size <= SMALL.translationsMax);
      if (dice.chance(40)) translator.clear();
    }
    const offsets = new OffsetMap(1, SMALL);
    assert.equal(translator.carryOver(offsets), 0, 'as many places, and none was left');
    assert.ok(offsets.size <= translator.size);
    translator.clear();
    assert.equal(translator.size, 0);
  });
});

test('an offset map with connections of the same few addresses', async () => {
  await fuzz(600, (dice) => {
    const translator = new SvmTranslator(1, SMALL);
    for (let i = 0; i < 40; i++) {
      const syn = hostileFrame(dice, true);
      translator.pvmSyn(syn, 0, syn.length);
      const other = hostileFrame(dice, true);
      translator.output(other, 0, other.length);
      const answer = hostileFrame(dice, false);
      translator.input(answer, 0, answer.length);
    }
    const offsets = new OffsetMap(1, SMALL);
    translator.carryOver(offsets);
    const copy = new OffsetMap(2, SMALL);
    copy.import(offsets.export());
    for (let steps = dice.roll(60); steps > 0; steps--) {
      const fromVm = dice.chance(2);
      const frame = hostileFrame(dice, fromVm);
      const other = Buffer.from(frame);
      if (fromVm) copy.output(other, 0, other.length);
      else copy.input(other, 0, other.length);
      apply(dice, frame, (bytes, at, length) => {
        if (fromVm) offsets.output(bytes, at, length);
        else offsets.input(bytes, at, length);
        assert.ok(other.equals(bytes.subarray(at, at + length)), 'the other node translates otherwise');
      });
      assert.equal(copy.size, offsets.size);
    }
  });
});
