/**
 * The receiving half of a TCP connection: what has arrived, the window that the peer was promised, and when to
 * acknowledge. A promised window is never taken back.
 */
import { ByteQueue } from './byte-queue.ts';
import type { MachinePort } from './machine.ts';
import { Reassembly } from './reassembly.ts';
import { FIN, type Segment } from './segment.ts';
import type { Archive } from './state.ts';
import type { TcpOptions } from './tcp-options.ts';

const NEVER = Number.POSITIVE_INFINITY;
const NO_BLOCKS: readonly number[] = [];

export class TcpReceiver {
  /** Received in order and not yet read by the application. */
  readonly input = new ByteQueue();
  /** The next sequence number that is expected (RCV.NXT). */
  received = 0;
  /** The peer's FIN was reached: what is in `input` is the last. */
  finished = false;
  /** An ACK is due now. */
  ackNow = false;
  /** When a delayed ACK is due. */
  ackAt = NEVER;
  /** The number of the last ACK. */
  lastAck = 0;
  private readonly host: { readonly port: MachinePort; readonly tcp: TcpOptions };
  /** The window's right edge as last announced. */
  private edge = 0;
  private readonly pieces = new Reassembly();
  private finSeq: number | null = null;
  private unackedSegments = 0;

  constructor(host: { readonly port: MachinePort; readonly tcp: TcpOptions }) {
    this.host = host;
  }

  archive(a: Archive): void {
    this.received = a.number(this.received);
    this.edge = a.number(this.edge);
    this.input.archive(a);
    this.pieces.archive(a);
    const hasFin = a.flag(this.finSeq !== null);
    const finSeq = a.number(this.finSeq ?? 0);
    this.finSeq = hasFin ? finSeq : null;
    this.finished = a.flag(this.finished);
    this.ackNow = a.flag(this.ackNow);
    this.ackAt = a.number(this.ackAt);
    this.unackedSegments = a.number(this.unackedSegments);
    this.lastAck = a.number(this.lastAck);
  }

  /** The peer's SYN came. */
  begin(s: Segment): void {
    this.received = (s.seq + 1) | 0;
    this.edge = this.received;
  }

  /** RFC 9293 section 3.10.7.4, first check. A FIN may come into a full window, at its very edge. */
  inWindow(s: Segment): boolean {
    const length = s.payloadBytes + ((s.flags & FIN) !== 0 ? 1 : 0);
    const edge = Math.max((this.edge - this.received) | 0, (s.flags & FIN) !== 0 ? 1 : 0);
    const first = (s.seq - this.received) | 0;
    if (length === 0) return edge === 0 ? first === 0 : first >= 0 && first < edge;
    return first < edge && first + length > 0;
  }

  /** Takes the data of a segment in the window. Returns true if the stream has just come to its end. */
  take(s: Segment): boolean {
    const fin = (s.flags & FIN) !== 0;
    if (this.finished) {
      // A repetition: its acknowledgement was lost.
      if (s.payloadBytes > 0 || fin) this.ackNow = true;
      return false;
    }
    if (fin) this.finSeq ??= (s.seq + s.payloadBytes) | 0;
    this.takeData(s);
    if (this.finSeq !== this.received) {
      if (fin) this.ackNow = true;
      return false;
    }
    this.finished = true;
    this.received = (this.received + 1) | 0;
    this.ackNow = true;
    return true;
  }

  private takeData(s: Segment): void {
    const { tcp } = this.host;
    const skip = Math.max((this.received - s.seq) | 0, 0);
    const seq = (s.seq + skip) | 0;
    const room = tcp.receiveBufferBytes - this.input.length - ((seq - this.received) | 0);
    const length = Math.min(s.payloadBytes - skip, room);
    if (length <= 0) {
      if (s.payloadBytes > 0) this.ackNow = true;
      return;
    }
    const from = s.payloadAt + skip;
    if (seq !== this.received) {
      if (tcp.keepsOutOfOrder) this.pieces.add(seq, s.frame.slice(from, from + length));
      this.ackNow = true;
      return;
    }
    this.input.push(s.frame, from, length);
    this.received = (this.received + length) | 0;
    this.unackedSegments += 1;
    if (!this.pieces.isEmpty) {
      this.ackNow = true;
      this.received = this.pieces.moveTo(this.input, this.received, tcp.receiveBufferBytes);
    } else if (this.unackedSegments >= tcp.ackEvery) this.ackNow = true;
    else this.delayAck();
  }

  private delayAck(): void {
    const { port, tcp } = this.host;
    const spread = tcp.ackDelayMsMax - tcp.ackDelayMsMin;
    const delayMs = tcp.ackDelayMsMin + (spread > 0 ? port.random() * spread : 0);
    this.ackAt = Math.min(this.ackAt, port.now() + delayMs);
  }

  /** The application has read. A window that grew by enough is announced (RFC 9293 section 3.8.6.2.2). */
  consume(bytes: number, mss: number): void {
    this.input.drop(bytes);
    const growth = this.windowEdge() - this.edge;
    if (growth >= Math.min(2 * mss, this.host.tcp.receiveBufferBytes / 2)) this.ackNow = true;
  }

  /** Notes that an ACK is sent. Returns its window, whose edge moves if it can move by at least `growthMin`. */
  acknowledge(growthMin: number): number {
    const edge = this.windowEdge();
    if (((edge - this.edge) | 0) >= growthMin) this.edge = edge;
    this.lastAck = this.received;
    this.ackNow = false;
    this.ackAt = NEVER;
    this.unackedSegments = 0;
    return (this.edge - this.received) | 0;
  }

  sackBlocks(): readonly number[] {
    return this.pieces.isEmpty ? NO_BLOCKS : this.pieces.sackBlocks();
  }

  private windowEdge(): number {
    const free = this.host.tcp.receiveBufferBytes - this.input.length;
    return (this.received + Math.max(free, 0)) | 0;
  }
}
