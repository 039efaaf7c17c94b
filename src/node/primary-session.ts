/**
 * A primary's session with one peer: heartbeats, which prove the lease; the first copy; then one checkpoint after another.
 *
 * Other files decide when to take a checkpoint (checkpoint/policy.ts) and how (checkpoint/primary-barrier.ts), until when this
 * node may speak (pair/lease.ts, pair/voice.ts), and what the end of a session means (pair/machine.ts).
 *
 * A first copy begins with the disks, if there are any, while the guest runs (primary-disks.ts). Then the VM's state is copied, and
 * READY is held until the disks have their replication.
 *
 * Phases: `open` (heartbeats only), `copying` (the first copy), `protecting` (the policy decides on checkpoints), `yielded` (the
 * peer takes over; no checkpoint, and the end of the migration stream is expected), `over`.
 * Failure: a link that closes or is silent for `silenceMsMax`, a migration stream that ends, or a checkpoint that fails ends
 * the session once, with its cause.
 */
import { MigrationRelay } from '../checkpoint/migration-relay.ts';
import type { CheckpointPolicy } from '../checkpoint/policy.ts';
import { PolicyClock } from '../checkpoint/policy-clock.ts';
import { PrimaryBarrier } from '../checkpoint/primary-barrier.ts';
import { watchForReady } from '../checkpoint/ready-watch.ts';
import type { CheckpointCause, CheckpointReason, CheckpointReport } from '../checkpoint/report.ts';
import type { PrimaryPath } from '../datapath/primary-path.ts';
import type { Divergence } from '../divergence/explained.ts';
import { ColoError, invariant, messageOf } from '../error.ts';
import { describeFlowKey, describeService } from '../flow/key.ts';
import type { ByteStream, KernelStream } from '../io/byte-stream.ts';
import type { Clock, Timers } from '../io/clock.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { ChannelName } from '../link/channels.ts';
import { type Copy, CopyChannels, copyChannelsOf } from '../link/copy.ts';
import { IGNORE_LINK, type LinkChannel, type LinkHandler } from '../link/link-channel.ts';
import { type ControlMessage, type DiskSize, MESSAGE } from '../link/link-protocol.ts';
import type { SummaryBody } from '../link/summary-message.ts';
import type { UplinkBody } from '../link/uplink-message.ts';
import { valuesMessage } from '../link/values-message.ts';
import { SpeakingRight } from '../pair/lease.ts';
import type { Places } from '../pair/places.ts';
import type { Transfer } from '../qemu/vm-watch.ts';
import type { CopiedDisks } from './primary-disks.ts';

export type PrimarySessionEvents = {
  /**
   * The first checkpoint is complete: the peer has a copy, and the input that waited at the gate is on its way to both
   * VMs. A secondary that was promoted earlier would never get those frames.
   */
  firstCommit(): void;
  /** The secondary's images are equal to this node's, and get every write from now on. */
  disksCopied(tookMs: number): void;
  checkpoint(report: CheckpointReport): void;
  /** The peer wants to take over; no checkpoint runs. */
  takeoverAsked(): void;
  peerUplink(body: UplinkBody): void;
  peerSummary(body: SummaryBody): void;
  taken(): void;
  /** The link has taken frames. */
  written(): void;
  closed(cause: string): void;
};

/** What the session asks of this node's QEMU. */
export type PrimaryVm = {
  /** null: the VM has none */
  readonly disks: {
    /** Resolves with the disks as START_SYNC names them. */
    sizes(): Promise<readonly DiskSize[]>;
    /** Takes the link's streams of the disks; calls `lost` once when the secondary's disks do not follow any more. */
    open(streams: Copy['disks'], lost: (cause: string) => void): CopiedDisks;
  } | null;
  /** Makes QEMU send its state to this node; resolves with QEMU's ends of the streams. */
  openCopy(): Promise<Copy<KernelStream>>;
  requestCheckpoint(): Promise<void>;
  /** Returns why the VM may not be copied now: it stands for another reason than a checkpoint. Null if it may. */
  standing(): string | null;
};

/** The flow that a checkpoint is taken for: it differs, or waits; null if it is no one flow. */
type Cause = Divergence | Pick<Divergence, 'flow' | 'service'> | null;

