/**
 * One end of a connection: a KernelStream with kernel buffers at both ends, over a route that delays, stops or slows bytes.
 *
 * The kernel takes a write as far as its buffer has room, and the rest waits in the process (`queuedBytes`). Bytes that
 * were taken travel in order, and count as unsent until the other end has read them, as on a unix socket. Reads are cut
 * at random. As in src/io/socket-stream.ts, the sink is asked for the next buffer right after each read.
 *
 * When a process dies, its kernel closes its sockets. When a host dies, no packet leaves it: a peer gets no reply until
 * the host is up again and replies with a reset.
 */
import type { KernelStream, StreamSink } from '../../src/io/byte-stream.ts';
import type { Die } from './guest/die.ts';
import { copyBytes } from './guest/packets.ts';
import type { Loop, Process } from './loop.ts';

/** The way between two sockets, in one direction. */
export type Route = {
  delayMs: number;
  /** In addition, for a while: the sum of what the faults that act now have added. */
  lateMs: number;
  jitterMs: number;
  /** No byte passes until then; bytes that wait arrive when they are retransmitted. */
  cutUntilMs: number;
  /** Bytes per millisecond. */
  rate: number;
  /** When all earlier bytes have passed. */
  busyUntilMs: number;
};

export function newRoute(delayMs: number, jitterMs: number): Route {
  return { delayMs, lateMs: 0, jitterMs, cutUntilMs: 0, rate: Number.POSITIVE_INFINITY, busyUntilMs: 0 };
}

export type Host = {
  readonly name: string;
  up: boolean;
  readonly unix: Map<string, Listener>;
};

/** A process that accepts connections at an endpoint. */
export type Listener = { owner: Process; accept(stream: SimSocket): void };

const NOTHING = new Uint8Array(0);
const READ_AGAIN_MS = 0.005;

type Waiting = { bytes: Uint8Array; done: (taken: boolean) => void };
/** Bytes in transit, or, if 0, the end of the stream. Bytes that are sent in one instant arrive in one. */
type Flight = { readonly sentMs: number; readonly atMs: number; bytes: number };

export class SimSocket implements KernelStream {
  peer!: SimSocket;
  readonly owner: Process;
  readonly host: Host;
  /** Called with what this end writes, and at the beginning and end of each call to the kernel. */
  onWrite: ((bytes: Uint8Array) => void) | null = null;
  onCork: (() => void) | null = null;
  onUncork: (() => void) | null = null;
  queuedBytesSeen = 0;
  /** The longest time that its process takes to read. */
  readDelayMs = 0;
  private readonly loop: Loop;
  private readonly die: Die;
  /** From this end to the other one. */
  private readonly route: Route;
  private readonly bufferBytes: number;
  private sink: StreamSink | null = null;
  private view: Uint8Array | null = null;
  private paused = true;
  private open = true;
  /** Gone with its host, without a packet. */
  private vanished = false;
  private closeNotified = false;
  private waiting: Waiting[] = [];
  private waitingAt = 0;
  private waitingBytes = 0;
  private writtenBytes = 0;
  /** Written by a process that is stopped in the middle of the write. */
  private midwayBytes = 0;
  /** Taken by the kernel and not yet read by the peer. */
  private takenBytes = 0;
  private lastArrivalMs = 0;
  private readonly flights: Flight[] = [];
  /** This end was closed with bytes that it had not read. */
  private leftUnread = false;
  /** From `inboxAt` on: bytes that have arrived and were not read, then bytes in transit to this end. */
  private inbox: Uint8Array = NOTHING;
  private inboxAt = 0;
  private inboxEnd = 0;
  private inboxBytes = 0;
  private reading = false;
  private ended = false;
  private refusing = false;
  private failure: Error | null = null;
  private readonly forget = () => this.hangUp();

  constructor(
    world: { readonly loop: Loop; readonly die: Die },
    owner: Process,
    host: Host,
    route: Route,
    bufferBytes: number,
  ) {
    this.loop = world.loop;
    this.die = world.die;
    this.owner = owner;
    this.host = host;
    this.route = route;
    this.bufferBytes = bufferBytes;
    owner.onDeath.add(this.forget);
  }

  start(sink: StreamSink): void {
    this.sink = sink;
    this.view = null;
    if (this.open) {
      this.resume();
      return;
    }
    // A real one notifies every sink that starts it.
    this.closeNotified = false;
    this.notifyClosed();
  }

  cork(): void {
    this.onCork?.();
  }

  uncork(): void {
    if (this.onUncork !== null) this.owner.act(this.onUncork);
  }

