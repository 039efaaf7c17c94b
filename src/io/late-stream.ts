/**
 * A connection that is made when the first bytes are written to it.
 *
 * A QEMU that waits for state reads the first of it in its main loop, and replies to nothing meanwhile. Where a long time passes
 * before the state comes, for instance the copy of a disk, QEMU must not be connected before.
 *
 * Phases: waiting -> connecting -> open -> closed. Bytes that are written before it is open wait in their owner's memory, in order.
 * Failure: a connection that cannot be made closes the stream with the cause.
 */
import { messageOf } from '../error.ts';
import type { KernelStream, StreamSink } from './byte-stream.ts';

type Write = { readonly bytes: Uint8Array; readonly done: (taken: boolean) => void };

export class LateStream implements KernelStream {
  private readonly connect: () => Promise<KernelStream>;
  private phase: 'waiting' | 'connecting' | 'open' | 'closed' = 'waiting';
  private inner: KernelStream | null = null;
  private sink: StreamSink | null = null;
  private paused = false;
  private waiting: Write[] = [];

  constructor(connect: () => Promise<KernelStream>) {
    this.connect = connect;
  }

  start(sink: StreamSink): void {
    this.sink = sink;
    this.inner?.start(sink);
  }

  cork(): void {
    this.inner?.cork();
  }

  uncork(): void {
    this.inner?.uncork();
  }

  write(bytes: Uint8Array, done: (taken: boolean) => void): void {
    if (this.inner !== null) {
      this.inner.write(bytes, done);
      return;
    }
    if (this.phase === 'closed') {
      done(false);
      return;
    }
    this.waiting.push({ bytes, done });
    if (this.phase !== 'waiting') return;
    this.phase = 'connecting';
    this.connect().then(
      (inner) => this.opened(inner),
      (cause: unknown) => this.end(cause instanceof Error ? cause : new Error(messageOf(cause))),
    );
  }

  pause(): void {
    this.paused = true;
    this.inner?.pause();
  }

  resume(): void {
    this.paused = false;
    this.inner?.resume();
  }

  queuedBytes(): number {
    const waiting = this.waiting.reduce((sum, { bytes }) => sum + bytes.length, 0);
    return waiting + (this.inner?.queuedBytes() ?? 0);
  }

  unreadBytes(): number {
    return this.inner?.unreadBytes() ?? 0;
  }

  acceptedBytes(): number {
    return this.inner?.acceptedBytes() ?? 0;
  }

  sendLast(bytes: Uint8Array): number {
    return this.inner?.sendLast(bytes) ?? 0;
  }

  unsentBytes(): number {
    return this.inner?.unsentBytes() ?? this.queuedBytes();
  }

  refuse(): void {
    if (this.inner === null) this.end(null);
    else this.inner.refuse();
  }

  close(): void {
    if (this.inner === null) this.drop();
    else this.inner.close();
  }

  private opened(inner: KernelStream): void {
    if (this.phase === 'closed') {
      inner.close();
      return;
    }
    this.phase = 'open';
    this.inner = inner;
    if (this.sink !== null) inner.start(this.sink);
    if (this.paused) inner.pause();
    for (const { bytes, done } of this.waiting.splice(0)) inner.write(bytes, done);
  }

  private drop(): void {
    this.phase = 'closed';
    for (const { done } of this.waiting.splice(0)) done(false);
  }

  private end(cause: Error | null): void {
    if (this.phase === 'closed') return;
    this.drop();
    this.sink?.closed(cause);
  }
}