export class PrimarySession {
  readonly link: LinkChannel;
  private readonly path: PrimaryPath;
  private readonly vm: PrimaryVm;
  private readonly policy: CheckpointPolicy;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly limits: Limits;
  private readonly heartbeat: { intervalMs: number; silenceMsMax: number };
  private readonly events: PrimarySessionEvents;
  private readonly right: SpeakingRight;
  private readonly places: Places | null;
  /** of the places that the secondary has */
  private placesVersion = -1;
  private relay: MigrationRelay | null = null;
  private barrier: PrimaryBarrier | null = null;
  /** null: the VM has none, or their copy has not begun */
  private disks: CopiedDisks | null = null;
  private lastHeardMs: number;
  private phase: 'open' | 'copying' | 'protecting' | 'yielded' | 'over' = 'open';
  private takeover: 'not-asked' | 'waits-for-checkpoint' = 'not-asked';
  private offsetsVersion = -1;
  /** the secondary has values that clients were told of fields */
  private hasSentValues = false;
  private readyForCopy: () => void = () => {};
  private copyChannels: CopyChannels | null = null;
  private readonly cancels = new Set<() => void>();
  private readonly policyClock: PolicyClock;

  constructor(options: {
    link: LinkChannel;
    path: PrimaryPath;
    vm: PrimaryVm;
    policy: CheckpointPolicy;
    clock: Clock;
    timers: Timers;
    heartbeat: { intervalMs: number; leaseMs: number; silenceMsMax: number };
    places?: Places;
    events: PrimarySessionEvents;
    limits?: Limits;
  }) {
    this.link = options.link;
    this.path = options.path;
    this.vm = options.vm;
    this.policy = options.policy;
    this.clock = options.clock;
    this.timers = options.timers;
    this.limits = options.limits ?? LIMITS;
    this.heartbeat = options.heartbeat;
    this.events = options.events;
    this.places = options.places ?? null;
    this.right = new SpeakingRight(options.heartbeat.leaseMs);
    this.policyClock = new PolicyClock({
      policy: this.policy,
      output: this.path,
      isIdle: () => !this.isHolding,
      mayStart: () => this.phase === 'protecting' && !this.isCheckpointing && this.vm.standing() === null,
      start: (reason) => this.start(reason),
      clock: this.clock,
      timers: this.timers,
    });
    this.lastHeardMs = this.clock.now();
    this.link.listen(this.handler());
    this.beat();
    this.watch();
  }

  /** When the peer's latest reply to a heartbeat arrived. */
  get heardMs(): number {
    return this.lastHeardMs;
  }

  /** What is copied from the VM just now. */
  get transfer(): Transfer {
    return { isCheckpointing: this.barrier?.isStopping ?? false, bytes: this.relay?.stateBytes ?? 0 };
  }

  /** Whether a first copy is under way that lacks this channel. */
  awaitsCopyChannel(name: ChannelName): boolean {
    return this.copyChannels?.awaits(name) ?? false;
  }

  /** The peer has opened a channel of the first copy. */
  copyChannel(name: ChannelName, stream: ByteStream): void {
    this.copyChannels?.add(name, stream);
  }

  /** Copies the VM to the peer and takes the first checkpoint. Rejects when that fails: the VM then continues alone. */
  async sync(generation: number): Promise<void> {
    this.assertOpen();
    invariant(this.phase === 'open', 'a primary session began a second first copy');
    this.phase = 'copying';
    const { promise: ready, resolve } = Promise.withResolvers<void>();
    this.readyForCopy = resolve;
    const { disks } = this.vm;
    const sizes = disks === null ? [] : await disks.sizes();
    this.assertOpen();
    const names = copyChannelsOf(sizes.map(({ id }) => id));
    const channels = new CopyChannels(names);
    this.copyChannels = channels;
    this.sendOffsets();
    this.link.send(MESSAGE.startSync, {
      generation,
      channels: names,
      ...(disks === null ? {} : { disks: sizes }),
    });
    const [peer] = await Promise.all([channels.whole, ready]);
    this.assertOpen();
    if (disks !== null) {
      this.disks = disks.open(peer.disks, (cause) => {
        if (this.phase !== 'yielded') this.finish(cause);
      });
      const startMs = this.clock.now();
      await this.disks.copy();
      this.assertOpen();
      this.events.disksCopied(this.clock.now() - startMs);
    }
    const qemu = await this.vm.openCopy();
    this.assertOpen();
    await this.openRelay(qemu.state, peer.state);
    this.assertOpen();
    await this.checkpoint('initial');
    if (this.isOver) return;
    this.phase = 'protecting';
    this.policyClock.run();
  }

  /** From now on this node may speak only until the end of the lease that its heartbeats prove. */
  speakByLease(): void {
    this.path.voice.lease(this.right.untilMs);
  }