  write(bytes: Uint8Array, done: (taken: boolean) => void): void {
    this.writtenBytes += bytes.length;
    if (this.owner.continuesAtMs <= this.loop.nowMs) this.writeNow(bytes, done);
    else {
      this.midwayBytes += bytes.length;
      this.owner.act(() => {
        this.midwayBytes -= bytes.length;
        this.writeNow(bytes, done);
      });
    }
  }

  private writeNow(bytes: Uint8Array, done: (taken: boolean) => void): void {
    if (!this.open || this.peer.refusing) {
      done(false);
      return;
    }
    this.onWrite?.(bytes);
    if (this.waitingBytes === 0 && this.takenBytes + bytes.length <= this.bufferBytes) {
      this.send(bytes, bytes.length);
      this.loop.afterwards(() => done(true));
      return;
    }
    this.waiting.push({ bytes, done });
    this.waitingBytes += bytes.length;
    this.take();
    this.queuedBytesSeen = Math.max(this.queuedBytesSeen, this.waitingBytes);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (this.view === null) {
      this.view = this.sink?.buffer() ?? null;
      if (this.view === null) return;
    }
    this.paused = false;
    this.readLater(0);
  }

  unreadBytes(): number {
    return this.inboxBytes;
  }

  acceptedBytes(): number {
    return this.writtenBytes - this.queuedBytes();
  }

  sendLast(): number {
    return 0;
  }

  unsentBytes(): number {
    return this.midwayBytes + this.waitingBytes + this.takenBytes;
  }

  queuedBytes(): number {
    // The kernel will take as much of a write in progress as it has room for.
    return this.waitingBytes + Math.max(0, this.takenBytes + this.midwayBytes - this.bufferBytes);
  }

  get isOpen(): boolean {
    return this.open;
  }

  refuse(): void {
    this.refusing = true;
    this.ended = true;
    this.readLater(0);
  }

  /** A write would fail; between sockets of one host a process notices at once. */
  get broken(): boolean {
    return !this.peer.open || this.peer.refusing;
  }

  close(): void {
    if (!this.open) return;
    if (this.midwayBytes > 0) {
      this.owner.act(() => this.close());
      return;
    }
    this.shut();
  }

  private shut(): void {
    this.hangUp();
    if (this.sink !== null) this.notifyClosed();
  }

  /** The connection breaks under both ends. */
  reset(): void {
    this.breakDown();
    this.peer.breakDown();
  }

  /** The connection breaks under this end; the other one is notified unless the way there is cut. */
  resetHere(): void {
    this.breakDown();
  }

  /** The host is gone: no end is notified. */
  vanish(): void {
    this.vanished = true;
    this.open = false;
    this.owner.onDeath.delete(this.forget);
  }

  private breakDown(): void {
    if (!this.open) return;
    this.failure = new Error('read ECONNRESET');
    this.dropInbox(this.inboxBytes);
    this.shut();
  }

  /** Ends this side; bytes that the kernel has taken still arrive. */
  private hangUp(): void {
    if (!this.open) return;
    this.open = false;
    this.owner.onDeath.delete(this.forget);
    const { waiting, waitingAt } = this;
    this.waiting = [];
    this.waitingBytes = 0;
    this.loop.afterwards(() => {
      for (let i = waitingAt; i < waiting.length; i++) waiting[i].done(false);
    });
    this.leftUnread = this.inboxBytes > 0;
    this.dropInbox(this.inboxBytes);
    this.travel(0);
  }

  /** The kernel takes what it has room for. */
  private take(): void {
    while (this.waitingAt < this.waiting.length && this.takenBytes < this.bufferBytes) {
      const { bytes, done } = this.waiting[this.waitingAt];
      const now = Math.min(bytes.length, this.bufferBytes - this.takenBytes);
      this.waitingBytes -= now;
      this.send(bytes, now);
      if (now < bytes.length) {
        this.waiting[this.waitingAt] = { bytes: bytes.subarray(now), done };
        return;
      }
      this.waitingAt++;
      this.loop.afterwards(() => done(true));
    }
    if (this.waitingAt === this.waiting.length && this.waitingAt > 0) {
      this.waiting = [];
      this.waitingAt = 0;
    }
  }

  private send(bytes: Uint8Array, length: number): void {
    const { nowMs } = this.loop;
    const { flights, route } = this;
    if (length === 0) return;
    this.takenBytes += length;
    this.peer.store(bytes, length);
    const last = flights.length - 1;
    if (last >= 0 && flights[last].sentMs === nowMs && flights[last].bytes > 0) {
      flights[last].bytes += length;
      return;
    }
    if (route.rate !== Number.POSITIVE_INFINITY) {
      route.busyUntilMs = Math.max(route.busyUntilMs, nowMs) + length / route.rate;
    }
    this.travel(length);
  }

