/**
 * The NBD connection of one disk, from the PVM's QEMU to the image of the secondary:
 *
 * Primary node:   PVM's QEMU -unix-> [this] -channel of the link-> secondary node
 * Secondary node: primary node -channel of the link-> [this] -unix-> SVM's QEMU, which serves the image
 *
 * A QEMU whose NBD connection stalls makes its guest wait for each write, its main loop hangs behind that, and it has no time-out of
 * its own, neither for the connection nor for its beginning. So this relay has them:
 * - QEMU finds the socket only when the server at the far end has greeted. QMP waits while QEMU connects.
 * - A stall ends the relay: requests have no reply, and for `nbdStallMsMax` nothing came back and nothing that waited was taken. While
 *   no more than a first copy waits for them, that is `nbdCopyStallMsMax`.
 *
 * `close` is the fence of the disk. In every failover it comes first, at both ends: nothing passes this relay after it has returned,
 * and whatever of QEMU waited for the connection goes on.
 *
 * The phases of the primary's end: greeting -> listening -> passing -> closed; of the secondary's: greeting -> passing -> closed.
 *
 * Limits: `nbdSlabsMax` slabs in each direction; a receiver that takes nothing pauses the reading of the sender, and QEMU has few
 * requests under way. Failure: either connection closing, a stall, bytes that are no NBD; `closed` is called once with the cause.
 */
import { BytePipe } from '../checkpoint/byte-pipe.ts';
import type { Endpoint } from '../endpoint.ts';
import { ColoError, invariant, messageOf } from '../error.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { StreamListener } from '../io/socket-stream.ts';
import type { Transports } from '../io/surroundings.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { Instant } from '../units.ts';
import type { DiskWaiter } from './disk.ts';
import { NBD_GREETING_BYTES, NbdTally } from './nbd-tally.ts';

/** How often in `nbdStallMsMax` a stall is looked for: it is noticed at most that much later. */
const LOOKS = 5;

type Phase = 'greeting' | 'listening' | 'passing' | 'closed';

export class NbdRelay {
  private readonly id: string;
  private readonly peer: ByteStream;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly limits: Limits;
  private readonly onClosed: (cause: string) => void;
  private readonly tally = new NbdTally();
  private phase: Phase = 'greeting';
  private readonly greeting = Buffer.alloc(NBD_GREETING_BYTES);
  private greeted = 0;
  private qemu: ByteStream | null = null;
  private listener: StreamListener | null = null;
  private requests: BytePipe | null = null;
  private replies: BytePipe | null = null;
  private cancelTimer: () => void = () => {};
  /** settles `listen` */
  private readonly ready = Promise.withResolvers<void>();
  private waiter: DiskWaiter = 'guest';
  private progressMs = 0 as Instant;
  /** at the last look: bytes of requests that had been read, and that had been taken */
  private looked = { read: 0, taken: 0 };

  constructor(options: {
    /** the disk's */
    id: string;
    /** the channel of the link, which nobody has read yet */
    peer: ByteStream;
    clock: Clock;
    timers: Timers;
    /** the relay has ended by itself: it is closed already */
    closed: (cause: string) => void;
    limits?: Limits;
  }) {
    this.id = options.id;
    this.peer = options.peer;
    this.clock = options.clock;
    this.timers = options.timers;
    this.limits = options.limits ?? LIMITS;
    this.onClosed = options.closed;
    // A `listen` that nobody awaits any more.
    this.ready.promise.catch(() => {});
  }

  /** Bytes that have been read in both directions. */
  get bytes(): number {
    return (this.requests?.bytes ?? 0) + (this.replies?.bytes ?? 0);
  }

  /** The primary's end: resolves when QEMU can connect at `path`; rejects with COLO_DISK_LINK if the relay ends before. */
  async listen(path: string, transports: Transports): Promise<void> {
    this.beFirst();
    this.deadline('the secondary did not serve it');
    this.peer.start({
      buffer: () => (this.greeted < NBD_GREETING_BYTES ? this.greeting.subarray(this.greeted) : null),
      read: (bytes) => {
        this.greeted += bytes;
        if (this.greeted === NBD_GREETING_BYTES) void this.open(path, transports);
      },
      closed: (cause) => this.peerClosed(cause),
    });
    return this.ready.promise;
  }

  /** The secondary's end: passes everything between the link and QEMU's server. */
  join(qemu: ByteStream): void {
    this.beFirst();
    this.pass({ client: this.peer, server: qemu, qemu });
  }

  /** From now on this is who waits for what passes. */
  waitedForBy(waiter: DiskWaiter): void {
    if (waiter === this.waiter) return;
    this.waiter = waiter;
    this.progressMs = this.clock.now();
  }

  /** Closes both connections. Nothing passes after it has returned, and `closed` is not called. */
  close(): void {
    this.end('it was closed');
  }

