/**
 * One TCP connection (RFC 9293), for simulated guests and clients.
 *
 * It is honest: it acknowledges only what it has, never sends other bytes at a place of the stream than before, and
 * never takes a window back. It follows the rules that a receiver can rely on: congestion control with fast retransmit
 * (congestion.ts), a measured timeout (round-trip.ts), reassembly and SACK (tcp-receiver.ts), RFC 7323 timestamps with
 * PAWS, RFC 5961 answers to RST and SYN. It is free where TCP is free: initial sequence number, segmentation, when to
 * acknowledge. There each machine draws from its own die, so two machines of equal state differ on the wire.
 *
 * All of it is state that can be archived: buffers, numbers, timers as absolute times. Left out: keepalive, window
 * scaling, urgent data, Nagle.
 *
 * `Stack` notifies the application that something changed. The application then looks at `input`, `room`, `finished`
 * and `closed`.
 */
import { ByteQueue } from './byte-queue.ts';
import { Congestion } from './congestion.ts';
import type { MachinePort } from './machine.ts';
import { type Address, put16 } from './packets.ts';
import { RoundTrip } from './round-trip.ts';
import { ACK, FIN, type Header, headerBytesOf, PSH, RST, type Segment, SYN, writeHeader } from './segment.ts';
import type { Archive } from './state.ts';
import type { TcpCounters, TcpOptions } from './tcp-options.ts';
import { TcpReceiver } from './tcp-receiver.ts';

export const TCP_STATE = {
  closed: 0,
  synSent: 1,
  synReceived: 2,
  established: 3,
  finWait1: 4,
  finWait2: 5,
  closing: 6,
  timeWait: 7,
  closeWait: 8,
  lastAck: 9,
} as const;
export type TcpState = (typeof TCP_STATE)[keyof typeof TCP_STATE];

/** Both ends have sent all and closed: an RST only ends the connection (RFC 9293 section 3.10.7.4), it breaks nothing. */
function hasBothFins(state: TcpState): boolean {
  return state === TCP_STATE.closing || state === TCP_STATE.lastAck || state === TCP_STATE.timeWait;
}

/** What a connection needs of its stack. */
export interface TcpHost {
  readonly port: MachinePort;
  readonly tcp: TcpOptions;
  readonly counters: TcpCounters;
  /** Returns a frame that ends with `bytes` zero bytes, for the TCP segment. */
  tcpFrame(connection: TcpConnection, bytes: number): Uint8Array;
  transmit(connection: TcpConnection, frame: Uint8Array): void;
  /** The connection has output, or something to notify its application of. */
  touch(connection: TcpConnection): void;
}

const NEVER = Number.POSITIVE_INFINITY;
const MSS_DEFAULT = 536;
const INVALID_EVERY_MS = 500;
const TIMESTAMPS_BYTES = 12;
const NO_BLOCKS: readonly number[] = [];

export class TcpConnection {
  id = 0;
  local: Address = new Uint8Array(4);
  remote: Address = new Uint8Array(4);
  localPort = 0;
  remotePort = 0;
  /** This side opened it. */
  active = false;
  state: TcpState = TCP_STATE.closed;
  /** Why it is closed; empty if both sides closed it in order. */
  error = '';
  /** `close` was called. */
  closing = false;
  /** Its archive, if it was not touched since; the stack's. */
  archived: Uint8Array | null = null;
  private readonly host: TcpHost;

  private iss = 0;
  private una = 0;
  private next = 0;
  /** The end of everything that was ever sent. */
  private max = 0;
  private sendWindow = 0;
  private windowSeq = 0;
  private windowAck = 0;
  private windowMax = 0;
  private readonly out = new ByteQueue();
  private finAcked = false;
  private mss = MSS_DEFAULT;
  private readonly congestion = new Congestion();
  private readonly roundTrip = new RoundTrip();
  private rtoAt = NEVER;
  private retries = 0;
  /** When the segment that is being timed was sent, and its end; NEVER if none is. */
  private timedAt = NEVER;
  private timedSeq = 0;
  private probeAt = NEVER;
  private probeMs = 0;

  private readonly receiver: TcpReceiver;
  private timestamps = false;
  private tsOffset = 0;
  private tsRecent = 0;
  private sack = false;
  private timeWaitAt = NEVER;
  /** When an invalid segment without data was last answered. */
  private invalidAt = -NEVER;

  constructor(host: TcpHost) {
    this.host = host;
    this.receiver = new TcpReceiver(host);
  }

