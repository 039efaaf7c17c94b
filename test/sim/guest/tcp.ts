/**
 * One TCP connection (RFC 9293), for simulated guests and clients.
 *
 * It is honest: it acknowledges only what it has, never sends other bytes at a place of the stream than before, never
 * takes a window back. It keeps the rules that a receiver can rely on (RFC 5681 congestion control with fast
 * retransmit, RFC 6298 timer, RFC 7323 timestamps with PAWS, RFC 2018 SACK blocks, RFC 5961 answers to RST and SYN),
 * and is free where TCP is free: initial sequence number, segmentation, when to acknowledge. There each machine draws
 * from its own die, which is how two machines of equal state come to differ on the wire.
 *
 * The whole of it is state: buffers, numbers, timers as absolute times. Not there: keepalive, window scaling, urgent
 * data, Nagle.
 *
 * The application is told that something changed (`Stack` calls it); it then looks at `input`, `room`, `finished`,
 * `closed`.
 */
import { ByteQueue } from './byte-queue.ts';
import type { MachinePort } from './machine.ts';
import { type Address, get16, get32, put16, put32 } from './packets.ts';
import type { Archive } from './state.ts';

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;

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

export interface TcpOptions {
  readonly mss: number;
  readonly timestamps: boolean;
  readonly sack: boolean;
  readonly sendBufferBytes: number;
  /** At most 65 535: there is no window scaling. */
  readonly receiveBufferBytes: number;
  /** An acknowledgement that nothing hurries waits for a time between these. */
  readonly ackDelayMsMin: number;
  readonly ackDelayMsMax: number;
  /** So many segments are acknowledged at once. */
  readonly ackEvery: number;
  /** How often a segment is cut somewhere for no reason, 0 to 1. */
  readonly splitChance: number;
  readonly rtoMsMin: number;
  readonly rtoMsMax: number;
  /** Retransmissions of one segment before the connection is given up. */
  readonly retriesMax: number;
  readonly timeWaitMs: number;
}

export const TCP_DEFAULTS: TcpOptions = {
  mss: 1460,
  timestamps: true,
  sack: true,
  sendBufferBytes: 32_768,
  receiveBufferBytes: 65_535,
  ackDelayMsMin: 0,
  ackDelayMsMax: 40,
  ackEvery: 2,
  splitChance: 0,
  rtoMsMin: 200,
  rtoMsMax: 10_000,
  retriesMax: 15,
  timeWaitMs: 20_000,
};

/** What a connection needs of its stack. */
export interface TcpHost {
  readonly port: MachinePort;
  readonly tcp: TcpOptions;
  readonly counters: TcpCounters;
  /** A frame whose TCP part is `bytes` long and empty; the TCP header begins where `transportAt` says. */
  tcpFrame(connection: TcpConnection, bytes: number): Uint8Array;
  transmit(connection: TcpConnection, frame: Uint8Array): void;
  /** The connection has something to do: output, or telling its application. */
  touch(connection: TcpConnection): void;
}

export interface TcpCounters {
  paws: number;
  retransmits: number;
  challengeAcks: number;
}

/** A received segment; reused. */
export class Segment {
  frame: Uint8Array = new Uint8Array(0);
  sourcePort = 0;
  destinationPort = 0;
  seq = 0;
  ack = 0;
  flags = 0;
  window = 0;
  payloadAt = 0;
  payloadBytes = 0;
  /** 0 when the option is missing */
  mss = 0;
  sackPermitted = false;
  hasTimestamps = false;
  tsVal = 0;
  tsEcr = 0;

