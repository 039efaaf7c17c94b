/**
 * A port: one stream of frames in and out, the VM's or the uplink's.
 *
 * Inward it cuts frames and hands them to its handler, which can be exchanged (a secondary becomes a primary
 * without letting go of its sockets). Outward it takes runs. It reports its end once. When no slab is free it
 * stops reading and goes on when there is one.
 */
import { LIMITS } from '../compare/limits.ts';
import type { ByteStream } from './byte-stream.ts';
import { type FrameHandler, FrameReader } from './frame-reader.ts';
import { RunQueue } from './run-queue.ts';
import type { SlabPool } from './slabs.ts';

export class FramePort {
  readonly name: string;
  handler: FrameHandler;
  onClosed: (cause: Error | null) => void = () => {};
  readonly out: RunQueue;
  private readonly stream: ByteStream;
  private readonly slabs: SlabPool;
  private readonly reader: FrameReader;
  private open = true;
  private holds = 0;

  constructor(name: string, stream: ByteStream, slabs: SlabPool, handler: FrameHandler) {
    this.name = name;
    this.stream = stream;
    this.slabs = slabs;
    this.handler = handler;
    this.out = new RunQueue(slabs, LIMITS.slabBytes);
    this.reader = new FrameReader(slabs, LIMITS.frameBytesMax, {
      frame: (slab, at, length) => this.handler.frame(slab, at, length),
      batchEnd: () => this.handler.batchEnd(),
    });
  }

  start(): void {
    this.stream.start({
      buffer: () => this.nextBuffer(),
      read: (bytes) => this.onRead(bytes),
      closed: (cause) => this.finish(cause),
    });
  }

  get isOpen(): boolean {
    return this.open;
  }

  /** Writes what `out` has gathered. */
  flush(): void {
    if (this.out.runs === 0) return;
    if (!this.open) {
      this.out.clear();
      return;
    }
    this.stream.cork();
    this.out.drain((slab, start, end) => {
      this.stream.write(this.slabs.buffer(slab).subarray(start, end), () => this.slabs.release(slab));
    });
    this.stream.uncork();
  }

  /** Writes bytes that lie in no slab: a frame that the node itself made, its prefix included. */
  writeOwn(bytes: Uint8Array): void {
    if (this.open) this.stream.write(bytes, () => {});
  }

  /** True when the other end has read every byte that was ever written. */
  get drained(): boolean {
    return !this.open || (this.out.runs === 0 && this.stream.unsentBytes() === 0);
  }

  /** True when everything that the other end has written was handed on. */
  get exhausted(): boolean {
    return !this.open || this.stream.unreadBytes() === 0;
  }

  get queuedBytes(): number {
    return this.stream.queuedBytes();
  }

  /** Stops reading; every hold needs one unhold. */
  hold(): void {
    if (this.holds++ === 0) this.stream.pause();
  }

  unhold(): void {
    if (--this.holds === 0 && this.open) this.stream.resume();
  }

  close(): void {
    this.stream.close();
    this.finish(null);
  }

  private nextBuffer(): Uint8Array | null {
    const buffer = this.reader.buffer();
    if (buffer === null) {
      this.holds++;
      this.slabs.whenFree(() => this.unhold());
    }
    return buffer;
  }

  private onRead(bytes: number): void {
    if (!this.open) return;
    try {
      this.reader.read(bytes);
    } catch (cause) {
      this.stream.close();
      this.finish(cause instanceof Error ? cause : new Error(String(cause)));
    }
  }

  private finish(cause: Error | null): void {
    if (!this.open) return;
    this.open = false;
    this.reader.close();
    this.out.clear();
    this.onClosed(cause);
  }
}
