/** The parsers against hostile frames: they give the same result, and never read outside the frame. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InputFilter } from '../../src/datapath/input-filter.ts';
import { ofOneFlow } from '../../src/flow/key.ts';
import { NONE } from '../../src/units.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import { parseQuickTcp, parseQuickTwin } from '../../src/wire/quick-tcp.ts';
import { partialChecksumAt } from '../../src/wire/virtio-net.ts';
import type { Dice } from '../dice.ts';
import { VM_MAC } from '../frames.ts';
import { fuzz } from './cases.ts';
import { hostileFrame, mutate } from './hostile.ts';

const AROUND = 128;

/** Returns the frame with other bytes before and after it. */
function among(dice: Dice, frame: Buffer): Buffer {
  return Buffer.concat([dice.bytes(AROUND), frame, dice.bytes(AROUND)]);
}

/** Returns the fields of a view that may be read: those of a fragment are void in other packets. */
function readable(view: PacketView): Record<string, unknown> {
  const { fragmentOffset, moreFragments, fragmentId, ...rest } = view;
  return view.fragment ? { ...view } : rest;
}

function dataView(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

test('bytes around a frame do not change its view', async () => {
  await fuzz(8_000, (dice) => {
    const frame = hostileFrame(dice, dice.chance(2));
    const views = [0, 1].map(() => {
      const view = new PacketView();
      parsePacket(among(dice, frame), AROUND, frame.length, view);
      return view;
    });
    if (views[0].kind !== PACKET.malformed) assert.deepEqual(views[0], views[1], frame.toString('hex'));
    assert.equal(views[0].kind, views[1].kind, frame.toString('hex'));
    const quick = [0, 1].map(() => {
      const view = new PacketView();
      return parseQuickTcp(dataView(among(dice, frame)), AROUND, frame.length, view) && { ...view };
    });
    assert.deepEqual(quick[0], quick[1], frame.toString('hex'));
  });
});

test('every part of a well-formed frame lies in it, in order', async () => {
  await fuzz(8_000, (dice) => {
    const frame = hostileFrame(dice, dice.chance(2));
    const view = new PacketView();
    if (parsePacket(among(dice, frame), AROUND, frame.length, view) === PACKET.malformed) return;
    const { l3, l4, payload, payloadBytes, end } = view;
    const places = [AROUND, l3, l4, payload, payload + payloadBytes, end, AROUND + frame.length];
    places.forEach((place, i) => {
      assert.ok(i === 0 || places[i - 1] <= place, `${places}: ${frame.toString('hex')}`);
    });
    if (view.ipVersion === 0) return;
    const addressBytes = view.ipVersion === 4 ? 4 : 16;
    for (const at of [view.sourceAt, view.destinationAt]) {
      assert.ok(at > l3 && at + addressBytes <= l4, frame.toString('hex'));
    }
  });
});

test('parseQuickTcp fills the view as parsePacket does, whatever the view held before', async () => {
  let quickFrames = 0;
  const view = new PacketView();
  await fuzz(12_000, (dice) => {
    const frame = hostileFrame(dice, dice.chance(2));
    const bytes = among(dice, frame);
    const quick = parseQuickTcp(dataView(bytes), AROUND, frame.length, view);
    if (!quick) {
      parsePacket(bytes, AROUND, frame.length, view);
      return;
    }
    quickFrames++;
    const thorough = new PacketView();
    parsePacket(bytes, AROUND, frame.length, thorough);
    assert.deepEqual(readable(view), readable(thorough), frame.toString('hex'));
  });
  assert.ok(quickFrames > 500, `only ${quickFrames} frames were quick`);
});

test('parseQuickTwin takes twins alone, fills their fields as parseQuickTcp does, and reads nothing beyond the frame', async () => {
  const count = { twins: 0, others: 0 };
  await fuzz(20_000, (dice) => {
    const twinFrame = hostileFrame(dice, dice.chance(2));
    const twinBytes = among(dice, twinFrame);
    const twin = new PacketView();
    if (parsePacket(twinBytes, AROUND, twinFrame.length, twin) !== PACKET.tcp) return;
    const frame = dice.chance(4) ? hostileFrame(dice, dice.chance(2)) : mutate(dice, twinFrame);
    const bytes = among(dice, frame);
    const views = [new PacketView(), new PacketView()];
    const [isTwin, again] = [bytes, among(dice, frame)].map((around, i) =>
      parseQuickTwin(dataView(around), AROUND, frame.length, dataView(twinBytes), twin, views[i]),
    );
    const hex = `${twinFrame.toString('hex')} ${frame.toString('hex')}`;
    assert.equal(isTwin, again, hex);
    assert.deepEqual(views[0], views[1], hex);
    const whole = new PacketView();
    const isQuick = parseQuickTcp(dataView(bytes), AROUND, frame.length, whole);
    const options = twin.payload - twin.l4 > 20 ? 24 : 20;
    const header = (from: Buffer, { l4 }: PacketView) =>
      `${from.toString('hex', l4, l4 + 8)} ${from.toString('hex', l4 + 12, l4 + 14)} ${from.toString('hex', l4 + 20, l4 + options)}`;
    const isAlike =
      isQuick &&
      twin.vlan === 0 &&
      ofOneFlow(bytes, whole, twinBytes, twin) &&
      twin.l4 - twin.l3 === whole.l4 - whole.l3 &&
      header(bytes, whole) === header(twinBytes, twin) &&
      whole.end - whole.l4 === twin.end - twin.l4;
    assert.equal(isTwin, isAlike, hex);
    count[isTwin ? 'twins' : 'others']++;
    if (!isTwin) return;
    const { seq, ack, tcpWindow, payload, payloadBytes } = whole;
    const filled = Object.assign(new PacketView(), { seq, ack, tcpWindow, payload, payloadBytes });
    assert.deepEqual(views[0], filled, hex);
  });
  assert.ok(count.twins > 300 && count.others > 300, JSON.stringify(count));
});

test('parsePacket leaves nothing in the view of the frame before', async () => {
  const view = new PacketView();
  await fuzz(8_000, (dice) => {
    const frame = hostileFrame(dice, dice.chance(2));
    const fresh = new PacketView();
    const kind = parsePacket(frame, 0, frame.length, view);
    assert.equal(parsePacket(frame, 0, frame.length, fresh), kind);
    if (kind === PACKET.malformed) return;
    const { seq, ack, ...rest } = readable(view);
    const { seq: freshSeq, ack: freshAck, ...freshRest } = readable(fresh);
    // They are void in other protocols.
    if (kind === PACKET.tcp) assert.deepEqual([seq, ack], [freshSeq, freshAck]);
    if (view.ipVersion === 0) {
      rest.sourceAt = freshRest.sourceAt;
      rest.destinationAt = freshRest.destinationAt;
    }
    assert.deepEqual(rest, freshRest, frame.toString('hex'));
  });
});

test('the input filter accepts frames for the VM or for a group, and no frame from the VM', async () => {
  const filter = new InputFilter(VM_MAC);
  const vm = VM_MAC.replaceAll(':', '');
  await fuzz(5_000, (dice) => {
    const frame = hostileFrame(dice, dice.chance(2));
    const hex = frame.toString('hex');
    const forGroup = frame.length > 0 && (frame[0] & 1) === 1;
    const mine = hex.slice(0, 12) === vm;
    const echo = hex.slice(12, 24) === vm;
    const bytes = among(dice, frame);
    assert.equal(
      filter.accepts(bytes, AROUND, frame.length),
      frame.length >= 14 && !echo && (forGroup || mine),
      hex,
    );
  });
});

test('a partial checksum lies in its frame', async () => {
  await fuzz(5_000, (dice) => {
    const frame = Buffer.concat([dice.bytes(dice.roll(21)), hostileFrame(dice)]);
    const header = dice.roll(21);
    if (header > frame.length) return;
    const bytes = among(dice, frame);
    const at = partialChecksumAt(bytes, AROUND, frame.length, header);
    assert.ok(
      at === NONE || (at >= AROUND + header && at + 2 <= AROUND + frame.length),
      `${at} ${frame.toString('hex')}`,
    );
  });
});