  /** The checks of `IpPacket` hold. */
  read(frame: Uint8Array, at: number, end: number): void {
    const optionsEnd = at + ((frame[at + 12] >> 4) << 2);
    this.frame = frame;
    this.sourcePort = get16(frame, at);
    this.destinationPort = get16(frame, at + 2);
    this.seq = get32(frame, at + 4);
    this.ack = get32(frame, at + 8);
    this.flags = frame[at + 13];
    this.window = get16(frame, at + 14);
    this.payloadAt = optionsEnd;
    this.payloadBytes = end - optionsEnd;
    this.mss = 0;
    this.sackPermitted = false;
    this.hasTimestamps = false;
    for (let o = at + 20; o < optionsEnd && frame[o] !== 0; ) {
      if (frame[o] === 1) {
        o += 1;
        continue;
      }
      const length = frame[o + 1];
      if (length < 2 || o + length > optionsEnd) return;
      if (frame[o] === 2 && length === 4) this.mss = get16(frame, o + 2);
      else if (frame[o] === 4 && length === 2) this.sackPermitted = true;
      else if (frame[o] === 8 && length === 10) {
        this.hasTimestamps = true;
        this.tsVal = get32(frame, o + 2);
        this.tsEcr = get32(frame, o + 6);
      }
      o += length;
    }
  }
}

type Piece = { seq: number; bytes: Uint8Array };

/** Never is a time too. */
const NEVER = Number.POSITIVE_INFINITY;
/** More holes than that are not worth keeping. */
const PIECES_MAX = 64;
const INVALID_EVERY_MS = 500;
const INITIAL_WINDOW_SEGMENTS = 10;

export class TcpConnection {
  readonly #host: TcpHost;
  id = 0;
  local: Address = new Uint8Array(4);
  remote: Address = new Uint8Array(4);
  localPort = 0;
  remotePort = 0;
  /** This side opened it. */
  active = false;
  state: TcpState = TCP_STATE.closed;
  /** Why it is closed, if not in order. */
  error = '';
  /** What it was archived as, if it has not been touched since. The stack's. */
  archived: Uint8Array | null = null;

  #iss = 0;
  #una = 0;
  #next = 0;
  /** One past the last that was ever sent. */
  #max = 0;
  #sendWindow = 0;
  #windowSeq = 0;
  #windowAck = 0;
  #windowMax = 0;
  readonly #out = new ByteQueue();
  #closing = false;
  #finAcked = false;
  #mss = 536;
  #congestionWindow = 0;
  #threshold = 0x7fffffff;
  #duplicates = 0;
  #recovering = false;
  #recover = 0;
  #smoothed = 0;
  #variance = 0;
  #rto = 1000;
  #rtoAt = NEVER;
  #retries = 0;
  /** Time and end of the segment that is being timed; NEVER when none is. */
  #timedAt = NEVER;
  #timedSeq = 0;
  #probeAt = NEVER;
  #probeMs = 0;

  #received = 0;
  /** The window's right edge as last announced. */
  #edge = 0;
  readonly #in = new ByteQueue();
  #pieces: Piece[] = [];
  #recentPiece = 0;
  #peerFin = false;
  #peerFinSeq = 0;
  /** The peer's FIN has been reached: nothing more will come. */
  #finished = false;
  #ackNow = false;
  #ackAt = NEVER;
  #unacked = 0;
  #timestamps = false;
  #tsOffset = 0;
  #tsRecent = 0;
  #sack = false;
  #lastAck = 0;
  #timeWaitAt = NEVER;
  /** When an invalid segment without data was last answered. */
  #invalidAt = -NEVER;