  private beFirst(): void {
    invariant(this.phase === 'greeting' && this.greeted === 0, 'an NBD relay was used twice');
  }

  private async open(path: string, transports: Transports): Promise<void> {
    const problem = this.tally.fromServer(this.greeting);
    if (problem !== null) {
      this.finish(`the secondary sent ${problem}`);
      return;
    }
    this.phase = 'listening';
    this.cancelTimer();
    transports.unlink(path);
    const endpoint: Endpoint = { kind: 'unix', mode: 'listen', path };
    try {
      this.listener = await transports.listen(endpoint, (qemu) => this.accept(qemu));
    } catch (cause) {
      this.finish(messageOf(cause));
      return;
    }
    // Closed meanwhile, or somebody has connected before anybody was told that they may.
    if (this.phase === 'listening') this.deadline('QEMU did not connect to it');
    else this.stopListening();
    this.ready.resolve();
  }

  private accept(qemu: ByteStream): void {
    if (this.phase !== 'listening') {
      // Whoever it is: the connection is QEMU's alone.
      qemu.close();
      return;
    }
    this.cancelTimer();
    this.stopListening();
    qemu.write(this.greeting, () => {});
    this.pass({ client: qemu, server: this.peer, qemu });
  }

  private pass({ client, server, qemu }: { client: ByteStream; server: ByteStream; qemu: ByteStream }): void {
    this.phase = 'passing';
    this.qemu = qemu;
    this.progressMs = this.clock.now();
    const limits = { ...this.limits, pipeSlabsMax: this.limits.nbdSlabsMax };
    const closedOf = (stream: ByteStream) => (cause: Error | null) => {
      if (stream === this.peer) this.peerClosed(cause);
      else this.finish(`QEMU closed its connection${whyOf(cause)}`);
    };
    const take = (problem: string | null): boolean => {
      if (problem !== null) this.finish(`what passes is no NBD: ${problem}`);
      return problem === null;
    };
    this.requests = new BytePipe(
      client,
      server,
      (bytes) => {
        const waited = this.tally.outstanding > 0;
        const isNbd = take(this.tally.fromClient(bytes));
        // The time counts from the first request that waits.
        if (!waited) this.progressMs = this.clock.now();
        return isNbd;
      },
      closedOf(client),
      limits,
    );
    this.replies = new BytePipe(
      server,
      client,
      (bytes) => {
        this.progressMs = this.clock.now();
        return take(this.tally.fromServer(bytes));
      },
      closedOf(server),
      limits,
    );
    this.requests.start();
    this.replies.start();
    this.watch();
  }

  /** Looks again and again whether the connection is stalled. */
  private watch(): void {
    if (this.isClosed()) return;
    this.cancelTimer = this.timers.after(Math.ceil(this.limits.nbdStallMsMax / LOOKS), () => {
      // This process may have been paused: what has arrived meanwhile is read first.
      this.timers.soon(() => {
        if (this.isClosed()) return;
        this.look();
        const { nbdStallMsMax, nbdCopyStallMsMax } = this.limits;
        const stallMsMax = this.waiter === 'copy' ? nbdCopyStallMsMax : nbdStallMsMax;
        if (this.tally.outstanding > 0 && this.clock.now() - this.progressMs >= stallMsMax) {
          this.finish(
            `no request had a reply for ${stallMsMax} ms, with ${this.tally.outstanding} under way`,
          );
        } else this.watch();
      });
    });
  }

  /** A connection that is slow takes bytes that had to wait; one that is stalled takes what the kernel has room for, and no more. */
  private look(): void {
    const { bytes: read, takenBytes: taken } = this.requests!;
    if (taken > this.looked.taken && this.looked.read > this.looked.taken) this.progressMs = this.clock.now();
    this.looked = { read, taken };
  }

  private deadline(what: string): void {
    const { nbdGreetingMsMax } = this.limits;
    this.cancelTimer = this.timers.after(nbdGreetingMsMax, () =>
      this.finish(`${what} in ${nbdGreetingMsMax} ms`),
    );
  }

  private stopListening(): void {
    void this.listener?.close();
    this.listener = null;
  }

  private peerClosed(cause: Error | null): void {
    this.finish(`the peer closed its connection${whyOf(cause)}`);
  }

  private isClosed(): boolean {
    return this.phase === 'closed';
  }

  private finish(cause: string): void {
    if (this.end(cause)) this.onClosed(`disk ${this.id}: ${cause}`);
  }

  /** Returns whether this call has ended it. */
  private end(cause: string): boolean {
    if (this.isClosed()) return false;
    this.phase = 'closed';
    this.cancelTimer();
    this.stopListening();
    this.qemu?.close();
    this.peer.close();
    this.ready.reject(new ColoError('COLO_DISK_LINK', `disk ${this.id} is not connected: ${cause}`));
    return true;
  }
}

function whyOf(cause: Error | null): string {
  return cause === null ? '' : `: ${cause.message}`;
}