  /** Sends bytes in order; after a cut they are retransmitted. */
  private travel(bytes: number): void {
    const { route, loop, die, flights } = this;
    const startMs = Math.max(loop.nowMs, route.busyUntilMs);
    const jitterMs = die.next() * route.jitterMs;
    this.lastArrivalMs = Math.max(this.lastArrivalMs, startMs + (route.delayMs + route.lateMs) + jitterMs);
    flights.push({ sentMs: loop.nowMs, atMs: this.lastArrivalMs, bytes });
    if (flights.length === 1) loop.at(this.lastArrivalMs, null, this.land);
  }

  private readonly land = (): void => {
    const { route, loop, flights } = this;
    if (route.cutUntilMs > loop.nowMs) {
      // TCP retransmits, after a timeout that has doubled a few times, unless its host is gone.
      if (!this.vanished && route.cutUntilMs < Number.POSITIVE_INFINITY)
        loop.at(route.cutUntilMs + this.die.next() * 400, null, this.land);
      return;
    }
    const { bytes } = flights.shift() as Flight;
    if (flights.length > 0) loop.at(flights[0].atMs, null, this.land);
    if (bytes > 0) this.peer.arrive(bytes);
    else this.peer.receiveEnd();
  };

  /** Stores bytes that the peer sends; they arrive later. */
  private store(bytes: Uint8Array, length: number): void {
    const stored = this.inboxEnd - this.inboxAt;
    if (this.inboxEnd + length > this.inbox.length) {
      const { inbox } = this;
      if (2 * (stored + length) > inbox.length)
        this.inbox = new Uint8Array(Math.max(4 * (stored + length), 4096));
      this.inbox.set(inbox.subarray(this.inboxAt, this.inboxEnd));
      this.inboxAt = 0;
      this.inboxEnd = stored;
    }
    copyBytes(bytes, 0, this.inbox, this.inboxEnd, length);
    this.inboxEnd += length;
  }

  private dropInbox(bytes: number): void {
    this.inboxBytes -= bytes;
    this.inboxAt += bytes;
    if (this.inboxAt === this.inboxEnd) {
      this.inboxAt = 0;
      this.inboxEnd = 0;
    }
  }

  private arrive(bytes: number): void {
    this.inboxBytes += bytes;
    if (this.vanished) {
      this.dropInbox(bytes);
      if (this.host.up) this.peer.breakDown();
      return;
    }
    if (!this.open) {
      this.dropInbox(bytes);
      this.peer.takenBytes -= bytes;
      return;
    }
    this.readAtOnce();
  }

  private receiveEnd(): void {
    if (this.peer.leftUnread && this.open) this.failure = new Error('read ECONNRESET');
    this.ended = true;
    this.readLater(0);
  }

  /** Reads bytes in the instant in which they arrive, unless the process is paused, slow, or about to read anyway. */
  private readAtOnce(): void {
    if (this.readDelayMs > 0) {
      this.readLater(0);
      return;
    }
    if (this.reading || this.paused || !this.open || this.sink === null) return;
    this.reading = true;
    this.loop.now(this.owner, this.readTurn);
  }

  private readLater(ms: number): void {
    if (this.reading || this.paused || !this.open || this.sink === null) return;
    if (this.inboxBytes === 0 && (!this.ended || (this.refusing && this.peer.flights.length > 0))) return;
    this.reading = true;
    const slowMs = this.readDelayMs > 0 ? this.die.next() * this.readDelayMs : 0;
    this.loop.after(ms + slowMs, this.owner, this.readTurn);
  }

  private readonly readTurn = (): void => {
    this.reading = false;
    this.read();
  };

  private read(): void {
    const { sink, view } = this;
    if (this.paused || !this.open || sink === null || view === null) return;
    if (this.inboxBytes === 0) {
      if (!this.ended || this.peer.flights.length > 0) return;
      this.close();
      return;
    }
    const most = Math.min(view.length, this.inboxBytes);
    // Most reads return all bytes that have arrived.
    const bytes = most > 1 && this.die.next() < 0.1 ? this.die.within(1, most) : most;
    copyBytes(this.inbox, this.inboxAt, view, 0, bytes);
    this.dropInbox(bytes);
    const { peer } = this;
    peer.takenBytes -= bytes;
    if (peer.waitingBytes > 0 && peer.open) this.loop.after(READ_AGAIN_MS, peer.owner, () => peer.take());
    this.view = null;
    sink.read(bytes);
    if (!this.open) return;
    if (this.view === null) this.view = sink.buffer();
    if (this.view === null) this.paused = true;
    this.readLater(READ_AGAIN_MS);
  }

  private notifyClosed(): void {
    if (this.closeNotified) return;
    this.closeNotified = true;
    this.loop.after(0, this.owner, () => this.sink?.closed(this.failure));
  }
}
