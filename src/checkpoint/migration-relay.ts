/**
 * The migration relay: QEMU's migration stream, taken apart just enough to see and to hold each phase of a checkpoint.
 *
 * Primary node:   PVM's QEMU <-unix-> [this] <-TCP, no delay-> secondary node
 * Secondary node: primary node <-TCP-> [this] <-unix-> SVM's QEMU
 *
 * QEMU waits after each of its messages, so the relay may hold one as long as it likes. Both QEMUs talk over unix
 * sockets and the hop between the nodes has Nagle's algorithm off: stock QEMU's stream over TCP waits 40 ms for a
 * delayed ACK, twice per checkpoint.
 *
 * Failure: either end closing, or a message that does not belong there, ends the relay once, with its cause.
 */

import { ColoError } from '../error.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { BytePipe } from './byte-pipe.ts';
import { COLO_MESSAGE, coloMessageBytes, type ReverseMessage, ReverseParser } from './colo-messages.ts';

const CODE = {
  ready: COLO_MESSAGE.ready,
  reply: COLO_MESSAGE.reply,
  received: COLO_MESSAGE.received,
  loaded: COLO_MESSAGE.loaded,
} as const;

export type RelayEvents = {
  /** The secondary's QEMU said this; it goes on when `pass` is called with it. */
  message(message: ReverseMessage): void;
  /** Primary only: the PVM's QEMU asks for a checkpoint; it goes on when `passRequest` is called. */
  request(): void;
  /** `unheard`: its QEMU had said something that nobody had read yet, and nobody can any more. */
  closed(cause: Error | null, unheard: boolean): void;
};

export class MigrationRelay {
  private readonly qemu: ByteStream;
  private readonly peer: ByteStream;
  private readonly events: RelayEvents;
  private readonly forward: BytePipe;
  private readonly backward: BytePipe;
  private readonly toPrimary: ByteStream;
  private readonly toSecondary: ByteStream;
  /** between LOADED (or READY) and REQUEST nothing but a REQUEST may come from the primary's QEMU */
  private idle = false;
  private done = false;

  constructor(
    side: 'primary' | 'secondary',
    qemu: ByteStream,
    peer: ByteStream,
    events: RelayEvents,
    limits: Limits = LIMITS,
  ) {
    this.qemu = qemu;
    this.peer = peer;
    this.events = events;
    this.toPrimary = side === 'primary' ? qemu : peer;
    this.toSecondary = side === 'primary' ? peer : qemu;
    const parser = new ReverseParser({
      passThrough: (bytes) => this.toPrimary.write(bytes, () => {}),
      message: (message) => this.events.message(message),
      garbled: (what) =>
        this.finish(new ColoError('COLO_MIGRATION_GARBLED', `unexpected on the migration stream: ${what}`)),
    });
    const closed = (cause: Error | null) => this.finish(cause);
    this.forward = new BytePipe(
      this.toPrimary,
      this.toSecondary,
      (bytes) => (side === 'primary' && this.idle ? this.onIdleBytes(bytes) : true),
      closed,
      limits,
    );
    this.backward = new BytePipe(
      this.toSecondary,
      this.toPrimary,
      (bytes) => {
        parser.feed(bytes);
        return false;
      },
      closed,
      limits,
    );
  }

  start(): void {
    this.forward.start();
    this.backward.start();
  }

  /** Bytes of VM state since the start. */
  get stateBytes(): number {
    return this.forward.bytes;
  }

  pass(message: ReverseMessage): void {
    if (message === 'ready' || message === 'loaded') this.idle = true;
    this.toPrimary.write(coloMessageBytes(CODE[message]), () => {});
  }

  passRequest(): void {
    this.idle = false;
    this.toSecondary.write(coloMessageBytes(COLO_MESSAGE.request), () => {});
  }

  close(): void {
    this.finish(null);
  }

  private onIdleBytes(bytes: Uint8Array): boolean {
    const request = bytes.length === 4 && Buffer.from(bytes).readUInt32BE(0) === COLO_MESSAGE.request;
    if (request) this.events.request();
    else
      this.finish(
        new ColoError(
          'COLO_MIGRATION_GARBLED',
          `${bytes.length} bytes from the primary's QEMU where a REQUEST belongs`,
        ),
      );
    return false;
  }

  private finish(cause: Error | null): void {
    if (this.done) return;
    this.done = true;
    const unheard = this.qemu.unreadBytes() > 0;
    this.qemu.close();
    this.peer.close();
    this.events.closed(cause, unheard);
  }
}
