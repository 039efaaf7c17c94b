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
    const { l4 } = this.view;
    const isVm = this.sender === SENDER.vm;
    let change = isVm
      ? this.shiftSent(bytes, l4, seqDelta, tsDelta)
      : this.shiftReturned(bytes, l4, seqDelta, tsDelta);
    if (port !== NONE) {
      const portAt = l4 + (isVm ? TCP.sourcePort : TCP.destinationPort);
      change += checksumChange32(readU16(bytes, portAt), port, 0);
      writeU16(bytes, portAt, port);
    }
    if (change !== 0) this.adjustChecksums(bytes, change);
  }

  /** Adds to the numbers that the VM sent. Returns the change of the checksum. */
  private shiftSent(bytes: Uint8Array, l4: number, seqDelta: number, tsDelta: number): number {
    const change = seqDelta === 0 ? 0 : this.addTo(bytes, l4 + TCP.seq, seqDelta);
    const option = tsDelta === 0 ? NONE : this.timestamps(bytes);
    return option === NONE ? change : change + this.addTo(bytes, option + TCP_TIMESTAMPS.value, tsDelta);
  }

  /** Adds to the VM's numbers that a client returns, if they are valid. Returns the change of the checksum. */
  private shiftReturned(bytes: Uint8Array, l4: number, seqDelta: number, tsDelta: number): number {
    if ((seqDelta | tsDelta) === 0 || !this.acknowledges(bytes)) return 0;
    let change = 0;
    if (seqDelta !== 0) {
      change = this.addTo(bytes, l4 + TCP.ack, seqDelta);
      if (!this.hasOnlyTimestamps(bytes)) change += this.shiftSack(bytes, seqDelta);
    }
    const option = tsDelta === 0 ? NONE : this.timestamps(bytes);
    return option === NONE ? change : change + this.addTo(bytes, option + TCP_TIMESTAMPS.echo, tsDelta);
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

  /** Returns true for the options of nearly every segment, which need no search for SACK blocks. */
  private hasOnlyTimestamps(bytes: Uint8Array): boolean {
    const { l4, payload } = this.view;
    return payload === l4 + TCP.headerBytesMin + TIMESTAMPS_BYTES && this.timestamps(bytes) !== NONE;
  }

  /** Adds to the edges of all SACK blocks. Returns the change of the checksum. */
  private shiftSack(bytes: Uint8Array, delta: number): number {
    const { l4, payload } = this.view;
    const sack = findTcpOption(bytes, l4 + TCP.headerBytesMin, payload, TCP_OPTION.sack);
    if (sack === NONE) return 0;
    const end = sack + bytes[sack + TCP_OPTION_LENGTH];
    let change = 0;
    for (let edge = sack + TCP_SACK.edges; edge + TCP_SACK.edgeBytes <= end; edge += TCP_SACK.edgeBytes)
      change += this.addTo(bytes, edge, delta);
    return change;
  }

  /** Adds to the number at `at` if all of it is there. Returns the change of the checksum. */
  private addTo(bytes: Uint8Array, at: number, delta: number): number {
    const { l4, end } = this.view;
    if (at + 4 > end) return 0;
    const before = readI32(bytes, at);
    const after = (before + delta) | 0;
    writeI32(bytes, at, after);
    return checksumChange32(before, after, at - l4);
  }

  private adjustChecksums(bytes: Uint8Array, change: number): void {
    const { frame } = this;
    const checksumAt = this.view.l4 + TCP.checksum;
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
