/**
 * A port: one stream of frames in and out, the VM's or the uplink's. When a stream ends, another may be attached: framing
 * starts again at its first byte.
 *
 * The port cuts the stream that it reads into frames and passes them to the user that has the seat (seat.ts); frames that
 * arrive while no user has it are dropped. It writes runs of frames from `out`. A promotion changes the user and leaves the
 * sockets open. The owner of the port, which attaches streams, is notified of each stream's end once (`onClosed`).
 *
 * Limits: without a free slab the port pauses reading until there is one. A port that reads `always` never pauses: the process
 * at its other end may be the one that has to free the slab. Its user leaves SLABS_PER_READER of the pool to its reader.
 */

import { ColoError, invariant } from '../error.ts';
import { FrameReader, type Framing, prefixBytesOf } from '../frames/frame-reader.ts';
import { RunQueue } from '../frames/run-queue.ts';
import type { SlabPool, SlabUser } from '../frames/slabs.ts';
import { LIMITS } from '../limits.ts';
import type { KernelStream } from './byte-stream.ts';
import { InFlight } from './in-flight.ts';
import { type PortUser, Seat } from './seat.ts';

/** Whether a port may pause reading. One that may not counts its slabs as those of `slabUser`. */
export type Reading =
  | { readonly kind: 'pausable' }
  | { readonly kind: 'always'; readonly slabUser: SlabUser };

const PAUSABLE: Reading = { kind: 'pausable' };

/** Slabs that a reader takes when none of its frames may be retained: the one that it fills, and the next. One is spare. */
export const SLABS_PER_READER = 3;

/**
 * Where what was written to a stream ended: at a frame boundary, within a frame, or, if the peer ended the stream, maybe within
 * one.
 */
export type StreamEnd = 'whole' | 'cut' | 'unknown';

const NOBODY: PortUser = { handler: { frame() {}, batchEnd() {} } };

export class FramePort {
  readonly name: string;
  onClosed: (cause: Error | null) => void = () => {};
  readonly out: RunQueue;
  /** Frames that were to leave while no stream was attached. */
  droppedFrames = 0;
  /** Of the stream before. */
  lastEnd: StreamEnd = 'whole';
  private readonly slabs: SlabPool;
  private readonly reading: Reading;
  private readonly reader: FrameReader;
  private stream: KernelStream | null = null;
  /** What was written to that stream. */
  private inFlight: InFlight;
  private readonly prefixBytes: number;
  private pauses = 0;
  private seated: Seat | null = null;
  private user: PortUser = NOBODY;

  /** `frameBytesMin`: what the port writes is padded to so many bytes. */
  constructor(
    name: string,
    slabs: SlabPool,
    framing: Framing = 'plain',
    frameBytesMin = 0,
    reading: Reading = PAUSABLE,
  ) {
    this.name = name;
    this.slabs = slabs;
    this.reading = reading;
    this.prefixBytes = prefixBytesOf(framing);
    this.inFlight = new InFlight(this.prefixBytes);
    this.out = new RunQueue(slabs, slabs.slabBytes, framing, frameBytesMin);
    const slabUser = reading.kind === 'always' ? reading.slabUser : 0;
    this.reader = new FrameReader(slabs, LIMITS.frameBytesMax, NOBODY.handler, framing, slabUser);
  }

  /** Gives the port to `user` until the seat ends. */
  seat(user: PortUser): Seat {
    invariant(this.seated === null, `the ${this.name} port is in use`);
    const seat = new Seat(this);
    this.seated = seat;
    this.user = user;
    this.reader.handler = user.handler;
    return seat;
  }

  /** For `Seat.end`. */
  vacate(seat: Seat): void {
    invariant(this.seated === seat, `the ${this.name} port was given back by a seat that does not have it`);
    this.seated = null;
    this.user = NOBODY;
    this.reader.handler = NOBODY.handler;
  }

  attach(stream: KernelStream): void {
    invariant(this.stream === null, `${this.name} already has a stream`);
    this.stream = stream;
    this.inFlight = new InFlight(this.prefixBytes);
    this.lastEnd = 'whole';
    stream.start({
      buffer: () => this.nextBuffer(),
      read: (bytes) => this.onRead(bytes),
      closed: (cause) => this.finish(stream, cause ?? this.cutShort()),
    });
    if (this.pauses > 0) stream.pause();
  }

  get isOpen(): boolean {
    return this.stream !== null;
  }

  /** Writes what `out` has gathered, or its beginning: no more than `bytesMax` bytes, but at least one run. */
  flush(bytesMax = Number.POSITIVE_INFINITY): void {
    if (this.out.runs === 0) return;
    const { stream } = this;
    if (stream === null) {
      this.drop();
      return;
    }
    const { inFlight } = this;
    stream.cork();
    this.out.drain((slab, start, end) => {
      const piece = this.slabs.buffer(slab).subarray(start, end);
      inFlight.push(piece);
      stream.write(piece, (taken) => {
        if (taken) inFlight.done();
        this.slabs.unref(slab);
        this.user.written?.();
      });
    }, bytesMax);
    stream.uncork();
  }

