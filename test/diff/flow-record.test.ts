import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlowRecord, isAhead, isBareAck, type StoredFrame } from '../../src/diff/flow-record.ts';
import { FLOW_KEY_WORDS } from '../../src/flow/key.ts';
import { NO_SLAB } from '../../src/frames/slabs.ts';
import type { Instant } from '../../src/units.ts';
import { ACK, FIN, RST, SYN } from '../frames.ts';

const record = (tcp = true): FlowRecord => new FlowRecord(1, new Int32Array(FLOW_KEY_WORDS), tcp);
const frame = (flow: FlowRecord, rest: Partial<StoredFrame>): StoredFrame => ({
  flow,
  number: 1,
  fileMs: 0,
  sentMs: 0 as Instant,
  sinceMs: 0 as Instant,
  slab: NO_SLAB,
  at: 0,
  length: 0,
  index: 0,
  bytes: null,
  seq: 0,
  seqEnd: 0,
  ack: 0,
  flags: ACK,
  payload: 0,
  payloadBytes: 0,
  hash: 0,
  ordinal: 0,
  trimmed: 0,
  origin: 'recorded',
  original: null,
  blamed: false,
  finding: null,
  ...rest,
});

test('places in a stream count on where sequence numbers wrap, every time', () => {
  const flow = record();
  flow.begin(0xffff_ff00 | 0);
  for (let sent = 0; sent <= 10 * 2 ** 30; sent += 2 ** 30) flow.pass((0xffff_ff00 + sent) | 0);
  assert.equal(flow.placeOf((0xffff_ff00 + 10 * 2 ** 30 + 5) | 0), 10 * 2 ** 30 + 5);
  // A retransmission lies before.
  flow.pass(0);
  assert.equal(flow.placeOf((0xffff_ff00 + 10 * 2 ** 30 - 7) | 0), 10 * 2 ** 30 - 7);
});

test('a stream without a SYN begins with the first byte seen', () => {
  const flow = record();
  flow.pass(5000);
  assert.equal(flow.placeOf(5010), 10);
});

test('a segment with nothing but an ACK is a bare ACK', () => {
  const flow = record();
  assert.deepEqual(
    [ACK, ACK | FIN, ACK | SYN, RST].map((flags) => isBareAck(frame(flow, { flags }))),
    [true, false, false, false],
  );
  assert.equal(isBareAck(frame(flow, { payloadBytes: 1 })), false);
  assert.equal(isBareAck(frame(record(false), {})), false);
});

test('an SVM frame is ahead if it has more than an ACK that the PVM has not sent', () => {
  const flow = record();
  assert.equal(isAhead(frame(flow, { seqEnd: 100 })), true);
  flow.primaryEnd = 100;
  assert.equal(isAhead(frame(flow, { seqEnd: 100 })), false);
  assert.equal(isAhead(frame(flow, { seqEnd: 101 })), true);
  assert.equal(isAhead(frame(flow, { seqEnd: 100, flags: RST })), true);
  assert.equal(isAhead(frame(record(false), {})), true);
});