  archive(a: Archive): void {
    this.id = a.number(this.id);
    this.local = a.bytes(this.local);
    this.remote = a.bytes(this.remote);
    this.localPort = a.number(this.localPort);
    this.remotePort = a.number(this.remotePort);
    this.active = a.flag(this.active);
    this.state = a.number(this.state) as TcpState;
    this.error = a.text(this.error);
    this.iss = a.number(this.iss);
    this.una = a.number(this.una);
    this.next = a.number(this.next);
    this.max = a.number(this.max);
    this.sendWindow = a.number(this.sendWindow);
    this.windowSeq = a.number(this.windowSeq);
    this.windowAck = a.number(this.windowAck);
    this.windowMax = a.number(this.windowMax);
    this.out.archive(a);
    this.closing = a.flag(this.closing);
    this.finAcked = a.flag(this.finAcked);
    this.mss = a.number(this.mss);
    this.congestion.archive(a);
    this.roundTrip.archive(a);
    this.rtoAt = a.number(this.rtoAt);
    this.retries = a.number(this.retries);
    this.timedAt = a.number(this.timedAt);
    this.timedSeq = a.number(this.timedSeq);
    this.probeAt = a.number(this.probeAt);
    this.probeMs = a.number(this.probeMs);
    this.receiver.archive(a);
    this.timestamps = a.flag(this.timestamps);
    this.tsOffset = a.number(this.tsOffset);
    this.tsRecent = a.number(this.tsRecent);
    this.sack = a.flag(this.sack);
    this.timeWaitAt = a.number(this.timeWaitAt);
    this.invalidAt = a.number(this.invalidAt);
  }

  // --- for the application -------------------------------------------------------------------------------------

  get established(): boolean {
    return this.state >= TCP_STATE.established;
  }

  get closed(): boolean {
    return this.state === TCP_STATE.closed;
  }

  /** Both sides are done, though the last acknowledgement may have to be repeated. */
  get over(): boolean {
    return this.state === TCP_STATE.closed || this.state === TCP_STATE.timeWait;
  }

  /** The peer has closed its side: what is in `input` is the last. */
  get finished(): boolean {
    return this.receiver.finished;
  }

  /** Received and not yet read. */
  get input(): ByteQueue {
    return this.receiver.input;
  }

  get room(): number {
    return this.closing ? 0 : this.host.tcp.sendBufferBytes - this.out.length;
  }

  /** Written and not yet acknowledged. */
  get unacknowledged(): number {
    return this.out.length;
  }

  /** Takes bytes off the input. */
  consume(bytes: number): void {
    this.receiver.consume(bytes, this.mss);
    this.host.touch(this);
  }

  /** Takes as many bytes as there is room for, and returns how many. */
  write(bytes: Uint8Array): number {
    const length = Math.min(bytes.length, this.room);
    if (length > 0) {
      this.out.push(bytes, 0, length);
      this.host.touch(this);
    }
    return length;
  }

  /** Ends this side's stream; what was written is still delivered. */
  close(): void {
    if (this.closing || this.closed) return;
    this.closing = true;
    if (this.state === TCP_STATE.synSent) this.end('');
    else if (this.state === TCP_STATE.established) this.state = TCP_STATE.finWait1;
    else if (this.state === TCP_STATE.closeWait) this.state = TCP_STATE.lastAck;
    this.host.touch(this);
  }

  /** Resets the connection. */
  abort(): void {
    if (this.closed) return;
    if (this.state !== TCP_STATE.synSent && this.state !== TCP_STATE.timeWait)
      this.emit(RST | ACK, this.max, 0, 0);
    this.end('aborted');
  }

  // --- opening -------------------------------------------------------------------------------------------------

  /** Sends a SYN. */
  connect(): void {
    this.begin();
    this.active = true;
    this.state = TCP_STATE.synSent;
    this.emit(SYN, this.iss, 0, 0);
  }

  /** Answers the SYN that a listener received. */
  accept(s: Segment): void {
    this.begin();
    this.answerSyn(s);
  }

  private begin(): void {
    const { tcp, port } = this.host;
    this.iss = Math.floor(port.random() * 0x1_0000_0000) | 0;
    this.tsOffset = Math.floor(port.random() * 0x1_0000_0000) | 0;
    this.una = this.iss;
    this.next = (this.iss + 1) | 0;
    this.max = this.next;
    this.timestamps = tcp.timestamps;
    this.sack = tcp.sack;
    this.mss = tcp.mss;
    this.timedAt = port.now();
    this.timedSeq = this.next;
    this.rtoAt = port.now() + this.roundTrip.rtoMs;
  }