  /** Writes bytes that lie in no slab: a frame that the node itself made, its prefix included. */
  writeOwn(bytes: Uint8Array): void {
    const { stream, inFlight } = this;
    if (stream === null) return;
    inFlight.push(bytes);
    stream.write(bytes, (taken) => {
      if (taken) inFlight.done();
      this.user.written?.();
    });
  }

  /** True when the other end has read every byte that was ever written. */
  get drained(): boolean {
    return this.stream === null || (this.out.runs === 0 && this.stream.unsentBytes() === 0);
  }

  /** True when every byte that the other end has written has been read. */
  get exhausted(): boolean {
    return this.stream === null || this.stream.unreadBytes() === 0;
  }

  /** Bytes that the peer has not read: here, or in the kernel, which counts its own for each write on a unix socket. */
  get waitingBytes(): number {
    return this.out.bytes + (this.stream?.unsentBytes() ?? 0);
  }

  /** True unless something that was written to the stream waits for the peer; what waits in `out` was not written. */
  get isReadByPeer(): boolean {
    return this.stream === null || this.stream.unsentBytes() === 0;
  }

  /** Grows when the peer reads. The kernel counts more than the bytes of what is unread, so it may be below what was read. */
  get readByPeer(): number {
    const { stream } = this;
    return stream === null ? 0 : stream.acceptedBytes() - stream.unsentBytes();
  }

  get queuedBytes(): number {
    return this.stream?.queuedBytes() ?? 0;
  }

  /**
   * True when the kernel has taken all that was written to the stream. A write that has failed is not taken, and it is queued no
   * more: `lost` follows when the stream ends.
   */
  get isTaken(): boolean {
    return this.inFlight.isEmpty;
  }

  /** Stops reading; every pause needs one resume. Users of the port go through their seat. */
  pauseReading(): void {
    invariant(this.reading.kind !== 'always', `the ${this.name} port, which reads always, was paused`);
    if (this.pauses++ === 0) this.stream?.pause();
  }

  resumeReading(): void {
    invariant(this.pauses > 0, `the ${this.name} port resumed reading that was not paused`);
    if (--this.pauses === 0) this.stream?.resume();
  }

  close(): void {
    const { stream } = this;
    if (stream === null) return;
    stream.close();
    this.finish(stream, null);
  }

  /**
   * Closes the stream at a frame boundary: a peer that outlives this process would take the next stream's bytes for the rest
   * of a frame. Everything after that frame is dropped (`unsent`). `lastEnd` is `cut` if the kernel has no room for the rest.
   */
  closeWhole(): void {
    const { stream } = this;
    if (stream === null) return;
    this.flush();
    const { frames, bytes, cut } = this.inFlight.unsent(stream.acceptedBytes());
    const isWhole = cut === null || stream.sendLast(cut.rest) === cut.rest.length;
    if (isWhole) this.endWrites(frames, bytes, 'whole');
    else this.endWrites(frames + 1, bytes + cut.bytes, 'cut');
    this.close();
  }

  private nextBuffer(): Uint8Array | null {
    const buffer = this.reader.buffer();
    if (buffer === null) {
      invariant(
        this.reading.kind !== 'always',
        `no slab was left for the ${this.name} port, which reads always`,
      );
      this.pauses++;
      this.slabs.whenFree(() => this.resumeReading());
    }
    return buffer;
  }

  private onRead(bytes: number): void {
    const { stream } = this;
    if (stream === null) return;
    try {
      this.reader.read(bytes);
    } catch (cause) {
      stream.close();
      this.finish(stream, cause instanceof Error ? cause : new Error(String(cause)));
    }
  }

  private cutShort(): ColoError | null {
    const bytes = this.reader.partialBytes;
    if (bytes === 0) return null;
    return new ColoError('COLO_STREAM_FRAMING', `the stream ended ${bytes} bytes into a frame`);
  }

  private finish(stream: KernelStream, cause: Error | null): void {
    if (this.stream !== stream) return;
    this.stream = null;
    if (!this.inFlight.isEmpty) {
      const { frames, bytes, cut } = this.inFlight.unsent(stream.acceptedBytes());
      this.endWrites(frames + (cut === null ? 0 : 1), bytes + (cut?.bytes ?? 0), 'unknown');
      this.user.lost?.();
    } else if (cause !== null && !this.inFlight.isUnused) this.lastEnd = 'unknown';
    this.reader.close();
    this.drop();
    this.user.written?.();
    this.onClosed(cause);
  }

  private endWrites(frames: number, bytes: number, end: StreamEnd): void {
    this.inFlight = new InFlight(this.prefixBytes);
    this.lastEnd = end;
    if (frames > 0) this.user.unsent?.(frames, bytes);
  }

  private drop(): void {
    if (this.out.frames > 0) this.user.lost?.();
    this.droppedFrames += this.out.frames;
    this.out.clear();
  }
}
