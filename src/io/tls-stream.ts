/**
 * A TLS connection as a ByteStream.
 *
 * Writing: what is written between cork and uncork reaches OpenSSL as one write, and so leaves as one record, or as one for
 * each 16 KiB; a write's `done` is called on the next turn of the event loop at the earliest, and until then later writes
 * gather for one more record.
 *
 * Reading: the bytes of a record are put straight into the sink's buffer (read-into.ts). One read of the socket may bring several
 * records, and all of them are read, whether the sink has room or not: those for which it has none, or that come while it pauses, lie
 * in `rest` meanwhile, at most 64 KiB of them. Where read-into.ts knows this Node not, all bytes come as chunks and are copied.
 *
 * Failure: `closed` gets the socket's error, or null if the peer ended the connection, with or without close_notify: for the link
 * both are the end of the connection. COLO_STREAM_LOST as in socket-stream.ts.
 */
import type { TLSSocket } from 'node:tls';
import type { ByteStream, StreamSink } from './byte-stream.ts';
import { readInto } from './read-into.ts';

/** A record. */
const SPARE_BYTES = 16 * 1024;

export class TlsStream implements ByteStream {
  /** the node that the peer's certificate names */
  readonly provenNode: string;
  private readonly socket: TLSSocket;
  private sink: StreamSink | null = null;
  /** received, and not taken by the sink */
  private rest: Uint8Array | null = null;
  private paused = true;
  private failure: Error | null = null;
  private delivering = false;
  /** Where the socket puts what it reads next: into the sink's buffer, or into `spare`. */
  private target: 'sink' | 'spare' = 'spare';
  private spare = new Uint8Array(SPARE_BYTES);
  private readonly useNext: ((buffer: Uint8Array) => void) | null;
  /**
   * ending: the peer has ended the connection, and the sink has still to take `rest`. closing: this end closes it, and the sink gets
   * nothing more but `closed`.
   */
  private phase: 'open' | 'ending' | 'closing' | 'closed' = 'open';

  /** `socket` has completed its handshake. */
  constructor(socket: TLSSocket, provenNode: string) {
    this.socket = socket;
    this.provenNode = provenNode;
    socket.on('data', (chunk: Buffer) => this.deliver(chunk));
    socket.on('error', (cause) => {
      this.failure = cause;
    });
    socket.on('end', () => socket.destroy());
    socket.on('close', () => this.onClosed());
    // A listener for data makes a socket flow.
    socket.pause();
    // What came with the end of the handshake.
    this.rest = socket.readableLength > 0 ? (socket.read() as Buffer) : null;
    this.useNext = readInto(socket, { buffer: () => this.nextBuffer(), read: (bytes) => this.onRead(bytes) });
    this.useNext?.(this.spare);
    socket.pause();
  }

  start(sink: StreamSink): void {
    this.sink = sink;
    if (this.target === 'sink') {
      // That of the sink before.
      this.target = 'spare';
      this.useNext?.(this.spare);
    }
    if (this.phase === 'closed') queueMicrotask(() => sink.closed(this.failure));
    else this.resume();
  }

  cork(): void {
    this.socket.cork();
  }

  uncork(): void {
    this.socket.uncork();
  }

  write(bytes: Uint8Array, done: (taken: boolean) => void): void {
    if (this.socket.destroyed) {
      done(false);
      return;
    }
    this.socket.write(bytes, (error) => done(!error));
  }

  pause(): void {
    this.paused = true;
    this.socket.pause();
  }

  resume(): void {
    if (this.phase === 'closing' || this.phase === 'closed') return;
    this.paused = false;
    const { rest } = this;
    this.rest = null;
    if (rest !== null) this.deliver(rest);
    if (this.paused) return;
    if (this.phase === 'open') this.socket.resume();
    // Not from within a read of what the peer sent last: there may be more of it.
    else if (!this.delivering) this.finish();
  }

  queuedBytes(): number {
    return this.socket.writableLength;
  }

  close(): void {
    const { phase } = this;
    if (phase === 'closing' || phase === 'closed') return;
    this.phase = 'closing';
    this.paused = true;
    this.socket.destroy();
    if (phase === 'ending') queueMicrotask(() => this.finish());
  }

  private nextBuffer(): Uint8Array {
    const buffer = this.paused ? null : (this.sink?.buffer() ?? null);
    if (buffer !== null) {
      this.target = 'sink';
      return buffer;
    }
    if (!this.paused) this.pause();
    this.target = 'spare';
    // The one before may be in use.
    if (this.rest !== null) this.spare = new Uint8Array(SPARE_BYTES);
    return this.spare;
  }

  private onRead(bytes: number): void {
    if (this.target === 'sink') {
      this.sink?.read(bytes);
      return;
    }
    const read = this.spare.subarray(0, bytes);
    if (this.rest !== null) this.rest = Buffer.concat([this.rest, read]);
    else this.deliver(read);
  }

  /** Copies bytes to the sink's buffers, until it has none or pauses. */
  private deliver(bytes: Uint8Array): void {
    let at = 0;
    this.delivering = true;
    while (at < bytes.length && !this.paused) {
      const buffer = this.sink?.buffer() ?? null;
      if (buffer === null) {
        this.pause();
        break;
      }
      const length = Math.min(buffer.length, bytes.length - at);
      buffer.set(at === 0 && length === bytes.length ? bytes : bytes.subarray(at, at + length));
      at += length;
      this.sink?.read(length);
      if (this.socket.destroyed && this.phase === 'open') break;
    }
    this.delivering = false;
    if (at < bytes.length) this.rest = bytes.subarray(at);
  }

  private onClosed(): void {
    if (this.phase === 'open' && this.rest !== null && this.failure === null) this.phase = 'ending';
    else this.finish();
  }

  private finish(): void {
    if (this.phase === 'closed') return;
    this.phase = 'closed';
    this.rest = null;
    this.sink?.closed(this.failure);
  }
}
