/**
 * A TCP segment in a frame: the VM's numbers in it can be rewritten in place, together with the checksums that cover them
 * (RFC 1624).
 *
 * The VM's numbers are what the VM counts in, whoever sent the segment: in a segment of the VM the sequence number, TSval and
 * source port; in a segment of a client the acknowledgement, SACK blocks, TSecr and destination port.
 *
 * The segment is the frame's own, or the one that an ICMP error quotes. The error was sent by the receiver of the segment that
 * it quotes, and its checksum covers the quote. A field of a quoted segment therefore changes two checksums, and the
 * segment's own checksum, a field of the quote, changes the error's once more.
 *
 * A Segment is reused from frame to frame; what it holds is void as soon as the next frame is parsed into it. Differences are
 * int32, modulo 2^32.
 *
 * Limits: a quote may end anywhere after the ports. A field or an option that the quote cuts off stays as it is, because
 * no receiver can use half of it.
 */
import { writeInputKey, writeOutputKey } from '../flow/key.ts';
import { NONE } from '../units.ts';
import { readI32, readU16, writeI32, writeU16 } from '../wire/bytes.ts';
import { adjustChecksum, checksumChange32 } from '../wire/checksum.ts';
import { viewFirstFragment } from '../wire/first-fragment.ts';
import { ICMP } from '../wire/icmp.ts';
import { viewQuote } from '../wire/icmp-quote.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import {
  findTcpOption,
  findTimestamps,
  TCP,
  TCP_ACK,
  TCP_OPTION,
  TCP_OPTION_LENGTH,
  TCP_SACK,
  TCP_TIMESTAMPS,
} from '../wire/tcp.ts';

/** Who sent a segment. */
export const SENDER = { vm: 0, client: 1 } as const;
export type Sender = (typeof SENDER)[keyof typeof SENDER];

const NOT_SEARCHED = -2;
/** The timestamps option with its padding: no other option but NOPs fits beside it. */
const TIMESTAMPS_BYTES = 12;

export class Segment {
  readonly view = new PacketView();
  sender: Sender = SENDER.vm;
  /** the frame that quotes the segment; null if the segment is the frame's own */
  private readonly frame: Segment | null;
  /** offset of the timestamps option, NONE, or NOT_SEARCHED */
  private timestampsAt: number = NOT_SEARCHED;

  constructor(frame: Segment | null) {
    this.frame = frame;
  }

  /** Parses a frame. Returns true if it is a TCP segment or the first fragment of one; `view` is set in any case. */
  parse(bytes: Uint8Array, at: number, length: number, sender: Sender): boolean {
    this.sender = sender;
    this.timestampsAt = NOT_SEARCHED;
    const kind = parsePacket(bytes, at, length, this.view);
    return kind === PACKET.tcp || (kind === PACKET.otherIp && viewFirstFragment(bytes, this.view));
  }

  /** Returns true if the frame, which has been parsed, is an ICMP error that quotes a TCP segment. */
  parseQuote(bytes: Uint8Array): boolean {
    const { frame } = this;
    if (frame === null || !viewQuote(bytes, frame.view, this.view)) return false;
    this.sender = frame.sender === SENDER.vm ? SENDER.client : SENDER.vm;
    this.timestampsAt = NOT_SEARCHED;
    return true;
  }

  /** Writes the flow key of the segment. */
  writeKey(bytes: Uint8Array, key: Int32Array): void {
    if (this.sender === SENDER.vm) writeOutputKey(bytes, this.view, key);
    else writeInputKey(bytes, this.view, key);
  }

  /** Returns the offset of the timestamps option, or NONE. */
  timestamps(bytes: Uint8Array): number {
    if (this.timestampsAt === NOT_SEARCHED) this.findTimestamps(bytes);
    return this.timestampsAt;
  }

  /**
   * Adds to the VM's sequence numbers and times, and replaces its port unless `port` is NONE. Numbers that a client returns
   * are left alone if they are not valid.
   */
  rewrite(bytes: Uint8Array, seqDelta: number, tsDelta: number, port: number): void {
    if ((seqDelta | tsDelta) === 0 && port === NONE) return;
    if (this.sender === SENDER.vm) this.rewriteSent(bytes, seqDelta, tsDelta, port);
    else this.rewriteReturned(bytes, seqDelta, tsDelta, port);
  }

