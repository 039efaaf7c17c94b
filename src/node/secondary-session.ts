/**
 * A secondary's session with the primary: from the first contact until the link ends.
 *
 * It replies to heartbeats, and thereby promises the lease; it feeds the SVM, sends its output, and delays the phases of each
 * checkpoint. It decides nothing: the state machine is notified of its end and decides.
 *
 * In an orderly move the session outlives this node's promotion for a while: the former primary passes on what its uplink hears
 * (`handOver`).
 *
 * The end has two steps, because QEMU's last message may be RECEIVED. The session closes its streams (`ending`), reads the relay
 * to its end, so that a commit is seen first, and only then notifies (`over`).
 */
import { MigrationRelay } from '../checkpoint/migration-relay.ts';
import { SecondaryBarrier } from '../checkpoint/secondary-barrier.ts';
import type { PassedOn } from '../datapath/passed-on.ts';
import type { SecondaryPath } from '../datapath/secondary-path.ts';
import { NbdRelay } from '../disk/nbd-relay.ts';
import { invariant, messageOf } from '../error.ts';
import type { KernelStream } from '../io/byte-stream.ts';
import type { Clock, Timers } from '../io/clock.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { type Copy, diskStreamOf } from '../link/copy.ts';
import { IGNORE_LINK, type LinkChannel, type LinkHandler } from '../link/link-channel.ts';
import { type ControlMessage, MESSAGE, POWERED_OFF, type StartSync } from '../link/link-protocol.ts';
import type { ConnectionOffsets } from '../link/offsets-message.ts';
import type { Place } from '../link/places-message.ts';
import type { SummaryBody } from '../link/summary-message.ts';
import type { UplinkBody } from '../link/uplink-message.ts';
import { valuesOf } from '../link/values-message.ts';
import type { LeasePromise } from '../pair/lease.ts';
import type { Transfer } from '../qemu/vm-watch.ts';
import type { UnifiedValue } from '../translate/unified-values.ts';

export type SecondarySessionEvents = {
  /** The primary wants to copy its VM here. */
  syncAsked(wanted: StartSync): void;
  committed(): void;
  protected(generation: number): void;
  /** Where the primary's VM is in the network. */
  places(places: readonly Place[]): void;
  yielded(): void;
  peerUplink(body: UplinkBody): void;
  peerSummary(body: SummaryBody): void;
  /** The primary's uplink is away: it offers this node to take over. */
  takeoverOffered(): void;
  /** The primary's guest has been switched off. */
  poweredOff(): void;
  closed(cause: string): void;
};

/** A dead process's sockets close within a millisecond or two. The wait for the lease takes longer anyway. */
const LINK_END_MS_MAX = 50;

export class SecondarySession {
  readonly link: LinkChannel;
  readonly promise: LeasePromise;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly limits: Limits;
  private readonly silenceMsMax: number;
  private readonly events: SecondarySessionEvents;
  private path: SecondaryPath | null = null;
  private barrier: SecondaryBarrier | null = null;
  private relay: MigrationRelay | null = null;
  /** between the primary's QEMU and this node's images; to close them is a fence */
  private diskRelays: readonly NbdRelay[] = [];
  /** the primary's map of offsets, until there is a path that takes it */
  private offered: ConnectionOffsets[] | null = null;
  private offeredValues: UnifiedValue[] = [];
  private stopWatching: () => void = () => {};
  private stopReading: () => void = () => {};
  private phase: 'open' | 'handed-over' | 'ending' | 'over' = 'open';
  private passedOn: PassedOn | null = null;
  private cause = '';

  constructor(options: {
    link: LinkChannel;
    promise: LeasePromise;
    clock: Clock;
    timers: Timers;
    silenceMsMax: number;
    events: SecondarySessionEvents;
    limits?: Limits;
  }) {
    this.link = options.link;
    this.promise = options.promise;
    this.clock = options.clock;
    this.timers = options.timers;
    this.limits = options.limits ?? LIMITS;
    this.silenceMsMax = options.silenceMsMax;
    this.events = options.events;
    this.link.listen(this.handler());
    this.watch();
  }

  /** The SVM's QEMU waits for state: relays the primary's to it, and feeds the path. */
  begin(path: SecondaryPath, qemu: Copy<KernelStream>, primary: Copy, standing: () => string | null): void {
    invariant(this.path === null, 'a secondary session began a second first copy');
    this.path = path;
    if (this.offered !== null) importOffsets(path, this.offered);
    this.offered = null;
    importValues(path, this.offeredValues);
    this.offeredValues = [];
    this.diskRelays = [...qemu.disks].map(([id, image]) => this.relayDisk(id, image, primary));
    this.barrier = new SecondaryBarrier({
      path,
      link: this.link,
      clock: this.clock,
      timers: this.timers,
      standing,
      stateBytes: () => this.relay?.stateBytes ?? 0,
      onCommit: () => {
        for (const relay of this.diskRelays) relay.waitedForBy('guest');
        this.events.committed();
      },
    });
    const { barrier } = this;
    this.relay = new MigrationRelay(
      'secondary',
      qemu.state,
      primary.state,
      {
        message: (message) => {
          const relay = this.relay;
          if (relay !== null)
            barrier.message(relay, message).catch((cause: Error) => this.finish(cause.message));
        },
        request: () => {},
        closed: (cause) => {
          this.relay = null;
          if (this.phase !== 'handed-over')
            this.readLinkToItsEnd(cause === null ? 'migration stream closed' : cause.message);
        },
      },
      this.limits,
    );
    this.relay.start();
    this.link.send(MESSAGE.syncReady, {});
  }

