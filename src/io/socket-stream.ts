/**
 * A socket as a ByteStream: reads go straight into the sink's buffer (`onread`), with no allocation per read but
 * the view. Both ends of a connection use it; an accepted socket is wrapped by its handle, because `onread` can
 * only be given at construction. The listener must accept with `pauseOnConnect: true`.
 */
import net from 'node:net';
import { type Endpoint, formatEndpoint, socketAddress } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import type { KernelStream, StreamSink } from './byte-stream.ts';
import { refuseInKernel, unreadInKernel, unsentInKernel } from './socket-queue.ts';
import { removeStaleSocket } from './unix-socket.ts';

type Handle = { fd: number; useUserBuffer(buffer: Uint8Array): void };
type WithHandle = { _handle: Handle | null };

const NOTHING = new Uint8Array(1);

class SocketStream implements KernelStream {
  private readonly socket: net.Socket;
  private sink: StreamSink | null = null;
  private view: Uint8Array = NOTHING;
  private failure: Error | null = null;
  private ended = false;

  constructor(open: (onread: net.OnReadOpts) => net.Socket) {
    this.socket = open({
      buffer: () => this.nextBuffer(),
      callback: (bytes) => this.onRead(bytes),
    });
    this.socket.on('error', (cause) => {
      this.failure = cause;
    });
    this.socket.on('end', () => this.socket.destroy());
    this.socket.on('close', () => this.onClosed());
    this.socket.pause();
  }

  get raw(): net.Socket {
    return this.socket;
  }

  start(sink: StreamSink): void {
    this.sink = sink;
    this.view = NOTHING;
    if (this.ended) queueMicrotask(() => sink.closed(this.failure));
    else this.resume();
  }

  cork(): void {
    this.socket.cork();
  }

  uncork(): void {
    this.socket.uncork();
  }

  write(bytes: Uint8Array, done: (taken: boolean) => void): void {
    if (this.ended || this.socket.destroyed) {
      done(false);
      return;
    }
    this.socket.write(bytes, (error) => done(!error));
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    if (this.view === NOTHING) {
      // Node asks for the next buffer right after a read; while reading was stopped it had none to get.
      this.view = this.sink?.buffer() ?? NOTHING;
      if (this.view === NOTHING) return;
      this.handle()?.useUserBuffer(this.view);
    }
    this.socket.resume();
  }

  unreadBytes(): number {
    return unreadInKernel(this.fd());
  }

  unsentBytes(): number {
    return this.socket.writableLength + unsentInKernel(this.fd());
  }

  queuedBytes(): number {
    return this.socket.writableLength;
  }

  refuse(): void {
    refuseInKernel(this.fd());
  }

  close(): void {
    this.socket.destroy();
  }

  private fd(): number {
    return this.handle()?.fd ?? -1;
  }

  private handle(): Handle | null {
    return (this.socket as unknown as WithHandle)._handle;
  }

  private nextBuffer(): Uint8Array {
    this.view = this.sink?.buffer() ?? NOTHING;
    if (this.view === NOTHING && this.sink !== null) this.socket.pause();
    return this.view;
  }

  private onRead(bytes: number): boolean {
    if (this.view === NOTHING) {
      // The sink had no room when libuv asked, and libuv reads all the same: a stream that loses a byte is lost.
      this.failure = new ColoError('COLO_STREAM_OVERRUN', 'a read arrived while no buffer was free');
      this.socket.destroy();
      return false;
    }
    this.sink?.read(bytes);
    return true;
  }

  private onClosed(): void {
    if (this.ended) return;
    this.ended = true;
    this.sink?.closed(this.failure);
  }
}

/** Connects; rejects with COLO_ENDPOINT_CONNECT. */
export function connectStream(endpoint: Endpoint): Promise<KernelStream> {
  return new Promise((resolve, reject) => {
    const target = { ...socketAddress(endpoint), noDelay: true };
    const stream = new SocketStream((onread) => net.connect({ ...target, onread }));
    const failed = (cause: Error) =>
      reject(
        new ColoError(
          'COLO_ENDPOINT_CONNECT',
          `cannot connect to ${formatEndpoint(endpoint)}: ${cause.message}`,
          { cause },
        ),
      );
    stream.raw.once('error', failed);
    stream.raw.once('connect', () => {
      stream.raw.off('error', failed);
      resolve(stream);
    });
  });
}

/** `close` ends the listening alone: connections that were accepted live on, and whoever has one closes it. */
export type StreamListener = { close(): Promise<void> };

/** Accepts until closed; rejects with COLO_ENDPOINT_LISTEN when the place is taken. */
export async function listenStream(
  endpoint: Endpoint,
  accept: (stream: KernelStream) => void,
): Promise<StreamListener> {
  const server = net.createServer({ pauseOnConnect: true, noDelay: true }, (accepted) => {
    const handle = (accepted as unknown as { _handle: unknown })._handle;
    accept(new SocketStream((onread) => new net.Socket({ handle, onread } as net.SocketConstructorOpts)));
  });
  try {
    if (endpoint.kind === 'unix') await removeStaleSocket(endpoint.path);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(socketAddress(endpoint), resolve);
    });
  } catch (cause) {
    throw new ColoError(
      'COLO_ENDPOINT_LISTEN',
      `cannot listen on ${formatEndpoint(endpoint)}: ${(cause as Error).message}; stop what holds it or choose another`,
      { cause },
    );
  }
  return {
    // Not awaited: the server counts its connections by sockets that were replaced here, so it never sees one end.
    async close() {
      server.close();
    },
  };
}
