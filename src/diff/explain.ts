/** Where two frames differ, and the bytes around the difference. */
import {
  type Difference,
  type FrameBytes,
  payloadDifference,
  streamDifference,
} from '../divergence/difference.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';

/** The bytes around a difference; `offset` is their place in the frame's payload. */
export type Excerpt = { offset: number; hex: string };

const BEFORE_BYTES = 8;
const EXCERPT_BYTES = 32;

/** As `streamDifference`, of two frames. */
export function firstStreamDifference(primary: FrameBytes, secondary: FrameBytes): Difference | null {
  return streamDifference(parsed(primary), parsed(secondary));
}

/** As `payloadDifference`, of two frames. */
export function firstPayloadDifference(primary: FrameBytes, secondary: FrameBytes): Difference {
  return payloadDifference(parsed(primary), parsed(secondary));
}

/** Returns up to EXCERPT_BYTES of the payload, from BEFORE_BYTES before `payloadOffset` on. */
export function excerptOf(frame: FrameBytes, payloadOffset: number): Excerpt {
  const view = viewOf(frame);
  const offset = Math.max(0, Math.min(payloadOffset - BEFORE_BYTES, view.payloadBytes));
  const from = view.payload + offset;
  const to = Math.min(from + EXCERPT_BYTES, view.payload + view.payloadBytes);
  return { offset, hex: Buffer.from(frame.bytes.subarray(from, to)).toString('hex') };
}

const FLAG_NAMES = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG'];

/** Returns the flags of a TCP segment, as in "SYN ACK"; null for other frames. */
export function flagsOf(frame: FrameBytes): string | null {
  const view = viewOf(frame);
  if (view.kind !== PACKET.tcp) return null;
  return FLAG_NAMES.filter((_, bit) => (view.tcpFlags & (1 << bit)) !== 0).join(' ');
}

function parsed(frame: FrameBytes): { bytes: Uint8Array; view: PacketView } {
  return { bytes: frame.bytes, view: viewOf(frame) };
}

function viewOf({ bytes, at, length }: FrameBytes): PacketView {
  const view = new PacketView();
  parsePacket(bytes, at, length, view);
  return view;
}