  constructor(host: TcpHost) {
    this.#host = host;
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
    this.#iss = a.number(this.#iss);
    this.#una = a.number(this.#una);
    this.#next = a.number(this.#next);
    this.#max = a.number(this.#max);
    this.#sendWindow = a.number(this.#sendWindow);
    this.#windowSeq = a.number(this.#windowSeq);
    this.#windowAck = a.number(this.#windowAck);
    this.#windowMax = a.number(this.#windowMax);
    this.#out.archive(a);
    this.#closing = a.flag(this.#closing);
    this.#finAcked = a.flag(this.#finAcked);
    this.#mss = a.number(this.#mss);
    this.#congestionWindow = a.number(this.#congestionWindow);
    this.#threshold = a.number(this.#threshold);
    this.#duplicates = a.number(this.#duplicates);
    this.#recovering = a.flag(this.#recovering);
    this.#recover = a.number(this.#recover);
    this.#smoothed = a.number(this.#smoothed);
    this.#variance = a.number(this.#variance);
    this.#rto = a.number(this.#rto);
    this.#rtoAt = a.number(this.#rtoAt);
    this.#retries = a.number(this.#retries);
    this.#timedAt = a.number(this.#timedAt);
    this.#timedSeq = a.number(this.#timedSeq);
    this.#probeAt = a.number(this.#probeAt);
    this.#probeMs = a.number(this.#probeMs);
    this.#received = a.number(this.#received);
    this.#edge = a.number(this.#edge);
    this.#in.archive(a);
    this.#pieces = a.list(this.#pieces, (piece) => ({
      seq: a.number(piece?.seq ?? 0),
      bytes: a.bytes(piece?.bytes ?? new Uint8Array(0)),
    }));
    this.#recentPiece = a.number(this.#recentPiece);
    this.#peerFin = a.flag(this.#peerFin);
    this.#peerFinSeq = a.number(this.#peerFinSeq);
    this.#finished = a.flag(this.#finished);
    this.#ackNow = a.flag(this.#ackNow);
    this.#ackAt = a.number(this.#ackAt);
    this.#unacked = a.number(this.#unacked);
    this.#timestamps = a.flag(this.#timestamps);
    this.#tsOffset = a.number(this.#tsOffset);
    this.#tsRecent = a.number(this.#tsRecent);
    this.#sack = a.flag(this.#sack);
    this.#lastAck = a.number(this.#lastAck);
    this.#timeWaitAt = a.number(this.#timeWaitAt);
    this.#invalidAt = a.number(this.#invalidAt);
  }

  // --- the application's side ----------------------------------------------------------------------------------

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
    return this.#finished;
  }

  /** `close` was called. */
  get closing(): boolean {
    return this.#closing;
  }

  /** Received and not yet read. */
  get input(): ByteQueue {
    return this.#in;
  }

  get room(): number {
    return this.#closing ? 0 : this.#host.tcp.sendBufferBytes - this.#out.length;
  }

  /** Written and not yet acknowledged. */
  get unacknowledged(): number {
    return this.#out.length;
  }

  /** Takes bytes off the input. */
  consume(bytes: number): void {
    this.#in.drop(bytes);
    // A window is announced anew when it grew by enough to be worth a segment (RFC 9293 section 3.8.6.2.2).
    const growth = this.#windowEdge() - this.#edge;
    if (growth >= Math.min(2 * this.#mss, this.#host.tcp.receiveBufferBytes / 2)) this.#ackNow = true;
    this.#host.touch(this);
  }

  /** Takes as much as there is room for, and says how much that was. */
  write(bytes: Uint8Array): number {
    const length = Math.min(bytes.length, this.room);
    if (length > 0) {
      this.#out.push(bytes, 0, length);
      this.#host.touch(this);
    }
    return length;
  }

  /** Nothing more to say; what was written is still delivered. */
  close(): void {
    if (this.#closing || this.closed) return;
    this.#closing = true;
    if (this.state === TCP_STATE.synSent) this.#end('');
    else if (this.state === TCP_STATE.established) this.state = TCP_STATE.finWait1;
    else if (this.state === TCP_STATE.closeWait) this.state = TCP_STATE.lastAck;
    this.#host.touch(this);
  }

  /** Reset. */
  abort(): void {
    if (this.closed) return;
    if (this.state !== TCP_STATE.synSent && this.state !== TCP_STATE.timeWait)
      this.#emit(RST | ACK, this.#max, 0, 0);
    this.#end('aborted');
  }

  // --- opening -------------------------------------------------------------------------------------------------

  open(active: boolean): void {
    const { tcp, port } = this.#host;
    this.active = active;
    this.#iss = Math.floor(port.random() * 0x1_0000_0000) | 0;
    this.#tsOffset = Math.floor(port.random() * 0x1_0000_0000) | 0;
    this.#una = this.#iss;
    this.#next = (this.#iss + 1) | 0;
    this.#max = this.#next;
    this.#timestamps = tcp.timestamps;
    this.#sack = tcp.sack;
    this.#mss = tcp.mss;
    this.#timedAt = port.now();
    this.#timedSeq = this.#next;
    this.#rtoAt = port.now() + this.#rto;
    if (active) {
      this.state = TCP_STATE.synSent;
      this.#emit(SYN, this.#iss, 0, 0);
    }
  }

  /** The SYN that a listener, or a simultaneous open, got. */
  answerSyn(s: Segment): void {
    this.#learn(s);
    this.state = TCP_STATE.synReceived;
    this.#emit(SYN | ACK, this.#iss, 0, 0);
  }

  #learn(s: Segment): void {
    this.#received = (s.seq + 1) | 0;
    this.#edge = this.#received;
    this.#mss = Math.min(this.#host.tcp.mss, s.mss === 0 ? 536 : s.mss);
    this.#sack &&= s.sackPermitted;
    this.#timestamps &&= s.hasTimestamps;
    if (this.#timestamps) this.#tsRecent = s.tsVal;
    this.#congestionWindow = INITIAL_WINDOW_SEGMENTS * this.#mss;
    this.#takeWindow(s);
  }

  // --- input ---------------------------------------------------------------------------------------------------

  receive(s: Segment): void {
    this.#host.touch(this);
    if (this.state === TCP_STATE.synSent) {
      this.#receiveInSynSent(s);
      return;
    }
    const rst = (s.flags & RST) !== 0;
    if (this.#timestamps && !rst && (s.flags & SYN) === 0) {
      if (!s.hasTimestamps || ((s.tsVal - this.#tsRecent) | 0) < 0) {
        this.#host.counters.paws += 1;
        this.#answerInvalid(s);
        return;
      }
      if (((s.seq - this.#lastAck) | 0) <= 0) this.#tsRecent = s.tsVal;
    }
    if (rst) {
      if (s.seq === this.#received) this.#end(this.state === TCP_STATE.timeWait ? '' : 'reset by the peer');
      else if (this.#inWindow(s)) this.#challenge(s);
      return;
    }
    if ((s.flags & SYN) !== 0) {
      if (this.state === TCP_STATE.synReceived && ((s.seq + 1) | 0) === this.#received) {
        this.#emit(SYN | ACK, this.#iss, 0, 0);
      } else {
        this.#challenge(s);
      }
      return;
    }
    if ((s.flags & ACK) === 0) return;
    if (this.state === TCP_STATE.synReceived) {
      if (((s.ack - this.#una) | 0) <= 0 || ((s.ack - this.#max) | 0) > 0) {
        this.#challenge(s);
        return;
      }
      this.state = this.#closing ? TCP_STATE.finWait1 : TCP_STATE.established;
    }
    const acceptable = this.#inWindow(s);
    if (!acceptable) this.#answerInvalid(s);
    this.#takeAck(s, acceptable);
    if (acceptable && !this.closed) this.#takeData(s);
  }

  #receiveInSynSent(s: Segment): void {
    const acked = (s.flags & ACK) !== 0;
    if (acked && s.ack !== this.#max) {
      if ((s.flags & RST) === 0) this.#emit(RST, s.ack, 0, 0);
      return;
    }
    if ((s.flags & RST) !== 0) {
      if (acked) this.#end('refused');
      return;
    }
    if ((s.flags & SYN) === 0) return;
    if (!acked) {
      this.answerSyn(s);
      return;
    }
    this.#learn(s);
    this.state = TCP_STATE.established;
    this.#takeAck(s, true);
    this.#ackNow = true;
  }

  /** RFC 9293 section 3.10.7.4, first check. A FIN may come into a full window, at its very edge. */
  #inWindow(s: Segment): boolean {
    const length = s.payloadBytes + ((s.flags & FIN) !== 0 ? 1 : 0);
    const edge = Math.max((this.#edge - this.#received) | 0, (s.flags & FIN) !== 0 ? 1 : 0);
    const first = (s.seq - this.#received) | 0;
    if (length === 0) return edge === 0 ? first === 0 : first >= 0 && first < edge;
    return first < edge && first + length > 0;
  }

  #challenge(s: Segment): void {
    this.#host.counters.challengeAcks += 1;
    this.#answerInvalid(s);
  }

  /**
   * What cannot be taken is answered by an acknowledgement. But if that cannot be taken either, two sides would answer
   * each other for ever; so segments without data are answered only now and then.
   */
  #answerInvalid(s: Segment): void {
    const now = this.#host.port.now();
    if (s.payloadBytes === 0 && (s.flags & FIN) === 0) {
      if (now < this.#invalidAt + INVALID_EVERY_MS) return;
      this.#invalidAt = now;
    }
    this.#ackNow = true;
  }

  #takeWindow(s: Segment): void {
    this.#sendWindow = s.window;
    this.#windowSeq = s.seq;
    this.#windowAck = s.ack;
    if (s.window > this.#windowMax) this.#windowMax = s.window;
    if (s.window > 0) {
      this.#probeAt = NEVER;
      this.#probeMs = 0;
    }
  }

  #takeAck(s: Segment, acceptable: boolean): void {
    const { port, tcp } = this.#host;
    const acked = (s.ack - this.#una) | 0;
    if (((s.ack - this.#max) | 0) > 0) {
      this.#answerInvalid(s);
      return;
    }
    const oldWindow = this.#sendWindow;
    if (acceptable && acked >= 0) {
      const newer = (s.seq - this.#windowSeq) | 0;
      if (newer > 0 || (newer === 0 && ((s.ack - this.#windowAck) | 0) >= 0)) this.#takeWindow(s);
    }
    if (acked <= 0) {
      const duplicate =
        acked === 0 &&
        this.#max !== this.#una &&
        s.payloadBytes === 0 &&
        (s.flags & FIN) === 0 &&
        s.window === oldWindow &&
        s.window > 0;
      if (duplicate) this.#takeDuplicate();
      return;
    }
    if (this.#timedAt !== NEVER && ((s.ack - this.#timedSeq) | 0) >= 0)
      this.#measure(port.now() - this.#timedAt);
    // The SYN is not in the buffer, and neither is the FIN.
    const data = Math.min(this.#una === this.#iss ? acked - 1 : acked, this.#out.length);
    this.#out.drop(data);
    const fin = this.#closing && acked > data && this.#una !== this.#iss && this.#out.length === 0;
    this.#una = s.ack;
    if (((this.#next - this.#una) | 0) < 0) this.#next = this.#una;
    this.#retries = 0;
    this.#rto = this.#smoothed === 0 ? 1000 : this.#smoothed + Math.max(4 * this.#variance, 1);
    this.#rto = Math.min(Math.max(this.#rto, tcp.rtoMsMin), tcp.rtoMsMax);
    this.#rtoAt = this.#max === this.#una ? NEVER : port.now() + this.#rto;
    if (this.#recovering && ((this.#una - this.#recover) | 0) < 0) {
      this.#retransmit();
    } else {
      if (this.#recovering) this.#congestionWindow = this.#threshold;
      else if (this.#congestionWindow < this.#threshold) this.#congestionWindow += Math.min(acked, this.#mss);
      else
        this.#congestionWindow += Math.max(1, Math.floor((this.#mss * this.#mss) / this.#congestionWindow));
      this.#recovering = false;
    }
    this.#duplicates = 0;
    if (fin) this.#takeFinAck();
  }

  #takeFinAck(): void {
    this.#finAcked = true;
    if (this.state === TCP_STATE.finWait1) this.state = TCP_STATE.finWait2;
    else if (this.state === TCP_STATE.closing) this.#wait();
    else if (this.state === TCP_STATE.lastAck) this.#end('');
  }

  #takeDuplicate(): void {
    this.#duplicates += 1;
    if (this.#recovering) {
      this.#congestionWindow += this.#mss;
    } else if (this.#duplicates === 3) {
      this.#recovering = true;
      this.#recover = this.#max;
      this.#threshold = Math.max(((this.#max - this.#una) | 0) / 2, 2 * this.#mss);
      this.#congestionWindow = this.#threshold + 3 * this.#mss;
      this.#retransmit();
    }
  }

  #measure(ms: number): void {
    this.#timedAt = NEVER;
    if (this.#smoothed === 0) {
      this.#smoothed = Math.max(ms, 0.001);
      this.#variance = ms / 2;
    } else {
      this.#variance += (Math.abs(this.#smoothed - ms) - this.#variance) / 4;
      this.#smoothed += (ms - this.#smoothed) / 8;
    }
  }

  #takeData(s: Segment): void {
    const fin = (s.flags & FIN) !== 0;
    if (this.#finished) {
      // All of it is old; it comes again because its acknowledgement was lost.
      if (s.payloadBytes > 0 || fin) this.#ackNow = true;
      if (this.state === TCP_STATE.timeWait && fin) this.#wait();
      return;
    }
    const skip = Math.max((this.#received - s.seq) | 0, 0);
    const seq = (s.seq + skip) | 0;
    const room = this.#host.tcp.receiveBufferBytes - this.#in.length - ((seq - this.#received) | 0);
    const length = Math.min(s.payloadBytes - skip, room);
    if (fin && !this.#peerFin) {
      this.#peerFin = true;
      this.#peerFinSeq = (s.seq + s.payloadBytes) | 0;
    }
    if (length > 0) {
      if (seq === this.#received) {
        this.#in.push(s.frame, s.payloadAt + skip, length);
        this.#received = (this.#received + length) | 0;
        this.#unacked += 1;
        if (this.#pieces.length > 0) {
          this.#ackNow = true;
          this.#joinPieces();
        } else if (this.#unacked >= this.#host.tcp.ackEvery) {
          this.#ackNow = true;
        } else {
          const { ackDelayMsMin, ackDelayMsMax } = this.#host.tcp;
          const spread = ackDelayMsMax - ackDelayMsMin;
          const delay = ackDelayMsMin + (spread > 0 ? this.#host.port.random() * spread : 0);
          this.#ackAt = Math.min(this.#ackAt, this.#host.port.now() + delay);
        }
      } else {
        this.#keepPiece(seq, s.frame.slice(s.payloadAt + skip, s.payloadAt + skip + length));
        this.#ackNow = true;
      }
    } else if (s.payloadBytes > 0) {
      this.#ackNow = true;
    }
    if (this.#peerFin && this.#peerFinSeq === this.#received) this.#takeFin();
    else if (fin) this.#ackNow = true;
  }

  #takeFin(): void {
    this.#finished = true;
    this.#received = (this.#received + 1) | 0;
    this.#ackNow = true;
    if (this.state === TCP_STATE.established) this.state = TCP_STATE.closeWait;
    else if (this.state === TCP_STATE.finWait1) this.state = TCP_STATE.closing;
    else if (this.state === TCP_STATE.finWait2) this.#wait();
  }

  #keepPiece(seq: number, bytes: Uint8Array): void {
    const pieces = this.#pieces;
    this.#recentPiece = seq;
    let i = 0;
    while (i < pieces.length && ((pieces[i].seq - seq) | 0) <= 0) {
      if (((seq + bytes.length - pieces[i].seq - pieces[i].bytes.length) | 0) <= 0) return;
      i += 1;
    }
    if (pieces.length < PIECES_MAX) pieces.splice(i, 0, { seq, bytes });
  }

  #joinPieces(): void {
    let used = 0;
    for (const { seq, bytes } of this.#pieces) {
      const skip = (this.#received - seq) | 0;
      if (skip < 0) break;
      used += 1;
      if (skip >= bytes.length) continue;
      const length = Math.min(bytes.length - skip, this.#host.tcp.receiveBufferBytes - this.#in.length);
      this.#in.push(bytes, skip, length);
      this.#received = (this.#received + length) | 0;
    }
    this.#pieces.splice(0, used);
  }

  #wait(): void {
    this.state = TCP_STATE.timeWait;
    this.#timeWaitAt = this.#host.port.now() + this.#host.tcp.timeWaitMs;
  }

  #end(error: string): void {
    this.state = TCP_STATE.closed;
    this.error = error;
    this.#host.touch(this);
  }

  /** In TIME_WAIT: may a connection with that initial sequence number take over the ports? */
  precedes(seq: number): boolean {
    return ((seq - this.#received) | 0) > 0;
  }

  /** Forgets the connection without a word to the peer. */
  expire(): void {
    this.#end('');
  }

  // --- time ----------------------------------------------------------------------------------------------------

  get nextAt(): number {
    return Math.min(this.#rtoAt, this.#ackAt, this.#probeAt, this.#timeWaitAt);
  }

  tick(now: number): void {
    if (now < this.nextAt) return;
    this.#host.touch(this);
    if (now >= this.#timeWaitAt) {
      this.#end('');
      return;
    }
    if (now >= this.#ackAt) this.#ackNow = true;
    if (now >= this.#probeAt) {
      // An old sequence number without data: the answer says how large the window is.
      this.#emit(ACK, (this.#una - 1) | 0, 0, 0);
      this.#probeMs = Math.min(2 * this.#probeMs, this.#host.tcp.rtoMsMax);
      this.#probeAt = now + this.#probeMs;
    }
    if (now >= this.#rtoAt) this.#timeout(now);
  }

  #timeout(now: number): void {
    const { tcp } = this.#host;
    // A closed window is no sign of a dead peer; an answer that stays away is.
    if (this.#sendWindow > 0 || this.state < TCP_STATE.established) this.#retries += 1;
    if (this.#retries > tcp.retriesMax) {
      this.#end('timeout');
      return;
    }
    this.#rto = Math.min(2 * this.#rto, tcp.rtoMsMax);
    this.#rtoAt = now + this.#rto;
    this.#timedAt = NEVER;
    if (this.state < TCP_STATE.established) {
      this.#host.counters.retransmits += 1;
      this.#emit(this.state === TCP_STATE.synSent ? SYN : SYN | ACK, this.#iss, 0, 0);
      return;
    }
    this.#threshold = Math.max(((this.#max - this.#una) | 0) / 2, 2 * this.#mss);
    this.#congestionWindow = this.#mss;
    this.#recovering = false;
    this.#duplicates = 0;
    this.#next = this.#una;
    this.#retransmit();
  }

  // --- output --------------------------------------------------------------------------------------------------

  #windowEdge(): number {
    const free = this.#host.tcp.receiveBufferBytes - this.#in.length;
    return (this.#received + Math.max(free, 0)) | 0;
  }

  get #payloadMax(): number {
    return this.#mss - (this.#timestamps ? 12 : 0);
  }

  /** The segment at the left edge once more, whatever the windows say. */
  #retransmit(): void {
    this.#timedAt = NEVER;
    const outstanding = (this.#max - this.#una) | 0;
    const length = Math.min(outstanding, this.#out.length, this.#payloadMax);
    const fin = this.#closing && !this.#finAcked && length === this.#out.length && outstanding > length;
    this.#host.counters.retransmits += 1;
    this.#emit(fin ? ACK | FIN : ACK, this.#una, 0, length);
    const end = (this.#una + length + (fin ? 1 : 0)) | 0;
    if (((end - this.#next) | 0) > 0) this.#next = end;
  }

  /** Sends what may be sent, then an acknowledgement if one is due and nothing has carried it. */
  flush(): void {
    if (this.established && this.state !== TCP_STATE.timeWait) this.#sendData();
    if (this.#ackNow && !this.closed && this.state !== TCP_STATE.synSent) this.#emit(ACK, this.#next, 0, 0);
  }

  #sendData(): void {
    const { tcp, port } = this.#host;
    const window = Math.min(this.#sendWindow, this.#congestionWindow);
    for (;;) {
      const sent = (this.#next - this.#una) | 0;
      const left = this.#out.length - sent;
      if (left < 0 || this.#finAcked) break;
      let length = Math.min(left, window - sent, this.#payloadMax);
      if (left > 0) {
        if (length <= 0) break;
        // Small pieces only when they are the last, or nothing is under way that could bring a larger window.
        if (length < left && length < this.#payloadMax && sent > 0 && length < this.#windowMax / 2) break;
        if (tcp.splitChance > 0 && port.random() < tcp.splitChance)
          length = 1 + Math.floor(port.random() * length);
      } else if (!this.#closing) {
        break;
      }
      length = Math.max(length, 0);
      const last = length === left;
      const fin = last && this.#closing;
      this.#emit(ACK | (last && length > 0 ? PSH : 0) | (fin ? FIN : 0), this.#next, sent, length);
      this.#next = (this.#next + length + (fin ? 1 : 0)) | 0;
      if (((this.#next - this.#max) | 0) > 0) {
        this.#max = this.#next;
        if (this.#timedAt === NEVER) {
          this.#timedAt = port.now();
          this.#timedSeq = this.#next;
        }
      } else {
        this.#host.counters.retransmits += 1;
      }
      if (this.#rtoAt === NEVER) this.#rtoAt = port.now() + this.#rto;
    }
    const stuck = this.#sendWindow === 0 && this.#max === this.#una && this.#out.length > 0;
    if (!stuck) {
      this.#probeAt = NEVER;
    } else if (this.#probeAt === NEVER) {
      this.#probeMs = Math.max(this.#probeMs, this.#rto);
      this.#probeAt = port.now() + this.#probeMs;
    }
  }

  #emit(flags: number, seq: number, at: number, length: number): void {
    const syn = (flags & SYN) !== 0;
    const stamped = this.#timestamps && (flags & RST) === 0;
    const pieces = this.#sack && !syn && (flags & RST) === 0 ? this.#pieces.length : 0;
    const blocks = pieces === 0 ? [] : this.#sackBlocks();
    const optionBytes =
      (syn ? 4 + (this.#sack ? (stamped ? 2 : 4) : 0) : 0) +
      (stamped ? (syn && this.#sack ? 10 : 12) : 0) +
      (blocks.length > 0 ? 4 + 4 * blocks.length : 0);
    const headerBytes = 20 + optionBytes;
    const frame = this.#host.tcpFrame(this, headerBytes + length);
    const tcpAt = frame.length - headerBytes - length;
    put16(frame, tcpAt, this.localPort);
    put16(frame, tcpAt + 2, this.remotePort);
    put32(frame, tcpAt + 4, seq);
    frame[tcpAt + 12] = headerBytes << 2;
    frame[tcpAt + 13] = flags;
    if ((flags & ACK) !== 0) {
      const edge = this.#windowEdge();
      const growth = (edge - this.#edge) | 0;
      if (syn || growth >= Math.min(this.#mss, this.#host.tcp.receiveBufferBytes / 2)) this.#edge = edge;
      put32(frame, tcpAt + 8, this.#received);
      put16(frame, tcpAt + 14, (this.#edge - this.#received) | 0);
      this.#lastAck = this.#received;
      this.#ackNow = false;
      this.#ackAt = NEVER;
      this.#unacked = 0;
    } else {
      put16(frame, tcpAt + 14, (flags & RST) !== 0 ? 0 : this.#host.tcp.receiveBufferBytes);
    }
    let o = tcpAt + 20;
    if (syn) {
      frame[o] = 2;
      frame[o + 1] = 4;
      put16(frame, o + 2, this.#host.tcp.mss);
      o += 4;
      if (this.#sack) {
        frame[o] = 4;
        frame[o + 1] = 2;
        o += 2;
        if (!stamped) o = nops(frame, o, 2);
      }
    }
    if (stamped) {
      if (!syn || !this.#sack) o = nops(frame, o, 2);
      frame[o] = 8;
      frame[o + 1] = 10;
      put32(frame, o + 2, (Math.floor(this.#host.port.now()) + this.#tsOffset) | 0);
      put32(frame, o + 6, (flags & ACK) !== 0 ? this.#tsRecent : 0);
      o += 10;
    }
    if (blocks.length > 0) {
      o = nops(frame, o, 2);
      frame[o] = 5;
      frame[o + 1] = 2 + 4 * blocks.length;
      for (let i = 0; i < blocks.length; i++) put32(frame, o + 2 + 4 * i, blocks[i]);
      o += 2 + 4 * blocks.length;
    }
    if (length > 0) this.#out.copyTo(frame, o, at, length);
    this.#host.transmit(this, frame);
  }

  /** Edges of up to three blocks, the one with the latest piece first (RFC 2018 section 4). */
  #sackBlocks(): number[] {
    const edges: number[] = [];
    let recent = 0;
    for (const { seq, bytes } of this.#pieces) {
      const end = (seq + bytes.length) | 0;
      const last = edges.length - 1;
      if (last > 0 && ((seq - edges[last]) | 0) <= 0) {
        if (((end - edges[last]) | 0) > 0) edges[last] = end;
      } else {
        edges.push(seq, end);
      }
      if (((seq - this.#recentPiece) | 0) <= 0) recent = edges.length - 2;
    }
    return [...edges.splice(recent, 2), ...edges].slice(0, 6);
  }
}

function nops(frame: Uint8Array, at: number, count: number): number {
  for (const end = at + count; at < end; at++) frame[at] = 1;
  return at;
}