  /** What is copied to the VM just now. */
  get transfer(): Transfer {
    return { isCheckpointing: this.barrier?.isCheckpointing ?? false, bytes: this.relay?.movedBytes ?? 0 };
  }

  /** This node has taken over from a primary that has yielded, which passes client frames on to `passedOn` from now on. */
  handOver(passedOn: PassedOn, generation: number): void {
    invariant(this.phase === 'open' || this.phase === 'ending', 'a session was handed over twice');
    if (this.phase === 'ending') {
      // The former primary is gone: the link has ended, and the migration stream is still read.
      passedOn.end();
      return;
    }
    this.phase = 'handed-over';
    this.passedOn = passedOn;
    this.stopReading();
    this.closeDisks();
    this.link.send(MESSAGE.taken, { generation });
    this.relay?.close();
  }

  close(cause: string): void {
    this.finish(cause);
  }

  private relayDisk(id: string, image: KernelStream, primary: Copy): NbdRelay {
    const peer = diskStreamOf(primary, id);
    const relay = new NbdRelay({
      id,
      peer,
      clock: this.clock,
      timers: this.timers,
      limits: this.limits,
      closed: (cause) => this.readLinkToItsEnd(cause),
    });
    relay.waitedForBy('copy');
    relay.join(image);
    return relay;
  }

  /** The primary writes nothing more into this node's images. */
  private closeDisks(): void {
    for (const relay of this.diskRelays) relay.close();
  }

  private handler(): LinkHandler {
    return {
      ...IGNORE_LINK,
      control: (message) => this.onControl(message),
      heartbeat: (number) => {
        this.promise.renew(this.clock.now());
        this.link.sendHeartbeat(MESSAGE.heartbeatAck, number);
      },
      input: (_epoch, _index, slab, at, length) => {
        if (this.passedOn === null) this.path?.input(slab, at, length);
        else this.passedOn.take(slab, at, length);
      },
      teach: (epoch, lesson, slab, at, length) => this.path?.teach(epoch, lesson, slab, at, length),
      watchSleep: (epoch, frames) => this.path?.watchSleep(epoch, frames),
      confirm: (epoch, from, to) => this.path?.confirm(epoch, from, to),
      offsets: (map) => this.takeOffsets(map),
      batchEnd: () => {
        if (this.passedOn === null) this.path?.linkBatchEnd();
        else this.passedOn.taken();
      },
      closed: (cause) => this.finish(cause === null ? 'link closed' : cause.message),
    };
  }

  private onControl(message: ControlMessage): void {
    switch (message.type) {
      case MESSAGE.gate:
        this.barrier?.gate(message.body.epoch).catch((cause: unknown) => {
          this.finish(messageOf(cause));
        });
        return;
      case MESSAGE.startSync:
        this.events.syncAsked(message.body);
        return;
      case MESSAGE.protected:
        this.events.protected(message.body.generation);
        return;
      case MESSAGE.yielded:
        this.events.yielded();
        return;
      case MESSAGE.values:
        this.takeValues(valuesOf(message.body));
        return;
      case MESSAGE.uplink:
        this.events.peerUplink(message.body);
        return;
      case MESSAGE.summary:
        this.events.peerSummary(message.body);
        return;
      case MESSAGE.offer:
        this.events.takeoverOffered();
        return;
      case MESSAGE.places:
        this.events.places(message.body.places);
        return;
      case MESSAGE.failed:
        if (message.body.code === POWERED_OFF) this.events.poweredOff();
        else this.finish(`${message.body.code} ${message.body.message}`);
        return;
      default:
    }
  }

  private takeValues(values: UnifiedValue[]): void {
    if (this.path === null) this.offeredValues = values;
    else importValues(this.path, values);
  }

  private takeOffsets(map: ConnectionOffsets[]): void {
    if (this.path === null) this.offered = map;
    else importOffsets(this.path, map);
  }

  /** Treats a silent link as lost. */
  private watch(): void {
    const silentMs = this.clock.now() - this.promise.lastHeardMs;
    if (silentMs >= this.silenceMsMax)
      this.finish(`the primary sent no heartbeat for ${Math.round(silentMs)} ms`);
    else this.stopWatching = this.timers.after(Math.ceil(this.silenceMsMax - silentMs), () => this.watch());
  }

  /**
   * A primary that dies closes both its streams, in any order. The SVM and its translator need the mirrored input and the
   * PVM's SYNs that are yet to be read from the link. The session therefore ends with the link, or after LINK_END_MS_MAX.
   */
  private readLinkToItsEnd(cause: string): void {
    if (this.phase !== 'open' || !this.link.isOpen) this.finish(cause);
    else {
      // Each disk's connection ends by itself, too.
      this.stopReading();
      this.stopReading = this.timers.after(LINK_END_MS_MAX, () => this.finish(cause));
    }
  }

  private finish(cause: string): void {
    if (this.phase === 'open' || this.phase === 'handed-over') {
      this.phase = 'ending';
      this.passedOn?.end();
      this.cause = cause;
      this.stopWatching();
      this.stopReading();
      this.closeDisks();
      this.link.close();
      this.relay?.close();
    }
    if (this.relay !== null || this.phase === 'over') return;
    this.phase = 'over';
    this.events.closed(this.cause);
  }
}

/** Replaces the whole map of the path. */
function importOffsets(path: SecondaryPath, map: ConnectionOffsets[]): void {
  path.offsets.clear();
  path.offsets.import(map);
}

/** The same for what clients were told of fields of which the VM has another value. */
function importValues({ offsets }: SecondaryPath, values: readonly UnifiedValue[]): void {
  offsets.values.clear();
  for (const value of values) offsets.values.add(value);
}
