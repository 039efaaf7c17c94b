import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Seq } from '../../src/units.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { cutSegment } from '../../src/wire/tcp-cut.ts';
import { TcpEdit } from '../../src/wire/tcp-edit.ts';
import { ACK, FIN, PSH, padded, sack, type Tag, tcpFrame, timestamps } from '../frames.ts';

/** RFC 3168: the receiver of the segment needs to hear ECE in an ACK, too; CWR belongs to data. */
const ECE = 0x40;
const CWR = 0x80;
const AT = 7;
/** A virtio-net header before the frame: its checksum is complete, or only begun. */
const HEADER_BYTES = { none: 0, complete: 12, partial: 12 };

const segment = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  tags: fc.constantFrom<Tag[][]>([], [{ id: 5 }], [{ id: 5 }, { id: 6 }]),
  seq: fc.nat(),
  ack: fc.nat(),
  window: fc.integer({ min: 0, max: 0xffff }),
  flags: fc.constantFrom(ACK, ACK | PSH, ACK | FIN, ACK | ECE, ACK | ECE | CWR | PSH),
  options: fc.constantFrom([], padded(timestamps(7, 8)), padded([1, ...sack([[5, 9]])])),
  payload: fc.uint8Array({ maxLength: 60 }),
});

function placed(frame: Buffer, header: keyof typeof HEADER_BYTES): { bytes: Buffer; view: PacketView } {
  const headerBytes = HEADER_BYTES[header];
  const bytes = Buffer.alloc(AT + headerBytes + frame.length);
  frame.copy(bytes, AT + headerBytes);
  const view = new PacketView();
  parsePacket(bytes, AT + headerBytes, frame.length, view);
  if (header !== 'partial') return { bytes, view };
  bytes[AT] = 1;
  bytes.writeUInt16LE(view.l4 - AT - headerBytes, AT + 6);
  bytes.writeUInt16LE(16, AT + 8);
  bytes.writeUInt16BE(pseudoSum(bytes, view), view.l4 + 16);
  return { bytes, view };
}

/** What the sender leaves in the field if the network card completes the checksum: the sum of the pseudo header. */
function pseudoSum(bytes: Buffer, { ipVersion, sourceAt, l4, end }: PacketView): number {
  let sum = 6 + end - l4;
  for (let i = 0; i < (ipVersion === 4 ? 8 : 32); i += 2) sum += bytes.readUInt16BE(sourceAt + i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

for (const header of Object.keys(HEADER_BYTES) as (keyof typeof HEADER_BYTES)[]) {
  test(`a segment that is cut is the one that was never longer: virtio-net header ${header}`, () => {
    fc.assert(
      fc.property(segment, fc.nat(60), (whole, bytesMax) => {
        const payloadBytes = Math.min(bytesMax, whole.payload.length);
        const flags = whole.flags & (payloadBytes === 0 ? ACK | ECE : ~FIN);
        const { bytes, view } = placed(tcpFrame(whole), header);
        const headerBytes = HEADER_BYTES[header];
        const target = Buffer.alloc(300);
        const length = cutSegment({ bytes, at: AT, headerBytes, view }, payloadBytes, target, 20);
        const shorter = tcpFrame({ ...whole, flags, payload: whole.payload.subarray(0, payloadBytes) });
        const expected = placed(shorter, header).bytes.subarray(AT);
        assert.equal(target.subarray(20, 20 + length).toString('hex'), expected.toString('hex'));
      }),
    );
  });

  test(`an edited segment is the one that was sent so: virtio-net header ${header}`, () => {
    fc.assert(
      fc.property(segment, fc.nat(), fc.nat(), fc.nat(0xffff), (before, seq, ack, window) => {
        const { bytes } = placed(tcpFrame(before), header);
        const edit = new TcpEdit();
        assert.ok(edit.begin(bytes, AT, bytes.length - AT, HEADER_BYTES[header]));
        edit.setSeq(seq as Seq);
        edit.setAck(ack as Seq);
        edit.setWindow(window);
        if (edit.timeAt >= 0) edit.setTime(edit.timeAt, 99);
        edit.dropSack();
        edit.end();
        const hasTime = before.options[2] === 8 || before.options[0] === 8;
        const options = hasTime ? padded(timestamps(99, 8)) : before.options.map(() => 1);
        const expected = placed(tcpFrame({ ...before, seq, ack, window, options }), header).bytes;
        assert.equal(bytes.toString('hex'), expected.toString('hex'));
      }),
    );
  });
}

test('a GSO frame that is cut to one segment is not cut again', () => {
  const { bytes, view } = placed(tcpFrame({ seq: 1, ack: 1, payload: new Uint8Array(60) }), 'complete');
  bytes[AT + 1] = 1;
  bytes.writeUInt16LE(20, AT + 4);
  const target = Buffer.alloc(200);
  for (const [payloadBytes, gso] of [
    [40, 1],
    [20, 0],
    [0, 0],
  ]) {
    cutSegment({ bytes, at: AT, headerBytes: 12, view }, payloadBytes, target, 0);
    assert.equal(target[1], gso);
  }
});