  private answerSyn(s: Segment): void {
    this.learn(s);
    this.state = TCP_STATE.synReceived;
    this.emit(SYN | ACK, this.iss, 0, 0);
  }

  private learn(s: Segment): void {
    this.receiver.begin(s);
    this.mss = Math.min(this.host.tcp.mss, s.mss === 0 ? MSS_DEFAULT : s.mss);
    this.sack &&= s.sackPermitted;
    this.timestamps &&= s.hasTimestamps;
    if (this.timestamps) this.tsRecent = s.tsVal;
    this.congestion.begin(this.mss, this.host.tcp.initialWindowSegments);
    this.takeWindow(s);
  }

  // --- input ---------------------------------------------------------------------------------------------------

  receive(s: Segment): void {
    this.host.touch(this);
    if (this.state === TCP_STATE.synSent) {
      this.receiveInSynSent(s);
      return;
    }
    const rst = (s.flags & RST) !== 0;
    if (this.timestamps && !rst && (s.flags & SYN) === 0) {
      if (!s.hasTimestamps || ((s.tsVal - this.tsRecent) | 0) < 0) {
        this.host.counters.paws += 1;
        this.answerInvalid(s);
        return;
      }
      if (((s.seq - this.receiver.lastAck) | 0) <= 0) this.tsRecent = s.tsVal;
    }
    if (rst) {
      if (s.seq === this.receiver.received) this.end(hasBothFins(this.state) ? '' : 'reset by the peer');
      else if (this.receiver.inWindow(s)) this.challenge(s);
      return;
    }
    if ((s.flags & SYN) !== 0) {
      if (this.state === TCP_STATE.synReceived && ((s.seq + 1) | 0) === this.receiver.received) {
        this.emit(SYN | ACK, this.iss, 0, 0);
      } else {
        this.challenge(s);
      }
      return;
    }
    if ((s.flags & ACK) === 0) return;
    if (this.state === TCP_STATE.synReceived) {
      if (((s.ack - this.una) | 0) <= 0 || ((s.ack - this.max) | 0) > 0) {
        this.challenge(s);
        return;
      }
      this.state = this.closing ? TCP_STATE.finWait1 : TCP_STATE.established;
    }
    const acceptable = this.receiver.inWindow(s);
    if (!acceptable) this.answerInvalid(s);
    this.takeAck(s, acceptable);
    if (acceptable && !this.closed) this.takeData(s);
  }

  private receiveInSynSent(s: Segment): void {
    const acked = (s.flags & ACK) !== 0;
    if (acked && s.ack !== this.max) {
      if ((s.flags & RST) === 0) this.emit(RST, s.ack, 0, 0);
      return;
    }
    if ((s.flags & RST) !== 0) {
      if (acked) this.end('refused');
      return;
    }
    if ((s.flags & SYN) === 0) return;
    if (!acked) {
      this.answerSyn(s);
      return;
    }
    this.learn(s);
    this.state = TCP_STATE.established;
    this.takeAck(s, true);
    this.receiver.ackNow = true;
  }

  private challenge(s: Segment): void {
    this.host.counters.challengeAcks += 1;
    this.answerInvalid(s);
  }

  /**
   * Answers an unacceptable segment with an ACK. If the peer cannot accept that ACK either, the two would answer each
   * other forever: segments without data are therefore answered once in INVALID_EVERY_MS.
   */
  private answerInvalid(s: Segment): void {
    const now = this.host.port.now();
    if (s.payloadBytes === 0 && (s.flags & FIN) === 0) {
      if (now < this.invalidAt + INVALID_EVERY_MS) return;
      this.invalidAt = now;
    }
    this.receiver.ackNow = true;
  }

  private takeWindow(s: Segment): void {
    this.sendWindow = s.window;
    this.windowSeq = s.seq;
    this.windowAck = s.ack;
    if (s.window > this.windowMax) this.windowMax = s.window;
    if (s.window > 0) {
      this.probeAt = NEVER;
      this.probeMs = 0;
    }
  }

