/**
 * One connection of a client: a request, and its reply, at a time. One that ends before the client has closed it is broken
 * (`BrokenConnection`), which is another thing than a wrong reply.
 */
import { connect } from 'node:net';
import type { Duplex, Readable, Writable } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { BrokenConnection, brokenBy, type Target } from '../../lab/clients/net.ts';

/** Takes the bytes of a reply as they arrive. Returns whether the reply is complete; throws if it is wrong. */
export type ReplyReader = (chunk: Buffer) => boolean;

type Waiting = { readonly reader: ReplyReader; resolve(): void; reject(error: Error): void };

/** Longer than any request takes here, so that only a service that is gone is given up. */
const REPLY_MS_MAX = 60_000;

export class Connection {
  private waiting: Waiting | null = null;
  private failure: Error | null = null;
  private readonly input: Readable;
  private readonly output: Writable;

  /** Both are open, and may be the same. */
  constructor(input: Readable, output: Writable) {
    this.input = input;
    this.output = output;
    input.on('data', (chunk: Buffer) => this.take(chunk));
    for (const stream of new Set([input, output])) stream.on('error', (error) => this.fail(brokenBy(error)));
    input.on('close', () => this.fail(closedBy('the service closed the connection')));
  }

  static async open(target: Target): Promise<Connection> {
    const socket = connect({ ...target, noDelay: true, timeout: REPLY_MS_MAX });
    socket.on('timeout', () => socket.destroy(tooLate()));
    await untilOpen(socket, 'connect');
    return new Connection(socket, socket);
  }

  /** Resolves after the handshake. Nothing is checked of the certificate, which the guest's image has made itself. */
  static async openTls(
    target: Target,
    options: ConnectionOptions,
  ): Promise<{ connection: Connection; socket: TLSSocket }> {
    const socket = connectTls({ ...target, ...options, rejectUnauthorized: false });
    socket.setNoDelay(true).setTimeout(REPLY_MS_MAX, () => {
      socket.destroy(tooLate());
    });
    await untilOpen(socket, 'secureConnect');
    return { connection: new Connection(socket, socket), socket };
  }

  /** Sends a request; resolves when `reader` has its whole reply. */
  ask(request: string | Uint8Array, reader: ReplyReader): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (this.failure !== null) return Promise.reject(this.failure);
    this.waiting = { reader, resolve, reject };
    this.output.write(request);
    return promise;
  }

  /** Ends the connection in order; the service ends it, too, which nobody waits for. */
  close(): void {
    this.output.end();
  }

  private take(chunk: Buffer): void {
    const { waiting } = this;
    try {
      if (waiting === null) throw new Error(`${chunk.length} bytes that no request has asked for`);
      if (!waiting.reader(chunk)) return;
      this.waiting = null;
      waiting.resolve();
    } catch (error) {
      this.fail(error as Error);
      this.input.destroy();
      this.output.destroy();
    }
  }

  private fail(error: Error): void {
    this.failure ??= error;
    this.waiting?.reject(this.failure);
    this.waiting = null;
  }
}

function closedBy(message: string): BrokenConnection {
  return new BrokenConnection('early-close', message);
}

function tooLate(): BrokenConnection {
  return new BrokenConnection('timeout', `no reply in ${REPLY_MS_MAX / 1000} s`);
}

function untilOpen(stream: Duplex, event: 'connect' | 'secureConnect'): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stream.once(event, resolve).once('error', (error) => reject(brokenBy(error)));
  stream.once('close', () => reject(closedBy('the service closed the connection before it was open')));
  return promise;
}
