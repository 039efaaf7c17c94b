/** A peer that sends anything: the link passes on whole messages, and closes with a code for the rest. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError, InvariantError } from '../../src/error.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { IGNORE_LINK, LinkChannel } from '../../src/link/link-channel.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import type { SlabId } from '../../src/units.ts';
import type { Dice } from '../dice.ts';
import { u32 } from '../frames.ts';
import { fakePair, framed } from '../io/fake-stream.ts';
import { fuzz } from './cases.ts';
import { hostileFrame, mutate } from './hostile.ts';

const FRAMES = [MESSAGE.input, MESSAGE.output, MESSAGE.teach];

function message(dice: Dice): Buffer {
  const type = dice.chance(20) ? dice.roll(256) : dice.pick(Object.values(MESSAGE));
  const body = bodyOf(dice, type);
  const header = Buffer.from([type, 0, 0, 0]);
  const whole = Buffer.concat([header, dice.chance(12) ? mutate(dice, body) : body]);
  return dice.chance(25) ? whole.subarray(0, dice.roll(whole.length)) : whole;
}

function bodyOf(dice: Dice, type: number): Buffer {
  if (FRAMES.some((frames) => frames === type)) {
    const frames = Array.from({ length: dice.roll(4) }, () => hostileFrame(dice)).filter(
      ({ length }) => length > 0,
    );
    return Buffer.concat([u32(dice.roll(3), dice.roll(9)), framed(...frames)]);
  }
  if (type === MESSAGE.heartbeat || type === MESSAGE.heartbeatAck) return u32(dice.roll(2 ** 32));
  if (type === MESSAGE.confirm) {
    const ranges = Array.from({ length: 2 * dice.roll(5) }, () => dice.roll(dice.chance(4) ? 2 ** 32 : 20));
    return u32(dice.roll(3), ...ranges);
  }
  return Buffer.from(dice.pick(['{}', '{"epoch":1}', 'null', '[]', '0', '{"offsets":[{}]}', '{', '']));
}

test('a hostile peer can only close the link, with a code', async () => {
  const codes = new Set<string>();
  await fuzz(800, async (dice) => {
    const [near, far] = fakePair();
    const slabs = new SlabPool(128 * 1024, 4);
    const channel = new LinkChannel(near, slabs);
    let closed = 0;
    const inside = (slab: SlabId, at: number, length: number) => {
      assert.ok(length > 0 && at >= 0 && at + length <= slabs.slabBytes, `${at} ${length}`);
      assert.equal(slabs.buffer(slab).readUInt32BE(at - 4), length, 'the length before the frame');
    };
    const listen = () => {
      channel.listen({
        ...IGNORE_LINK,
        input: (_epoch, _index, slab, at, length) => inside(slab, at, length),
        output: (_epoch, _index, slab, at, length) => inside(slab, at, length),
        teach: (_epoch, _lesson, slab, at, length) => inside(slab, at, length),
        closed: (cause) => {
          closed++;
          if (cause === null) return;
          assert.ok(cause instanceof ColoError && !(cause instanceof InvariantError), String(cause));
          codes.add(cause.code);
        },
      });
    };
    const late = dice.chance(8);
    if (!late) listen();
    channel.start();
    const messages = Array.from({ length: 1 + dice.roll(20) }, () => message(dice)).filter(
      ({ length }) => length > 0,
    );
    let bytes = framed(...messages);
    if (dice.chance(10)) bytes = mutate(dice, bytes);
    far.write(bytes, () => {});
    while (near.pump(1 + dice.roll(dice.chance(2) ? 2000 : 30)));
    assert.ok(slabs.inUse <= 1, 'more slabs in use than the one that is read into');
    channel.close();
    while (near.pump());
    if (late) listen();
    await Promise.resolve();
    assert.equal(closed, 1, 'the listener is notified of the end once');
    assert.equal(slabs.inUse, 0);
  });
  assert.deepEqual([...codes].sort(), ['COLO_LINK_GARBLED', 'COLO_STREAM_FRAMING']);
});