  async checkpoint(reason: CheckpointReason, cause: Cause = null): Promise<CheckpointReport> {
    const { barrier } = this;
    if (barrier === null) throw new ColoError('COLO_NOT_PROTECTED', 'no secondary has a copy of this VM');
    if (barrier.isRunning)
      throw new ColoError('COLO_CHECKPOINT_RUNNING', 'a checkpoint is under way already');
    // QEMU stops the VM at the end of a first copy, too.
    const standing = reason === 'initial' ? null : this.vm.standing();
    if (standing !== null)
      throw new ColoError('COLO_VM_STANDS', `${standing}: a checkpoint would copy a VM that stands`);
    this.sendOffsets();
    let report: CheckpointReport;
    try {
      const taken = await barrier.run(reason, () => {
        // The frames that the commit released may have ended connections that the map sent above still has.
        this.sendOffsets();
      });
      // The class of a divergence is settled by the commit.
      report = { ...taken, ...about(cause) };
    } catch (error) {
      // The gate is closed, and only the end of the session opens it.
      this.finish(messageOf(error));
      throw error;
    }
    if (reason === 'initial') this.events.firstCommit();
    this.policy.committed(this.clock.now(), report.totalMs);
    this.events.checkpoint(report);
    if (this.takeover === 'waits-for-checkpoint') this.askTakeover();
    return report;
  }

  /** The peer takes over: from now on no checkpoint begins. */
  yield(): void {
    if (this.phase === 'over') return;
    this.phase = 'yielded';
    this.policyClock.stop();
  }

  get isCheckpointing(): boolean {
    return this.barrier?.isRunning ?? false;
  }

  /** Asks the policy again when the current events have been handled: after a divergence. */
  hurry(): void {
    this.policyClock.hurry();
  }

  close(cause: string): void {
    this.finish(cause);
  }

  /** Relays QEMU's migration stream; resolves when the VM's memory has been copied. */
  private openRelay(qemu: KernelStream, peer: ByteStream): Promise<void> {
    const { promise: copied, resolve: onCopied } = Promise.withResolvers<void>();
    let stopWatching = (): void => {};
    const relay = new MigrationRelay(
      'primary',
      qemu,
      peer,
      {
        message: (message) => {
          if (message !== 'ready') {
            barrier.reached(message);
            return;
          }
          stopWatching();
          this.afterAttach(() => {
            relay.pass('ready');
            onCopied();
          });
        },
        ...(this.disks === null ? {} : { state: () => this.askDisks(relay) }),
        request: () => {
          barrier.reached('request');
          // QEMU asked by itself and waits, so it gets its checkpoint.
          if (!barrier.isRunning) this.timers.soon(() => this.start('requested'));
        },
        closed: (cause) => {
          if (this.phase !== 'yielded')
            this.finish(cause === null ? 'migration stream closed' : cause.message);
        },
      },
      this.limits,
    );
    const barrier = new PrimaryBarrier({
      path: this.path,
      relay,
      link: this.link,
      requestCheckpoint: () => this.vm.requestCheckpoint(),
      standing: () => this.vm.standing(),
      clock: this.clock,
      timers: this.timers,
    });
    this.relay = relay;
    this.barrier = barrier;
    relay.start();
    if (this.disks !== null) {
      stopWatching = watchForReady(
        this.timers,
        () => relay.movedBytes,
        (why) => this.finish(why),
      );
      this.cancels.add(stopWatching);
    }
    return copied;
  }

  /** QEMU waits for READY, and its guest stands: gives its disks their replication, then calls `call`. */
  private afterAttach(call: () => void): void {
    if (this.disks === null) call();
    else
      this.disks.attach().then(
        () => {
          if (!this.isOver) call();
        },
        (cause: unknown) => this.finish(messageOf(cause)),
      );
  }

  /** The PVM stands in a checkpoint: whether the secondary's disks have all that it has written. */
  private askDisks(relay: MigrationRelay): void {
    this.disks?.lostWrite().then(
      (why) => {
        if (this.isOver) return;
        if (why === null) relay.passState();
        else this.finish(`a write did not reach the secondary's disk: ${why}`);
      },
      (cause: unknown) => this.finish(messageOf(cause)),
    );
  }

  private handler(): LinkHandler {
    return {
      ...IGNORE_LINK,
      control: (message) => this.onControl(message),
      heartbeatAck: (number) => this.onHeartbeatReply(number),
      output: (epoch, index, slab, at, length) => this.path.peerFrame(epoch, index, slab, at, length),
      asleep: (epoch, frames) => this.path.svmAsleep(epoch, frames),
      batchEnd: () => this.path.peerBatchEnd(),
      written: () => {
        this.path.linkWritten();
        this.events.written();
      },
      closed: (cause) => this.finish(cause === null ? 'link closed' : cause.message),
    };
  }

