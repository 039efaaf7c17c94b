/** The frame reader against streams with wrong lengths, in pieces of any size. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { FrameReader, type Framing } from '../../src/frames/frame-reader.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { Dice } from '../dice.ts';
import { fuzz } from './cases.ts';
import { hostileFrame } from './hostile.ts';

const FRAME_BYTES_MAX = 2000;
const VNET_BYTES_MAX = 20;

/** Returns frames with their prefixes; now and then a prefix is wrong. */
function stream(dice: Dice, framing: Framing): Buffer {
  const parts: Buffer[] = [];
  for (let frames = dice.roll(30); frames > 0; frames--) {
    const vnet = framing === 'vnet' ? dice.pick([0, 10, 12, 20]) : 0;
    const frame = Buffer.concat([dice.bytes(vnet), hostileFrame(dice)]);
    const prefix = Buffer.alloc(framing === 'vnet' ? 8 : 4);
    const lie = () =>
      dice.pick([0, 1, frame.length + 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 2 ** 31, 2 ** 32 - 1]);
    prefix.writeUInt32BE(dice.chance(60) ? lie() : frame.length);
    if (framing === 'vnet') prefix.writeUInt32BE(dice.chance(60) ? lie() : vnet, 4);
    parts.push(prefix, frame);
  }
  return Buffer.concat(parts);
}

/** Returns the frames in the stream by a plain reading, and whether it gets out of step. */
function cut(bytes: Buffer, framing: Framing): { frames: string[]; broken: boolean } {
  const frames: string[] = [];
  const prefix = framing === 'vnet' ? 8 : 4;
  for (let at = 0; at + prefix <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const vnet = framing === 'vnet' ? bytes.readUInt32BE(at + 4) : 0;
    if (length === 0 || length > FRAME_BYTES_MAX) return { frames, broken: true };
    if (vnet > VNET_BYTES_MAX || vnet > length) return { frames, broken: true };
    if (at + prefix + length > bytes.length) break;
    frames.push(bytes.toString('hex', at, at + prefix + length));
    at += prefix + length;
  }
  return { frames, broken: false };
}

for (const framing of ['plain', 'vnet'] as const) {
  test(`${framing} framing hands out every whole frame, and stops where the stream is out of step`, async () => {
    await fuzz(600, (dice) => {
      const bytes = stream(dice, framing);
      const slabs = new SlabPool(32 * 1024, 3);
      const got: string[] = [];
      const prefix = framing === 'vnet' ? 8 : 4;
      const reader = new FrameReader(
        slabs,
        FRAME_BYTES_MAX,
        {
          frame: (slab, at, length) => got.push(slabs.buffer(slab).toString('hex', at - prefix, at + length)),
          batchEnd: () => {},
        },
        framing,
      );
      let broken = false;
      for (let at = 0; at < bytes.length && !broken; ) {
        const buffer = reader.buffer();
        assert.ok(buffer !== null && buffer.length > 0, 'no room, and nothing is held');
        const count = Math.min(buffer.length, 1 + dice.roll(dice.chance(3) ? 4000 : 40), bytes.length - at);
        buffer.set(bytes.subarray(at, at + count));
        at += count;
        try {
          reader.read(count);
        } catch (cause) {
          assert.ok(cause instanceof ColoError && cause.code === 'COLO_STREAM_FRAMING', String(cause));
          broken = true;
        }
      }
      assert.deepEqual({ frames: got, broken }, cut(bytes, framing));
      assert.equal(slabs.inUse, bytes.length === 0 ? 0 : 1);
      reader.close();
      assert.equal(slabs.inUse, 0);
    });
  });
}