  private takeAck(s: Segment, acceptable: boolean): void {
    const { port, tcp } = this.host;
    const acked = (s.ack - this.una) | 0;
    if (((s.ack - this.max) | 0) > 0) {
      this.answerInvalid(s);
      return;
    }
    const oldWindow = this.sendWindow;
    if (acceptable && acked >= 0) {
      const newer = (s.seq - this.windowSeq) | 0;
      if (newer > 0 || (newer === 0 && ((s.ack - this.windowAck) | 0) >= 0)) this.takeWindow(s);
    }
    if (acked <= 0) {
      const duplicate =
        acked === 0 &&
        this.max !== this.una &&
        s.payloadBytes === 0 &&
        (s.flags & FIN) === 0 &&
        s.window === oldWindow &&
        s.window > 0;
      if (duplicate && this.congestion.duplicate((this.max - this.una) | 0, this.max, this.mss))
        this.retransmit();
      return;
    }
    if (this.timedAt !== NEVER && ((s.ack - this.timedSeq) | 0) >= 0) {
      this.roundTrip.measure(port.now() - this.timedAt);
      this.timedAt = NEVER;
    }
    // The buffer holds neither the SYN nor the FIN.
    const data = Math.min(this.una === this.iss ? acked - 1 : acked, this.out.length);
    this.out.drop(data);
    const fin = this.closing && acked > data && this.una !== this.iss && this.out.length === 0;
    this.una = s.ack;
    if (((this.next - this.una) | 0) < 0) this.next = this.una;
    this.retries = 0;
    this.roundTrip.reset(tcp);
    this.rtoAt = this.max === this.una ? NEVER : port.now() + this.roundTrip.rtoMs;
    if (this.congestion.acked(acked, this.una, this.mss)) this.retransmit();
    if (fin) this.takeFinAck();
  }

  private takeFinAck(): void {
    this.finAcked = true;
    if (this.state === TCP_STATE.finWait1) this.state = TCP_STATE.finWait2;
    else if (this.state === TCP_STATE.closing) this.wait();
    else if (this.state === TCP_STATE.lastAck) this.end('');
  }

  private takeData(s: Segment): void {
    const wasFinished = this.receiver.finished;
    if (this.receiver.take(s)) {
      if (this.state === TCP_STATE.established) this.state = TCP_STATE.closeWait;
      else if (this.state === TCP_STATE.finWait1) this.state = TCP_STATE.closing;
      else if (this.state === TCP_STATE.finWait2) this.wait();
    } else if (wasFinished && this.state === TCP_STATE.timeWait && (s.flags & FIN) !== 0) this.wait();
  }

  private wait(): void {
    this.state = TCP_STATE.timeWait;
    this.timeWaitAt = this.host.port.now() + this.host.tcp.timeWaitMs;
  }

  private end(error: string): void {
    this.state = TCP_STATE.closed;
    this.error = error;
    this.host.touch(this);
  }

  /** Returns true if, in TIME_WAIT, a connection with that initial sequence number may take over the ports. */
  precedes(seq: number): boolean {
    return ((seq - this.receiver.received) | 0) > 0;
  }

  /** Ends the connection without sending anything. */
  expire(): void {
    this.end('');
  }

  // --- time ----------------------------------------------------------------------------------------------------

  get nextAt(): number {
    return Math.min(this.rtoAt, this.receiver.ackAt, this.probeAt, this.timeWaitAt);
  }

  tick(now: number): void {
    if (now < this.nextAt) return;
    this.host.touch(this);
    if (now >= this.timeWaitAt) {
      this.end('');
      return;
    }
    if (now >= this.receiver.ackAt) this.receiver.ackNow = true;
    if (now >= this.probeAt) {
      // A window probe: an old sequence number without data. The peer's ACK has its window.
      this.emit(ACK, (this.una - 1) | 0, 0, 0);
      this.probeMs = Math.min(2 * this.probeMs, this.host.tcp.rtoMsMax);
      this.probeAt = now + this.probeMs;
    }
    if (now >= this.rtoAt) this.timeout(now);
  }

  private timeout(now: number): void {
    const { tcp } = this.host;
    // A peer that closes its window is alive and does not count; one that does not answer does.
    if (this.sendWindow > 0 || this.state < TCP_STATE.established) this.retries += 1;
    if (this.retries > tcp.retriesMax) {
      this.end('timeout');
      return;
    }
    this.roundTrip.backOff(tcp);
    this.rtoAt = now + this.roundTrip.rtoMs;
    this.timedAt = NEVER;
    if (this.state < TCP_STATE.established) {
      this.host.counters.retransmits += 1;
      this.emit(this.state === TCP_STATE.synSent ? SYN : SYN | ACK, this.iss, 0, 0);
      return;
    }
    this.congestion.timeout((this.max - this.una) | 0, this.mss);
    this.next = this.una;
    this.retransmit();
  }

  // --- output --------------------------------------------------------------------------------------------------

  private get payloadMax(): number {
    return this.mss - (this.timestamps ? TIMESTAMPS_BYTES : 0);
  }

