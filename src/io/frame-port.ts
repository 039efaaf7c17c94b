/**
 * A port: one stream of frames in and out, the VM's or the uplink's. A stream that ends may be followed by another:
 * framing starts afresh with it.
 *
 * Inward it cuts frames and hands them to its handler, which can be exchanged (a secondary becomes a primary
 * without letting go of its sockets). Outward it takes runs. It reports its end once. When no slab is free it
 * stops reading and goes on when there is one.
 */

import { ColoError, invariant } from '../error.ts';
import { type FrameHandler, FrameReader, type Framing } from '../frames/frame-reader.ts';
import { RunQueue } from '../frames/run-queue.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { LIMITS } from '../limits.ts';
import type { KernelStream } from './byte-stream.ts';

export class FramePort {
  readonly name: string;
  onClosed: (cause: Error | null) => void = () => {};
  /** Some of what was written has left, or never will: there may be room again (see `queuedBytes`). */
  onWritten: () => void = () => {};
  /** Something that was to leave never will. `onWritten` follows. */
  onLost: () => void = () => {};
  readonly out: RunQueue;
  /** Frames that were to leave while there was no stream. */
  droppedFrames = 0;
  private readonly slabs: SlabPool;
  private readonly reader: FrameReader;
  private stream: KernelStream | null = null;
  private holds = 0;

  constructor(name: string, slabs: SlabPool, handler: FrameHandler, framing: Framing = 'plain') {
    this.name = name;
    this.slabs = slabs;
    this.out = new RunQueue(slabs, slabs.slabBytes, framing);
    this.reader = new FrameReader(slabs, LIMITS.frameBytesMax, handler, framing);
  }

  /** Who hears what is read. */
  set handler(handler: FrameHandler) {
    this.reader.handler = handler;
  }

  attach(stream: KernelStream): void {
    invariant(this.stream === null, `${this.name} already has a stream`);
    this.stream = stream;
    stream.start({
      buffer: () => this.nextBuffer(),
      read: (bytes) => this.onRead(bytes),
      closed: (cause) => this.finish(stream, cause ?? this.cutShort()),
    });
    if (this.holds > 0) stream.pause();
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
    stream.cork();
    this.out.drain((slab, start, end) => {
      stream.write(this.slabs.buffer(slab).subarray(start, end), (taken) => {
        if (!taken) this.onLost();
        this.slabs.unref(slab);
        this.onWritten();
      });
    }, bytesMax);
    stream.uncork();
  }

  /** Writes bytes that lie in no slab: a frame that the node itself made, its prefix included. */
  writeOwn(bytes: Uint8Array): void {
    this.stream?.write(bytes, () => {});
  }

  /** True when the other end has read every byte that was ever written. */
  get drained(): boolean {
    return this.stream === null || (this.out.runs === 0 && this.stream.unsentBytes() === 0);
  }

  /** True when everything that the other end has written was handed on. */
  get exhausted(): boolean {
    return this.stream === null || this.stream.unreadBytes() === 0;
  }

  get queuedBytes(): number {
    return this.stream?.queuedBytes() ?? 0;
  }

  /** Stops reading; every hold needs one unhold. */
  pauseReading(): void {
    if (this.holds++ === 0) this.stream?.pause();
  }

  resumeReading(): void {
    if (--this.holds === 0) this.stream?.resume();
  }

  close(): void {
    const { stream } = this;
    if (stream === null) return;
    stream.close();
    this.finish(stream, null);
  }

  private nextBuffer(): Uint8Array | null {
    const buffer = this.reader.buffer();
    if (buffer === null) {
      this.holds++;
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
    this.reader.close();
    this.drop();
    this.onWritten();
    this.onClosed(cause);
  }

  private drop(): void {
    if (this.out.frames > 0) this.onLost();
    this.droppedFrames += this.out.frames;
    this.out.clear();
  }
}
