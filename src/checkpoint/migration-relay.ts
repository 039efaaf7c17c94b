/**
 * The migration relay: parses QEMU's migration stream just enough to see, and to delay, each phase of a checkpoint.
 *
 * Primary node:   PVM's QEMU <-unix-> [this] <-TCP, no delay-> secondary node
 * Secondary node: primary node <-TCP-> [this] <-unix-> SVM's QEMU
 *
 * QEMU waits after each of its messages, so the relay may delay one for any time. Both QEMUs use unix sockets, and
 * Nagle's algorithm is off between the nodes: stock QEMU's stream over TCP waits 40 ms for a delayed ACK, twice per checkpoint.
 *
 * Disks: in each checkpoint the primary's node asks its QEMU whether a write of the epoch did not reach the secondary's disk, when
 * the first state has come: from then on the PVM stands. Until the reply (`passState`) the secondary lacks the last byte that was
 * read. It cannot have RECEIVED then: it keeps its own state, and a disk that fits it. To hold more than that byte would hang the
 * PVM's QEMU, which holds its lock while it writes to a socket that is full, and does not reply. To ask later would be too late.
 *
 * The end on the secondary: a QEMU that has sent RECEIVED continues from the new state, whether or not the message was read.
 * The relay therefore stops QEMU from sending more and reads its stream to the end before it closes: either QEMU has sent
 * RECEIVED, and the node commits; or it could not, and continues from the state that the node knows.
 *
 * Failure: either end closing, or a message that does not belong there, ends the relay once, with its cause.
 */

import { ColoError, invariant } from '../error.ts';
import type { ByteStream, KernelStream } from '../io/byte-stream.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { BytePipe } from './byte-pipe.ts';
import { COLO_MESSAGE, coloMessageBytes, type ReverseMessage, ReverseParser } from './colo-messages.ts';

const CODE = {
  ready: COLO_MESSAGE.ready,
  reply: COLO_MESSAGE.reply,
  received: COLO_MESSAGE.received,
  loaded: COLO_MESSAGE.loaded,
} as const;

const REQUEST = coloMessageBytes(COLO_MESSAGE.request);

export type RelayEvents = {
  /** The secondary's QEMU has sent this, and continues when `pass` is called with it. */
  message(message: ReverseMessage): void;
  /** Primary only: the PVM's QEMU asks for a checkpoint, and continues when `passRequest` is called. */
  request(): void;
  /** Primary whose VM has disks only: the first state of a checkpoint has come; its last byte waits for `passState`. */
  state?(): void;
  closed(cause: Error | null): void;
};

export class MigrationRelay {
  private readonly side: 'primary' | 'secondary';
  private readonly qemu: KernelStream;
  private readonly peer: ByteStream;
  private readonly events: RelayEvents;
  private readonly forward: BytePipe;
  private readonly backward: BytePipe;
  private readonly toPrimary: ByteStream;
  private readonly toSecondary: ByteStream;
  /** between LOADED (or READY) and REQUEST: the primary's QEMU may send nothing but a REQUEST */
  private idle = false;
  private idleBytes: Buffer = Buffer.alloc(0);
  private done = false;
  private ending = false;
  private cause: Error | null = null;
  /** after REPLY: the next bytes are the first state of a checkpoint */
  private stateBegins = false;

  constructor(
    side: 'primary' | 'secondary',
    qemu: KernelStream,
    peer: ByteStream,
    events: RelayEvents,
    limits: Limits = LIMITS,
  ) {
    this.side = side;
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
    const qemuClosed = (cause: Error | null) => (this.ending ? this.finished() : this.finishNow(cause));
    this.forward = new BytePipe(
      this.toPrimary,
      this.toSecondary,
      (bytes) => {
        if (side === 'primary' && this.idle) return this.onIdleBytes(bytes);
        if (this.stateBegins) this.onState();
        return true;
      },
      side === 'primary' ? qemuClosed : closed,
      limits,
    );
    this.backward = new BytePipe(
      this.toSecondary,
      this.toPrimary,
      (bytes) => {
        parser.feed(bytes);
        return false;
      },
      side === 'primary' ? closed : qemuClosed,
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

  /** The same bytes, counted when they are read and again when the receiver has taken them: a number that grows while any move. */
  get movedBytes(): number {
    return this.forward.bytes + this.forward.takenBytes;
  }

  pass(message: ReverseMessage): void {
    if (message === 'ready' || message === 'loaded') this.idle = true;
    if (message === 'reply' && this.side === 'primary' && this.events.state !== undefined)
      this.stateBegins = true;
    this.toPrimary.write(coloMessageBytes(CODE[message]), () => {});
  }

  passRequest(): void {
    invariant(this.idle || this.done, 'a REQUEST was passed on in the middle of a checkpoint');
    this.idle = false;
    this.toSecondary.write(coloMessageBytes(COLO_MESSAGE.request), () => {});
  }

  /** No write is missing on the secondary's disk: it may have the whole state. */
  passState(): void {
    this.forward.passLast();
  }

  close(): void {
    this.finish(null);
  }

  private onState(): void {
    this.stateBegins = false;
    this.forward.holdLast();
    this.events.state?.();
  }

  private onIdleBytes(bytes: Uint8Array): boolean {
    this.idleBytes = Buffer.concat([this.idleBytes, bytes]);
    const { length } = this.idleBytes;
    if (length <= 4 && this.idleBytes.equals(REQUEST.subarray(0, length))) {
      // One read may bring only a part of it.
      if (length < 4) return false;
      this.idleBytes = Buffer.alloc(0);
      this.events.request();
    } else
      this.finish(
        new ColoError(
          'COLO_MIGRATION_GARBLED',
          `${length} bytes from the primary's QEMU where a REQUEST belongs`,
        ),
      );
    return false;
  }

  private finish(cause: Error | null): void {
    if (this.done || this.ending) return;
    if (this.side === 'primary') {
      this.finishNow(cause);
      return;
    }
    this.ending = true;
    this.cause = cause;
    this.peer.close();
    this.qemu.refuse();
  }

  private finished(): void {
    this.finishNow(this.cause);
  }

  private finishNow(cause: Error | null): void {
    if (this.done) return;
    this.done = true;
    this.qemu.close();
    this.peer.close();
    this.events.closed(cause);
  }
}
