/** One connection of a client: a request, and its reply, at a time. */
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import type { Target } from '../../lab/clients/net.ts';

/** Takes the bytes of a reply as they arrive. Returns whether the reply is complete; throws if it is wrong. */
export type ReplyReader = (chunk: Buffer) => boolean;

type Waiting = { readonly reader: ReplyReader; resolve(): void; reject(error: Error): void };

/** Longer than any request takes here, so that only a service that is gone is given up. */
const REPLY_MS_MAX = 60_000;

export class Connection {
  private waiting: Waiting | null = null;
  private failure: Error | null = null;
  private readonly stream: Duplex;

  private constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('data', (chunk: Buffer) => this.take(chunk));
    stream.on('error', (error) => this.fail(error));
    stream.on('close', () => this.fail(new Error('the service closed the connection')));
  }

  static async open(target: Target): Promise<Connection> {
    const socket = connect({ ...target, noDelay: true, timeout: REPLY_MS_MAX });
    socket.on('timeout', () => socket.destroy(new Error(`no reply in ${REPLY_MS_MAX / 1000} s`)));
    await untilOpen(socket, 'connect');
    return new Connection(socket);
  }

  /** Resolves after the handshake. Nothing is checked of the certificate, which the guest's image has made itself. */
  static async openTls(
    target: Target,
    options: ConnectionOptions,
  ): Promise<{ connection: Connection; socket: TLSSocket }> {
    const socket = connectTls({ ...target, ...options, rejectUnauthorized: false });
    socket.setNoDelay(true).setTimeout(REPLY_MS_MAX, () => {
      socket.destroy(new Error(`no reply in ${REPLY_MS_MAX / 1000} s`));
    });
    await untilOpen(socket, 'secureConnect');
    return { connection: new Connection(socket), socket };
  }

  /** Sends a request; resolves when `reader` has its whole reply. */
  ask(request: string | Uint8Array, reader: ReplyReader): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (this.failure !== null) return Promise.reject(this.failure);
    this.waiting = { reader, resolve, reject };
    this.stream.write(request);
    return promise;
  }

  /** Ends the connection in order; the service ends it, too, which nobody waits for. */
  close(): void {
    this.stream.end();
  }

  private take(chunk: Buffer): void {
    const { waiting } = this;
    if (waiting === null) return;
    try {
      if (!waiting.reader(chunk)) return;
      this.waiting = null;
      waiting.resolve();
    } catch (error) {
      this.stream.destroy(error as Error);
    }
  }

  private fail(error: Error): void {
    this.failure ??= error;
    this.waiting?.reject(this.failure);
    this.waiting = null;
  }
}

function untilOpen(stream: Duplex, event: 'connect' | 'secureConnect'): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stream.once(event, resolve).once('error', reject);
  stream.once('close', () => reject(new Error('the service closed the connection before it was open')));
  return promise;
}
