/** Pairs of frames that are nearly twins; test/fuzz/parse.test.ts has random ones. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import { parseQuickTwin } from '../../src/wire/quick-tcp.ts';
import { paddingExtension, type TcpSegment, tcpFrame } from '../frames.ts';

const IP_AT = 14;
const VERSION_AND_LENGTH = 0x45;
const EXTENSION_BYTES = 8;
const TCP_PROTOCOL = 6;

function isTwin(frame: Buffer, twinFrame: Buffer): boolean {
  const view = new PacketView();
  assert.equal(parsePacket(twinFrame, 0, twinFrame.length, view), PACKET.tcp);
  const dataView = (bytes: Buffer) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return parseQuickTwin(dataView(frame), 0, frame.length, dataView(twinFrame), view, new PacketView());
}

function segment(of: Partial<TcpSegment>): Buffer {
  return tcpFrame({ version: 4, seq: 5, ack: 6, payload: Buffer.from('hello'), ...of });
}

test('two segments that differ in ACK and window are twins', () => {
  for (const version of [4, 6] as const)
    assert.ok(isTwin(segment({ version }), segment({ version, ack: 7, window: 9 })));
});

test('of two segments of one flow one is tagged: no twins', () => {
  const twin = segment({ tags: [{ id: 5 }] });
  assert.equal(isTwin(segment({}), twin), false);
  assert.equal(isTwin(twin, segment({})), false);
});

test('the bytes of a segment with IP options, without the length of them: no twin', () => {
  const twin = segment({ ipOptions: [1, 1, 1, 1] });
  const frame = Buffer.from(twin);
  frame[IP_AT] = VERSION_AND_LENGTH;
  assert.equal(isTwin(frame, twin), false);
});

test('the bytes of a segment behind an extension header, without a word about it: no twin', () => {
  const twin = segment({ version: 6, extensions: [paddingExtension(0)] });
  const frame = Buffer.from(twin);
  frame.writeUInt16BE(twin.readUInt16BE(IP_AT + 4) - EXTENSION_BYTES, IP_AT + 4);
  frame[IP_AT + 6] = TCP_PROTOCOL;
  assert.equal(isTwin(frame, twin), false);
});

test('an IPv4 header as long as that of IPv6, with its addresses, is no twin', () => {
  const twin = segment({ ipOptions: Array(20).fill(1) });
  const segmentBytes = twin.length - IP_AT - 40;
  const ipv6 = Buffer.from([0x60, 0, 0, 0, 0, segmentBytes, 6, 64]);
  const ethernet = Buffer.concat([twin.subarray(0, 12), Buffer.from([0x86, 0xdd])]);
  const frame = Buffer.concat([ethernet, ipv6, twin.subarray(IP_AT + 8)]);
  assert.equal(parsePacket(frame, 0, frame.length, new PacketView()), PACKET.tcp);
  assert.equal(isTwin(frame, twin), false);
});
