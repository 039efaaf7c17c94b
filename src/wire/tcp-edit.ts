/**
 * Changes the header of a TCP segment in place, together with the checksum that covers it (RFC 1624).
 *
 * `begin` parses the frame; the setters sum up what they change; `end` writes the checksum. A checksum that the network card is to
 * complete covers only the pseudo header so far (virtio-net.ts), which none of these changes.
 *
 * Limits: a signed segment (TCP MD5, TCP-AO) cannot be changed, nor a fragment; `begin` then returns false.
 */
import { NONE, type Seq } from '../units.ts';
import { readI32, readU16, writeI32, writeU16 } from './bytes.ts';
import { adjustChecksum, checksumChange32 } from './checksum.ts';
import { PACKET, PacketView, parseGsoPacket, parsePacket } from './packet.ts';
import {
  findTcpOption,
  findTimestamps,
  isSigned,
  TCP,
  TCP_OPTION,
  TCP_OPTION_LENGTH,
  TCP_SACK,
  TCP_TIMESTAMPS,
} from './tcp.ts';
import { isGso, partialChecksumAt } from './virtio-net.ts';

export class TcpEdit {
  readonly view = new PacketView();
  private bytes: Uint8Array = new Uint8Array(0);
  private checksum: 'complete' | 'partial' = 'complete';
  /** what the changes so far add to the checksum */
  private change = 0;

  /** `length` bytes at `at`, of which the first `headerBytes` are a virtio-net header. */
  begin(bytes: Uint8Array, at: number, length: number, headerBytes: number): boolean {
    const { view } = this;
    const parse = isGso(bytes, at, headerBytes) ? parseGsoPacket : parsePacket;
    if (parse(bytes, at + headerBytes, length - headerBytes, view) !== PACKET.tcp) return false;
    if (isSigned(bytes, this.options, view.payload)) return false;
    this.bytes = bytes;
    this.change = 0;
    this.checksum = partialChecksumAt(bytes, at, length, headerBytes) === NONE ? 'complete' : 'partial';
    return true;
  }

  setSeq(seq: Seq): void {
    this.set32(this.view.l4 + TCP.seq, seq);
  }

  setAck(ack: Seq): void {
    this.set32(this.view.l4 + TCP.ack, ack);
  }

  /** `window` as it stands in the header. */
  setWindow(window: number): void {
    const at = this.view.l4 + TCP.window;
    this.change += checksumChange32(readU16(this.bytes, at), window, TCP.window);
    writeU16(this.bytes, at, window);
  }

  /** Returns where the segment's own time (TSval) is, or NONE. */
  get timeAt(): number {
    const option = findTimestamps(this.bytes, this.options, this.view.payload);
    return option === NONE ? NONE : option + TCP_TIMESTAMPS.value;
  }

  /** `at` is `timeAt`. */
  time(at: number): number {
    return readI32(this.bytes, at);
  }

  setTime(at: number, time: number): void {
    this.set32(at, time);
  }

  /** Returns true if a SACK block ends after `ack`. */
  sackEndsAfter(ack: Seq): boolean {
    const sack = findTcpOption(this.bytes, this.options, this.view.payload, TCP_OPTION.sack);
    if (sack === NONE) return false;
    const end = sack + this.bytes[sack + TCP_OPTION_LENGTH];
    const step = 2 * TCP_SACK.edgeBytes;
    for (let block = sack + TCP_SACK.edges; block + step <= end; block += step)
      if (((readI32(this.bytes, block + TCP_SACK.edgeBytes) - ack) | 0) > 0) return true;
    return false;
  }

  /** Puts NOPs in place of the SACK blocks, if there are any. */
  dropSack(): void {
    const { bytes } = this;
    const { l4, payload } = this.view;
    const sack = findTcpOption(bytes, this.options, payload, TCP_OPTION.sack);
    if (sack === NONE) return;
    const end = sack + bytes[sack + TCP_OPTION_LENGTH];
    for (let at = sack; at < end; at++) {
      const shift = ((at - l4) & 1) === 0 ? 8 : 0;
      this.change += checksumChange32(bytes[at] << shift, TCP_OPTION.nop << shift, 0);
      bytes[at] = TCP_OPTION.nop;
    }
  }

  end(): void {
    const at = this.view.l4 + TCP.checksum;
    if (this.change === 0 || this.checksum === 'partial') return;
    writeU16(this.bytes, at, adjustChecksum(readU16(this.bytes, at), this.change));
  }

  private get options(): number {
    return this.view.l4 + TCP.headerBytesMin;
  }

  private set32(at: number, value: number): void {
    this.change += checksumChange32(readI32(this.bytes, at), value, at - this.view.l4);
    writeI32(this.bytes, at, value);
  }
}