  private rewriteSent(bytes: Uint8Array, seqDelta: number, tsDelta: number, port: number): void {
    const { l4, end } = this.view;
    let change = 0;
    if (seqDelta !== 0 && l4 + TCP.seq + 4 <= end) change = addTo(bytes, l4, TCP.seq, seqDelta);
    const option = tsDelta === 0 ? NONE : this.timestamps(bytes);
    if (option !== NONE) change += addTo(bytes, l4, option + TCP_TIMESTAMPS.value - l4, tsDelta);
    if (port !== NONE) change += replacePort(bytes, l4 + TCP.sourcePort, port);
    this.adjustChecksums(bytes, change);
  }

  private rewriteReturned(bytes: Uint8Array, seqDelta: number, tsDelta: number, port: number): void {
    const { l4 } = this.view;
    let change = 0;
    if (this.acknowledges(bytes)) {
      const option = this.timestamps(bytes);
      if (seqDelta !== 0) {
        change = addTo(bytes, l4, TCP.ack, seqDelta);
        if (option === NONE || !this.hasOnlyTimestamps) change += this.shiftSack(bytes, seqDelta);
      }
      if (tsDelta !== 0 && option !== NONE)
        change += addTo(bytes, l4, option + TCP_TIMESTAMPS.echo - l4, tsDelta);
    }
    if (port !== NONE) change += replacePort(bytes, l4 + TCP.destinationPort, port);
    this.adjustChecksums(bytes, change);
  }

  private findTimestamps(bytes: Uint8Array): void {
    const { l4, payload } = this.view;
    this.timestampsAt = findTimestamps(bytes, l4 + TCP.headerBytesMin, payload);
  }

  /**
   * Returns true if the acknowledgement number is valid. The flags come after it, and a quote may end in between: then a
   * number other than 0 counts as valid, because a stack leaves the field of its first SYN zero.
   */
  private acknowledges(bytes: Uint8Array): boolean {
    const { l4, end } = this.view;
    if (l4 + TCP.flags < end) return (bytes[l4 + TCP.flags] & TCP_ACK) !== 0;
    return l4 + TCP.ack + 4 <= end && readI32(bytes, l4 + TCP.ack) !== 0;
  }

  /** Returns true if the options are full with timestamps, as those of nearly every segment: there are no SACK blocks. */
  private get hasOnlyTimestamps(): boolean {
    return this.view.payload === this.view.l4 + TCP.headerBytesMin + TIMESTAMPS_BYTES;
  }

  /** Adds to the edges of all SACK blocks. Returns the change of the checksum. */
  private shiftSack(bytes: Uint8Array, delta: number): number {
    const { l4, payload } = this.view;
    const sack = findTcpOption(bytes, l4 + TCP.headerBytesMin, payload, TCP_OPTION.sack);
    if (sack === NONE) return 0;
    const end = sack + bytes[sack + TCP_OPTION_LENGTH];
    let change = 0;
    for (let edge = sack + TCP_SACK.edges; edge + TCP_SACK.edgeBytes <= end; edge += TCP_SACK.edgeBytes)
      change += addTo(bytes, l4, edge - l4, delta);
    return change;
  }

  /** `change` is the sum of what all fields that changed add to a checksum. */
  private adjustChecksums(bytes: Uint8Array, change: number): void {
    const { frame } = this;
    const checksumAt = this.view.l4 + TCP.checksum;
    if (change === 0) return;
    if (frame !== null) this.adjustQuoteChecksums(bytes, checksumAt, frame.view.l4 + ICMP.checksum, change);
    else writeU16(bytes, checksumAt, adjustChecksum(readU16(bytes, checksumAt), change));
  }

  /** The headers between the error's and a quoted segment are whole words: an offset is odd in both ranges or in none. */
  private adjustQuoteChecksums(bytes: Uint8Array, checksumAt: number, errorAt: number, change: number): void {
    let errorChange = change;
    if (checksumAt + 2 <= this.view.end) {
      const before = readU16(bytes, checksumAt);
      const after = adjustChecksum(before, change);
      writeU16(bytes, checksumAt, after);
      errorChange += checksumChange32(before, after, TCP.checksum);
    }
    writeU16(bytes, errorAt, adjustChecksum(readU16(bytes, errorAt), errorChange));
  }
}

/** Adds to the number at `offset` of the segment at `l4`. Returns the change of the checksum. */
function addTo(bytes: Uint8Array, l4: number, offset: number, delta: number): number {
  const before = readI32(bytes, l4 + offset);
  const after = (before + delta) | 0;
  writeI32(bytes, l4 + offset, after);
  return checksumChange32(before, after, offset);
}

/** Replaces the port at `at`, an even offset of the segment. Returns the change of the checksum. */
function replacePort(bytes: Uint8Array, at: number, port: number): number {
  const before = readU16(bytes, at);
  writeU16(bytes, at, port);
  return checksumChange32(before, port, TCP.sourcePort);
}