  /** Sends the first unacknowledged segment again, whatever the windows allow. */
  private retransmit(): void {
    this.timedAt = NEVER;
    const outstanding = (this.max - this.una) | 0;
    const bytesMax = Math.min(this.payloadMax, this.host.tcp.retransmitBytesMax);
    const length = Math.min(outstanding, this.out.length, bytesMax);
    const fin = this.closing && !this.finAcked && length === this.out.length && outstanding > length;
    this.host.counters.retransmits += 1;
    this.emit(fin ? ACK | FIN : ACK, this.una, 0, length);
    const end = (this.una + length + (fin ? 1 : 0)) | 0;
    if (((end - this.next) | 0) > 0) this.next = end;
  }

  /** Sends what may be sent, then an ACK if one is due and no segment has carried it. */
  flush(): void {
    if (this.established && this.state !== TCP_STATE.timeWait) this.sendData();
    if (this.receiver.ackNow && !this.closed && this.state !== TCP_STATE.synSent)
      this.emit(ACK, this.next, 0, 0);
  }

  private sendData(): void {
    const { tcp, port } = this.host;
    const window = Math.min(this.sendWindow, this.congestion.window, tcp.windowSegmentsMax * this.mss);
    for (;;) {
      const sent = (this.next - this.una) | 0;
      const left = this.out.length - sent;
      if (left < 0 || this.finAcked) break;
      let length = Math.min(left, window - sent, this.payloadMax);
      if (left > 0) {
        if (length <= 0) break;
        // A small segment leaves only if it is the last, or if no segment is under way whose ACK could open the window.
        if (length < left && length < this.payloadMax && sent > 0 && length < this.windowMax / 2) break;
        if (tcp.splitChance > 0 && port.random() < tcp.splitChance)
          length = 1 + Math.floor(port.random() * length);
      } else if (!this.closing) {
        break;
      }
      length = Math.max(length, 0);
      const last = length === left;
      const fin = last && this.closing;
      this.emit(ACK | (last && length > 0 ? PSH : 0) | (fin ? FIN : 0), this.next, sent, length);
      this.next = (this.next + length + (fin ? 1 : 0)) | 0;
      if (((this.next - this.max) | 0) > 0) {
        this.max = this.next;
        if (this.timedAt === NEVER) {
          this.timedAt = port.now();
          this.timedSeq = this.next;
        }
      } else {
        this.host.counters.retransmits += 1;
      }
      if (this.rtoAt === NEVER) this.rtoAt = port.now() + this.roundTrip.rtoMs;
    }
    const stuck = this.sendWindow === 0 && this.max === this.una && this.out.length > 0;
    if (!stuck) {
      this.probeAt = NEVER;
    } else if (this.probeAt === NEVER) {
      this.probeMs = Math.max(this.probeMs, this.roundTrip.rtoMs);
      this.probeAt = port.now() + this.probeMs;
    }
  }

  /** Sends a segment with `length` bytes from place `at` of the send buffer. */
  private emit(flags: number, seq: number, at: number, length: number): void {
    const header = this.headerOf(flags, seq);
    const headerBytes = headerBytesOf(header);
    const frame = this.host.tcpFrame(this, headerBytes + length);
    const tcpAt = frame.length - headerBytes - length;
    put16(frame, tcpAt, this.localPort);
    put16(frame, tcpAt + 2, this.remotePort);
    const payloadAt = writeHeader(frame, tcpAt, header);
    if (length > 0) this.out.copyTo(frame, payloadAt, at, length);
    this.host.transmit(this, frame);
  }

  private headerOf(flags: number, seq: number): Header {
    const { tcp, port } = this.host;
    const { receiver } = this;
    const syn = (flags & SYN) !== 0;
    const rst = (flags & RST) !== 0;
    const ack = (flags & ACK) !== 0;
    const hasTimestamps = this.timestamps && !rst;
    const growthMin = syn ? 0 : Math.min(this.mss, tcp.receiveBufferBytes / 2);
    const window = ack ? receiver.acknowledge(growthMin) : rst ? 0 : tcp.receiveBufferBytes;
    return {
      flags,
      seq,
      ack: ack ? receiver.received : 0,
      window,
      mss: syn ? tcp.mss : 0,
      sackPermitted: syn && this.sack,
      hasTimestamps,
      tsVal: hasTimestamps ? (Math.floor(port.now()) + this.tsOffset) | 0 : 0,
      tsEcr: ack ? this.tsRecent : 0,
      sackBlocks: this.sack && !syn && !rst ? receiver.sackBlocks() : NO_BLOCKS,
    };
  }
}
