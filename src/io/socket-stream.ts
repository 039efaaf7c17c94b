/**
 * A socket as a KernelStream. Node reads straight into the sink's buffer (`onread`); a read allocates nothing but the
 * view.
 *
 * Both ends of a connection use this class. Node takes `onread` only when it constructs a socket, so an accepted socket is
 * replaced by one with the same handle; the listener has to accept with `pauseOnConnect: true`.
 *
 * Failure: `closed` gets the socket's error, or null if the peer ended the connection. COLO_STREAM_OVERRUN if bytes arrive
 * while the sink has no buffer. COLO_STREAM_LOST if the peer's host is gone (host-watch.ts). A host that does not even refuse
 * a connection would keep connect(2) waiting for two minutes: CONNECT_MS_MAX.
 */
import { existsSync } from 'node:fs';
import net from 'node:net';
import { dirname } from 'node:path';
import { type Endpoint, formatEndpoint, socketAddress } from '../endpoint.ts';
import { ColoError, messageOf } from '../error.ts';
import type { KernelStream, StreamSink } from './byte-stream.ts';
import { deadline } from './deadline.ts';
import { watchHost } from './host-watch.ts';
import {
  refuseInKernel,
  reserveInKernel,
  sendInKernel,
  unreadInKernel,
  unsentInKernel,
} from './socket-queue.ts';
import { removeStaleSocket } from './unix-socket.ts';

type Handle = {
  fd: number;
  /** Of all writes, with what is still to be taken. */
  bytesWritten: number;
  writeQueueSize: number;
  useUserBuffer(buffer: Uint8Array): void;
};
type WithHandle = { _handle: Handle | null };

export const CONNECT_MS_MAX = 5000;

const NOTHING = new Uint8Array(1);

class SocketStream implements KernelStream {
  private readonly socket: net.Socket;
  private sink: StreamSink | null = null;
  private view: Uint8Array = NOTHING;
  private failure: Error | null = null;
  private ended = false;
  /** When `acceptedBytes` last looked. */
  private accepted = 0;

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

  /** Called once it has a connection. */
  opened(endpoint: Endpoint): void {
    if (endpoint.kind !== 'tcp') return;
    watchHost(this.socket, endpoint);
    reserveInKernel(this.fd());
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
      // Node asks for the next buffer right after a read; the sink had none then, or this is the first.
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

  acceptedBytes(): number {
    const handle = this.handle();
    if (handle !== null) this.accepted = handle.bytesWritten - handle.writeQueueSize;
    return this.accepted;
  }

  sendLast(bytes: Uint8Array): number {
    return sendInKernel(this.fd(), bytes);
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
      // The sink had no buffer when libuv asked for one, and libuv has read nevertheless: the bytes are gone.
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
    const replied = deadline(CONNECT_MS_MAX, () =>
      stream.raw.destroy(new Error(`no reply in ${CONNECT_MS_MAX / 1000} s`)),
    );
    const failed = (cause: Error) => {
      replied();
      reject(cannotConnect(endpoint, cause));
    };
    stream.raw.once('error', failed);
    stream.raw.once('connect', () => {
      replied();
      stream.opened(endpoint);
      stream.raw.off('error', failed);
      resolve(stream);
    });
  });
}

export function cannotConnect(endpoint: Endpoint, cause: Error): ColoError {
  return new ColoError(
    'COLO_ENDPOINT_CONNECT',
    `cannot connect to ${formatEndpoint(endpoint)}: ${cause.message}`,
    { cause },
  );
}

/** Removes the socket that a killed process has left. Throws if the path cannot be listened on, and says why. */
async function makeRoom(path: string): Promise<void> {
  // The kernel's words would be "address already in use" and, from Node, "permission denied".
  if (!existsSync(dirname(path))) throw new Error(`there is no folder ${dirname(path)}`);
  if ((await removeStaleSocket(path)) === 'foreign') throw new Error('the file there is not a socket');
}

/** `close` ends only the listening: the accepted connections stay open, and their users close them. */
export type StreamListener = { close(): Promise<void> };

/** Accepts connections until closed; rejects with COLO_ENDPOINT_LISTEN if the endpoint is in use. */
export async function listenStream(
  endpoint: Endpoint,
  accept: (stream: KernelStream) => void,
): Promise<StreamListener> {
  const server = net.createServer({ pauseOnConnect: true, noDelay: true }, (accepted) => {
    const handle = (accepted as unknown as { _handle: unknown })._handle;
    const stream = new SocketStream(
      (onread) => new net.Socket({ handle, onread } as net.SocketConstructorOpts),
    );
    stream.opened(endpoint);
    accept(stream);
  });
  return listenOn(server, endpoint);
}

/** Makes `server` listen; rejects with COLO_ENDPOINT_LISTEN if the endpoint is in use. */
export async function listenOn(server: net.Server, endpoint: Endpoint): Promise<StreamListener> {
  try {
    if (endpoint.kind === 'unix') await makeRoom(endpoint.path);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(socketAddress(endpoint), resolve);
    });
  } catch (cause) {
    throw new ColoError(
      'COLO_ENDPOINT_LISTEN',
      `cannot listen on ${formatEndpoint(endpoint)}: ${messageOf(cause)}; stop what uses it or choose another`,
      { cause },
    );
  }
  return {
    // Not awaited: the server counts the sockets that were replaced above, so it never sees one of them end.
    async close() {
      server.close();
    },
  };
}
