/**
 * A stream whose first bytes somebody has read already: its user gets them first, and then the stream itself.
 *
 * From the construction until the user has taken the preface, the inner stream is not read; its end is remembered.
 */
import type { KernelStream, StreamSink } from '../io/byte-stream.ts';

export class PrefacedStream implements KernelStream {
  private readonly inner: KernelStream;
  private preface: Uint8Array;
  private phase: 'waiting' | 'pouring' | 'passed on' | 'closed' = 'waiting';
  private sink: StreamSink | null = null;
  private paused = false;
  private end: { cause: Error | null } | null = null;

  constructor(inner: KernelStream, preface: Uint8Array) {
    this.inner = inner;
    this.preface = preface;
    inner.start({
      buffer: () => null,
      read: () => {},
      closed: (cause) => {
        this.end = { cause };
        if (this.phase === 'closed') this.sink?.closed(cause);
        else this.pour();
      },
    });
  }

  start(sink: StreamSink): void {
    this.sink = sink;
    this.paused = false;
    if (this.phase === 'passed on') this.inner.start(sink);
    else this.pour();
  }

  cork(): void {
    this.inner.cork();
  }

  uncork(): void {
    this.inner.uncork();
  }

  write(bytes: Uint8Array, done: (taken: boolean) => void): void {
    this.inner.write(bytes, done);
  }

  pause(): void {
    this.paused = true;
    if (this.phase === 'passed on') this.inner.pause();
  }

  resume(): void {
    this.paused = false;
    if (this.phase === 'passed on') this.inner.resume();
    else this.pour();
  }

  unreadBytes(): number {
    return this.preface.length + this.inner.unreadBytes();
  }

  acceptedBytes(): number {
    return this.inner.acceptedBytes();
  }

  sendLast(bytes: Uint8Array): number {
    return this.inner.sendLast(bytes);
  }

  unsentBytes(): number {
    return this.inner.unsentBytes();
  }

  queuedBytes(): number {
    return this.inner.queuedBytes();
  }

  refuse(): void {
    this.inner.refuse();
  }

  close(): void {
    this.phase = 'closed';
    this.inner.close();
  }

  /** Gives the user the preface, and after it the stream, or its end. */
  private pour(): void {
    const { sink } = this;
    if (sink === null || this.phase !== 'waiting') return;
    this.phase = 'pouring';
    while (this.preface.length > 0 && this.phase === 'pouring') {
      const room = this.paused ? null : sink.buffer();
      if (room === null) {
        this.phase = 'waiting';
        return;
      }
      const bytes = Math.min(room.length, this.preface.length);
      room.set(this.preface.subarray(0, bytes));
      this.preface = this.preface.subarray(bytes);
      sink.read(bytes);
    }
    if (this.phase !== 'pouring') return;
    this.phase = 'passed on';
    if (this.end !== null) sink.closed(this.end.cause);
    else {
      this.inner.start(sink);
      if (this.paused) this.inner.pause();
    }
  }
}
