/** Two ends of a connection in memory. Bytes move only when the test pumps, in pieces of any size. */
import assert from 'node:assert/strict';
import type { KernelStream, StreamSink } from '../../src/io/byte-stream.ts';

export class FakeStream implements KernelStream {
  peer: FakeStream | null = null;
  sink: StreamSink | null = null;
  /** what the peer wrote and this end has not read */
  inbox: Buffer = Buffer.alloc(0);
  /** the kernel takes no writes: they wait in this process */
  stalled = false;
  open = true;
  paused = true;
  corks = 0;
  writes = 0;
  /** While stalled, the kernel still takes so many bytes. */
  stalledRoom = 0;
  /** The kernel takes no more, whatever room is made. */
  isFull = false;
  private accepted = 0;
  /** the peer's writes fail */
  refusing = false;
  /** Writes fail: as with a socket they wait no more, and their user is notified later. */
  failing = false;
  private endNotified = false;
  private waiting: { bytes: Uint8Array; done: (taken: boolean) => void }[] = [];

  start(sink: StreamSink): void {
    this.sink = sink;
    this.paused = false;
  }

  cork(): void {
    this.corks++;
  }

  uncork(): void {
    this.corks--;
  }

  write(bytes: Uint8Array, done: (taken: boolean) => void): void {
    this.writes++;
    if (!this.open) {
      done(false);
      return;
    }
    if (this.failing) {
      queueMicrotask(() => done(false));
      return;
    }
    this.waiting.push({ bytes, done });
    if (!this.stalled) this.unstall();
    else this.takePart();
  }

  /** The kernel's buffer has room for a part of the first write that waits. */
  private takePart(): void {
    const [first] = this.waiting;
    const part = Math.min(this.stalledRoom, first.bytes.length - 1);
    if (part <= 0) return;
    this.stalledRoom -= part;
    this.take(first.bytes.subarray(0, part));
    first.bytes = first.bytes.subarray(part);
  }

  /** From now on the kernel takes writes, those first that wait. */
  unstall(): void {
    this.stalled = false;
    const { waiting } = this;
    this.waiting = [];
    for (const { bytes, done } of waiting) {
      this.take(bytes);
      done(true);
    }
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  unreadBytes(): number {
    return this.inbox.length;
  }

  acceptedBytes(): number {
    return this.accepted;
  }

  sendLast(bytes: Uint8Array): number {
    if (this.isFull) return 0;
    this.take(bytes);
    return bytes.length;
  }

  private take(bytes: Uint8Array): void {
    const { peer } = this;
    this.accepted += bytes.length;
    if (peer?.open && !peer.refusing) peer.inbox = Buffer.concat([peer.inbox, bytes]);
  }

  unsentBytes(): number {
    return this.queuedBytes() + (this.peer?.inbox.length ?? 0);
  }

  queuedBytes(): number {
    return this.waiting.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  refuse(): void {
    this.refusing = true;
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    for (const { done } of this.waiting) done(false);
    this.waiting = [];
    this.inbox = Buffer.alloc(0);
  }

  /** Reads once, at most `bytesMax` bytes, or notifies of the end; returns whether either happened. */
  pump(bytesMax = Number.POSITIVE_INFINITY): boolean {
    const { sink } = this;
    if (sink === null) return false;
    if (!this.open) {
      // A socket too notifies of its end later, and once.
      const notified = this.endNotified;
      this.endNotified = true;
      if (!notified) sink.closed(null);
      return !notified;
    }
    if (this.paused) return false;
    if (this.inbox.length === 0) {
      if (this.peer?.open !== false && !this.refusing) return false;
      this.close();
      return true;
    }
    const buffer = sink.buffer();
    if (buffer === null) {
      this.paused = true;
      return false;
    }
    assert.ok(buffer.length > 0, 'an empty buffer to read into');
    const bytes = Math.min(buffer.length, this.inbox.length, bytesMax);
    buffer.set(this.inbox.subarray(0, bytes));
    this.inbox = this.inbox.subarray(bytes);
    sink.read(bytes);
    return true;
  }
}

export function fakePair(): [FakeStream, FakeStream] {
  const a = new FakeStream();
  const b = new FakeStream();
  a.peer = b;
  b.peer = a;
  return [a, b];
}

export function pumpAll(...streams: FakeStream[]): void {
  while (streams.map((stream) => stream.pump()).includes(true));
}

/** Returns frames with their length prefixes, as a VM port carries them. */
export function framed(...frames: Uint8Array[]): Buffer {
  return Buffer.concat(
    frames.flatMap((frame) => {
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(frame.length);
      return [prefix, frame];
    }),
  );
}

export function unframed(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    assert.ok(at + 4 + length <= bytes.length, 'the stream ends inside a frame');
    frames.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return frames;
}