  private onControl(message: ControlMessage): void {
    switch (message.type) {
      case MESSAGE.gated:
        this.barrier?.gated(message.body);
        return;
      case MESSAGE.syncReady:
        this.readyForCopy();
        return;
      case MESSAGE.takeover:
        this.askTakeover();
        return;
      case MESSAGE.taken:
        this.events.taken();
        return;
      case MESSAGE.uplink:
        this.events.peerUplink(message.body);
        return;
      case MESSAGE.summary:
        this.events.peerSummary(message.body);
        return;
      case MESSAGE.blind:
        this.path.svmBlind(message.body.message);
        return;
      case MESSAGE.failed:
        this.finish(`${message.body.code} ${message.body.message}`);
        return;
      default:
    }
  }

  /** In the middle of a checkpoint neither VM may be the only one. */
  private askTakeover(): void {
    this.takeover = this.isCheckpointing ? 'waits-for-checkpoint' : 'not-asked';
    if (!this.isCheckpointing) this.events.takeoverAsked();
  }

  private onHeartbeatReply(number: number): void {
    this.lastHeardMs = this.clock.now();
    this.right.replied(number);
    const { voice } = this.path;
    if (!voice.isLeased) return;
    voice.prolong(this.right.untilMs);
    this.path.flush();
  }

  private beat(): void {
    if (this.phase === 'over') return;
    this.link.sendHeartbeat(MESSAGE.heartbeat, this.right.send(this.clock.now()));
    this.sendPlaces();
    this.later(this.heartbeat.intervalMs, () => this.beat());
  }

  /** Treats a silent link as lost. */
  private watch(): void {
    if (this.phase === 'over') return;
    const { silenceMsMax } = this.heartbeat;
    const silentMs = this.clock.now() - this.lastHeardMs;
    if (silentMs >= silenceMsMax)
      this.finish(`the peer replied to no heartbeat for ${Math.round(silentMs)} ms`);
    else this.later(Math.ceil(silenceMsMax - silentMs), () => this.watch());
  }

  private get isOver(): boolean {
    return this.phase === 'over';
  }

  /** Whether output of either VM waits for its counterpart. */
  private get isHolding(): boolean {
    const { primary, secondary } = this.path.comparator;
    return primary.frames > 0 || secondary.frames > 0;
  }

  private start(reason: CheckpointReason): void {
    // A VM that stands is not copied over one that runs. A QEMU that has asked by itself waits.
    if (this.phase === 'over' || this.phase === 'yielded' || this.isCheckpointing) return;
    if (this.vm.standing() !== null) return;
    this.checkpoint(reason, this.causeOf(reason)).catch((cause: unknown) => {
      this.finish(messageOf(cause));
    });
  }

  /** Right after the policy was asked: returns which flow it decided for. */
  private causeOf(reason: CheckpointReason): Cause {
    const { divergence } = this.policy;
    if (divergence !== null && divergence.reason === reason) return divergence;
    if (reason !== 'wait-primary' && reason !== 'wait-secondary') return null;
    const key = this.path.comparator.overdueFlow();
    return key === null ? null : { flow: describeFlowKey(key), service: describeService(key) };
  }

  /** Sends the map of offsets if it has changed: a secondary that is promoted after the next checkpoint needs the current map. */
  private sendOffsets(): void {
    const { offsets } = this.path;
    const { values } = offsets;
    if (values.size !== 0 || this.hasSentValues) this.link.send(MESSAGE.values, valuesMessage(values.all()));
    this.hasSentValues = values.size !== 0;
    if (offsets.version === this.offsetsVersion) return;
    this.offsetsVersion = offsets.version;
    this.link.sendOffsets(offsets.export());
  }

  /** Sends where the VM is if that has changed: a secondary that is promoted announces it. */
  private sendPlaces(): void {
    const { places } = this;
    if (places === null || places.version === this.placesVersion) return;
    this.placesVersion = places.version;
    this.link.send(MESSAGE.places, { places: places.list() });
  }

  private assertOpen(): void {
    if (this.isOver)
      throw new ColoError('COLO_LINK_CLOSED', 'the link ended while the first copy was under way');
  }

  private later(ms: number, call: () => void): void {
    const cancel = this.timers.after(ms, () => {
      this.cancels.delete(cancel);
      call();
    });
    this.cancels.add(cancel);
  }

  private finish(cause: string): void {
    if (this.phase === 'over') return;
    this.phase = 'over';
    this.policyClock.stop();
    for (const cancel of this.cancels) cancel();
    // First of all: a guest that waits for the secondary's disk must not keep QEMU from anything that follows.
    this.disks?.close();
    this.barrier?.abort(new ColoError('COLO_LINK_CLOSED', cause));
    this.relay?.close();
    this.copyChannels?.close();
    this.link.close();
    this.events.closed(cause);
  }
}

function about(cause: Cause): Omit<CheckpointCause, 'reason'> {
  if (cause === null) return {};
  const { flow, service } = cause;
  return 'class' in cause ? { class: cause.class, flow, service } : { flow, service };
}
