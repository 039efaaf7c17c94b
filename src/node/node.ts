/**
 * A node: the driver of the state machine (pair/machine.ts). It owns the sockets, the VM and the sessions, turns what
 * happens to them into events, and carries out the effects that the machine answers with.
 *
 * Lifetime of things: slabs, uplink, link listener and event log live as long as the node. A VM lives from boot or
 * first copy until it is lost or fenced; the same ports go from the secondary's path to the primary's on promotion.
 * A session lives as long as one data channel to the peer.
 *
 * Events are handled one at a time, in order of arrival, also those that an effect causes.
 */
import { randomInt } from 'node:crypto';
import { CheckpointPolicy } from '../checkpoint/policy.ts';
import type { CheckpointReport } from '../checkpoint/report.ts';
import type { NodeConfig } from '../config/node-config.ts';
import { PrimaryPath } from '../datapath/primary-path.ts';
import { SecondaryPath } from '../datapath/secondary-path.ts';
import { ColoError, messageOf } from '../error.ts';
import { describeFlowKey } from '../flow/key.ts';
import { type SlabMemory, SlabPool } from '../frames/slabs.ts';
import { type Clock, sleep, type Timers } from '../io/clock.ts';
import { FramePort } from '../io/frame-port.ts';
import type { StreamListener } from '../io/socket-stream.ts';
import { type Surroundings, systemSurroundings } from '../io/surroundings.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { ChannelName } from '../link/channels.ts';
import { dialCopy } from '../link/copy.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { type Hello, LINK_VERSION, MESSAGE } from '../link/link-protocol.ts';
import { dialLink, listenLink } from '../link/link-setup.ts';
import type { EventSink } from '../observe/events.ts';
import type { FailoverReport, NodeControl, NodeStatus } from '../observe/status.ts';
import { announcements } from '../pair/announce.ts';
import type { Arbiter } from '../pair/arbiter.ts';
import { LeasePromise } from '../pair/lease.ts';
import { generationOf, newPair, type Pair, type PairEffect, type PairEvent, step } from '../pair/machine.ts';
import { Voice } from '../pair/voice.ts';
import { type QemuLauncher, systemLauncher } from '../qemu/launcher.ts';
import { OffsetMap } from '../translate/offset-map.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import { Capture } from './capture.ts';
import { CheckpointHistory } from './checkpoint-history.ts';
import { GuardedVm } from './guarded-vm.ts';
import { PrimarySession } from './primary-session.ts';
import { SecondarySession } from './secondary-session.ts';
import { phaseOf, roleOf } from './status-view.ts';
import { UplinkKeeper } from './uplink.ts';

const REDIAL_MS = 100;
/** A node that was primary of a pair waits this long for the other half to show that it has the VM. */
const RETURN_MS_MAX = 10_000;
/** Announcements can get lost: QEMU repeats its own at about the same times (qemu_announce_self). */
const ANNOUNCE_AT_MS = [0, 50, 200, 450, 800];
/**
 * Takes milliseconds, or as long as the host has no time for QEMU. This is the last VM: giving it up is no help to
 * anybody, unless its QEMU hangs for good.
 */
const FAILOVER_DEADLINE_MS = 60_000;
/** A question takes a QEMU half a millisecond; one that is busy breaking off a checkpoint, some more. */
const VM_ANSWER_MS_MAX = 1000;

export class ColoNode implements NodeControl {
  readonly done: Promise<number>;
  onCheckpoint: (report: CheckpointReport) => void = () => {};
  private readonly config: NodeConfig;
  private readonly arbiter: Arbiter;
  private readonly events: EventSink;
  private readonly surroundings: Surroundings;
  private readonly launcher: QemuLauncher;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly pair: Pair;
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly uplink: FramePort;
  private readonly vmPort: FramePort;
  private readonly history = new CheckpointHistory();
  private readonly hashSeed: number;
  private listener: StreamListener | null = null;
  private vm: GuardedVm | null = null;
  private vmGeneration = 0;
  private path: PrimaryPath | null = null;
  private secondaryPath: SecondaryPath | null = null;
  private primarySession: PrimarySession | null = null;
  private secondarySession: SecondarySession | null = null;
  private policy: CheckpointPolicy;
  private peerName: string | null = null;
  private readonly capture: Capture;
  private readonly uplinkKeeper: UplinkKeeper;
  private divergences: NodeStatus['divergences'] = { count: 0, last: null };
  private failoverReport: FailoverReport | null = null;
  private leaseOverAtMs = 0;
  private linkLostAt = { heardMs: 0, decidedMs: 0 };
  private readonly queue: PairEvent[] = [];
  private handling = false;
  private statesEntered = 0;
  private closing = false;
  private resolveDone: (code: number) => void = () => {};
  private readonly watchers = new Set<() => void>();

  constructor(options: {
    config: NodeConfig;
    arbiter: Arbiter;
    events: EventSink;
    surroundings?: Surroundings;
    launcher?: QemuLauncher;
    /** Of the flow tables: unknown to whoever sends packets. */
    hashSeed?: number;
    limits?: Limits;
    /** Of a node that has ended, for its successor in the same process. */
    slabMemory?: SlabMemory;
  }) {
    this.limits = options.limits ?? LIMITS;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax, options.slabMemory);
    this.config = options.config;
    this.arbiter = options.arbiter;
    this.events = options.events;
    this.surroundings = options.surroundings ?? systemSurroundings;
    this.launcher = options.launcher ?? systemLauncher;
    this.clock = this.surroundings.clock;
    this.timers = this.surroundings.timers;
    this.hashSeed = options.hashSeed ?? randomInt(0x7fffffff);
    this.pair = newPair(options.config.node, options.config.protect === 'auto');
    this.policy = new CheckpointPolicy(options.config.checkpoint);
    this.uplink = new FramePort('uplink', this.slabs);
    this.vmPort = new FramePort('vm', this.slabs);
    this.uplinkKeeper = new UplinkKeeper(
      this.uplink,
      options.config.uplink,
      options.events,
      this.surroundings,
    );
    this.capture = new Capture(options.events, this.clock, () => this.setTap());
    this.done = new Promise((resolve) => {
      this.resolveDone = resolve;
    });
  }

  async start(): Promise<void> {
    this.listener = await listenLink(
      this.config.link.listen,
      this.slabs,
      {
        hello: (channel) => this.hello(channel, 'primary'),
        admit: {
          alone: () => this.admitCandidate(),
          copy: (hello) => this.admitCopyChannel(hello),
        },
        open: {
          data: (channel, hello) => this.openPrimarySession(channel, hello),
          state: (stream, hello) => this.primarySession?.copyChannel(hello.channel, stream),
        },
      },
      this.surroundings,
    );
    this.events.emit('node.started', { pair: this.config.pair, pid: process.pid });
    void this.uplinkKeeper.connect();
    this.perform([{ do: 'readRecord' }]);
  }

  /* What can be asked of a node. */

  status(): NodeStatus {
    const nowMs = this.clock.now();
    const { path } = this;
    const comparator = path?.comparator ?? null;
    const heardMs = this.primarySession?.heardMs ?? this.secondarySession?.promise.lastHeardMs ?? null;
    return {
      node: this.config.node,
      pair: this.config.pair,
      role: roleOf(this.pair),
      phase: phaseOf(this.pair),
      generation: generationOf(this.pair),
      epoch: path?.epoch ?? this.secondaryPath?.epoch ?? 0,
      peer: {
        name: this.peerName,
        connected: this.primarySession !== null || this.secondarySession !== null,
        lastHeardMs: heardMs === null ? null : nowMs - heardMs,
      },
      vm: {
        running: this.vm !== null,
        pid: this.vm?.pid ?? null,
        qemu: this.vm?.capabilities.version.text ?? null,
        accel: this.vm?.capabilities.accel ?? null,
      },
      checkpoints: this.history.summary(),
      held: {
        frames: comparator?.primary.frames ?? 0,
        bytes: comparator?.primary.bytes ?? 0,
        oldestMs: comparator?.oldestWaitMs(nowMs) ?? 0,
      },
      flows: {
        tcp: comparator?.tcpFlows ?? 0,
        other: comparator === null ? 0 : comparator.flowCount - comparator.tcpFlows,
        translated: path?.offsets.size ?? this.secondaryPath?.translator.size ?? 0,
      },
      divergences: this.divergences,
      traffic: {
        inputFrames: path?.counters.inputFrames ?? this.secondaryPath?.counters.inputFrames ?? 0,
        inputBytes: path?.counters.inputBytes ?? 0,
        releasedFrames: path?.counters.releasedFrames ?? 0,
        releasedBytes: path?.counters.releasedBytes ?? 0,
        peerFrames: path?.counters.peerFrames ?? 0,
        malformedFrames: comparator?.counters.malformed ?? 0,
        droppedFrames:
          (path?.counters.droppedFrames ?? 0) +
          (this.secondaryPath?.counters.droppedFrames ?? 0) +
          this.uplink.droppedFrames +
          this.vmPort.droppedFrames,
      },
      failover: this.failoverReport,
    };
  }

  checkpoint(): Promise<CheckpointReport> {
    const session = this.primarySession;
    if (session === null || this.pair.state.name !== 'primary') {
      return Promise.reject(
        new ColoError(
          'COLO_NOT_PROTECTED',
          `this node is ${phaseOf(this.pair)}: only a protected primary takes checkpoints`,
        ),
      );
    }
    return session.checkpoint('requested');
  }

  async failover(): Promise<void> {
    const { name } = this.pair.state;
    if (name !== 'primary' && name !== 'secondary') {
      throw new ColoError(
        'COLO_NOT_PROTECTED',
        `this node is ${phaseOf(this.pair)}: a failover needs a protected pair`,
      );
    }
    this.dispatch({ type: 'failover' });
    await this.reached(
      () => this.pair.state.name === 'alone' || this.pair.state.name === 'syncing',
      10_000,
      'failover',
    );
  }

  async protect(): Promise<void> {
    const { state } = this.pair;
    if (state.name === 'primary') return;
    if (state.name === 'alone' && state.peer === null) {
      throw new ColoError(
        'COLO_NO_CANDIDATE',
        'no other node is connected; start "colo node" on the other host',
      );
    }
    if (state.name !== 'alone' && state.name !== 'syncing' && state.name !== 'claiming') {
      throw new ColoError(
        'COLO_NOT_PRIMARY',
        `this node is ${phaseOf(this.pair)}: ask the one that runs the VM alone`,
      );
    }
    this.dispatch({ type: 'protect' });
    await this.reached(() => this.pair.state.name === 'primary', 600_000, 'protect');
  }

  async stop(): Promise<void> {
    this.dispatch({ type: 'stop' });
    await this.done;
  }

  startCapture(path: string, bytesMax: number): void {
    this.capture.start(path, bytesMax);
  }

  stopCapture(): { path: string; frames: number } | null {
    return this.capture.stop();
  }

  /* Events in, effects out. */

  private dispatch(event: PairEvent): void {
    this.queue.push(event);
    if (this.handling) return;
    this.handling = true;
    try {
      for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) {
        const before = this.pair.state.name;
        const effects = step(this.pair, next);
        const after = this.pair.state.name;
        if (before !== after) {
          this.statesEntered++;
          this.noteState(before, next);
        }
        this.perform(effects);
        for (const watcher of this.watchers) watcher();
      }
    } finally {
      this.handling = false;
    }
  }

  private noteState(before: string, event: PairEvent): void {
    const { state } = this.pair;
    const cause = 'cause' in event ? event.cause : 'message' in event ? event.message : undefined;
    this.events.emit('pair.state', {
      from: before,
      to: state.name,
      event: event.type,
      generation: generationOf(this.pair),
      ...(cause === undefined ? {} : { cause }),
    });
  }

  private perform(effects: PairEffect[]): void {
    for (const effect of effects) {
      if (this.closing) return;
      this.performOne(effect);
    }
  }

  private performOne(effect: PairEffect): void {
    switch (effect.do) {
      case 'readRecord':
        this.ask(async () => ({ type: 'record', held: await this.arbiter.read() }));
        return;
      case 'swap':
        this.ask(async () => {
          const { won, ...held } = await this.arbiter.compareAndSwap(effect.revision, effect.record);
          this.events.emit(won ? 'arbiter.won' : 'arbiter.lost', { revision: held.revision, ...held.record });
          return { type: 'swapped', won, held };
        });
        return;
      case 'checkVm':
        void this.checkVm();
        return;
      case 'bootVm':
        void this.bootVm();
        return;
      case 'becomeCandidate':
        void this.becomeCandidate();
        return;
      case 'startSync':
        void this.startSync();
        return;
      case 'goAlone':
        void this.goAlone(effect.cause);
        return;
      case 'confirmProtected':
        this.primarySession?.link.send(MESSAGE.protected, { generation: effect.generation });
        this.events.emit('pair.protected', { generation: effect.generation, secondary: this.peerName });
        return;
      case 'speakByLease':
        this.primarySession?.speakByLease();
        return;
      case 'waitForLease':
        this.waitForLease();
        return;
      case 'promote':
        void this.promote(effect.cause);
        return;
      case 'fence':
        this.fence(effect.why);
        return;
      case 'askTakeover':
        this.secondarySession?.link.send(MESSAGE.takeover, {});
        return;
      case 'sendYielded':
        this.primarySession?.link.send(MESSAGE.yielded, {});
        return;
      case 'closeLink':
        this.primarySession?.close('closed by this node');
        this.secondarySession?.close('closed by this node');
        return;
      case 'retryAfter':
        this.later(effect.ms, { type: 'retry' });
        return;
      case 'waitForReturn':
        this.later(RETURN_MS_MAX, { type: 'returnTimeOver' });
        return;
      case 'exit':
        void this.exit(effect.code, effect.message);
        return;
    }
  }

  /** An event for the state that waits for it: once another state was entered it means nothing any more. */
  private later(ms: number, event: PairEvent): void {
    const entered = this.statesEntered;
    this.timers.after(ms, () => {
      if (this.statesEntered === entered) this.dispatch(event);
    });
  }

  private ask(question: () => Promise<PairEvent>): void {
    question().then(
      (event) => this.dispatch(event),
      (cause: unknown) => {
        const message = messageOf(cause);
        this.events.emit('arbiter.failed', { message });
        this.dispatch({ type: 'arbiterFailed', message });
      },
    );
  }

  /* Effects. */

  private async checkVm(): Promise<void> {
    const { vm } = this;
    const entered = this.statesEntered;
    const answers = vm !== null && (await vm.answers(VM_ANSWER_MS_MAX));
    // Asked for a state that is over, it means nothing any more.
    if (this.statesEntered !== entered) return;
    if (!answers) this.events.emit('vm.silent', {});
    this.dispatch({ type: answers ? 'vmAnswers' : 'vmSilent' });
  }

  private async bootVm(): Promise<void> {
    await this.dropVm();
    try {
      const path = this.newPrimaryPath(new OffsetMap(this.hashSeed, this.limits), 0);
      path.voice.grantAlone(generationOf(this.pair));
      this.setPath(path);
      await this.startVm(false);
      this.events.emit('vm.started', { pid: this.vm?.pid, qemu: this.vm?.capabilities.version.text });
    } catch (cause) {
      void this.exit(1, errorText(cause));
    }
  }

  private async becomeCandidate(): Promise<void> {
    await this.dropVm();
    const wanted = () =>
      !this.closing &&
      (this.pair.state.name === 'candidate' || this.pair.state.name === 'returning') &&
      this.secondarySession === null;
    let refusal = '';
    while (wanted()) {
      try {
        const { channel, hello } = await dialLink(
          this.config.link.peer,
          this.slabs,
          this.hello('data', 'candidate'),
          this.surroundings,
        );
        if (!wanted()) {
          channel.close();
          return;
        }
        this.openSecondarySession(channel, hello.node);
        return;
      } catch (cause) {
        const message = messageOf(cause);
        if (message !== refusal) this.events.emit('link.dial-failed', { message });
        refusal = message;
      }
      await sleep(this.timers, REDIAL_MS);
    }
  }

  private openSecondarySession(channel: LinkChannel, peer: string): void {
    this.peerName = peer;
    const promise = new LeasePromise(this.config.heartbeat.leaseMs, this.clock.now());
    const session = new SecondarySession({
      link: channel,
      promise,
      clock: this.clock,
      timers: this.timers,
      silenceMsMax: this.config.heartbeat.silenceMsMax,
      limits: this.limits,
      events: {
        syncAsked: (channels) => {
          this.dispatch({ type: 'syncAsked' });
          void this.receiveCopy(session, channels);
        },
        committed: () => this.dispatch({ type: 'committed' }),
        protected: (generation) => {
          this.events.emit('pair.protected', { generation, primary: peer });
          // The record has moved on; what is remembered of it is only shown, a claim reads it afresh.
          if (this.pair.held.record !== null)
            this.pair.held.record = { ...this.pair.held.record, generation };
        },
        yielded: () => this.dispatch({ type: 'yielded' }),
        closed: (cause) => {
          if (this.secondarySession !== session) return;
          this.linkLostAt = { heardMs: promise.lastHeardMs, decidedMs: this.clock.now() };
          this.secondarySession = null;
          this.leaseOverAtMs = promise.overAtMs;
          this.events.emit('link.lost', { cause, silentMs: this.clock.now() - promise.lastHeardMs });
          this.dispatch({ type: 'linkLost', cause });
        },
      },
    });
    this.secondarySession = session;
    this.events.emit('link.up', { peer });
    this.dispatch({ type: 'linkUp', peer });
  }

  private waitForLease(): void {
    const leftMs = Math.max(0, this.leaseOverAtMs - this.clock.now());
    this.timers.after(Math.ceil(leftMs), () => {
      this.linkLostAt.decidedMs = this.clock.now();
      this.dispatch({ type: 'leaseOver' });
    });
  }

  private async receiveCopy(session: SecondarySession, channels: readonly ChannelName[]): Promise<void> {
    try {
      const translator = new SvmTranslator(this.hashSeed, this.limits);
      translator.onSigned = (key) => this.events.emit('translate.signed', { flow: describeFlowKey(key) });
      const path = new SecondaryPath({
        slabs: this.slabs,
        vm: this.vmPort,
        uplink: this.uplink,
        link: session.link,
        clock: this.clock,
        offsets: new OffsetMap(this.hashSeed, this.limits),
        translator,
        mac: this.config.vm.mac,
        limits: this.limits,
      });
      this.secondaryPath = path;
      this.setTap();
      const vm = await this.startVm(true);
      await vm.colo.prepare('secondary');
      const qemu = await vm.openIncoming();
      const primary = await dialCopy(channels, async (name) => {
        const hello = this.hello(name, 'candidate');
        const { channel } = await dialLink(this.config.link.peer, this.slabs, hello, this.surroundings);
        return channel.detach();
      });
      if (this.secondarySession !== session) {
        qemu.state.close();
        primary.state.close();
        return;
      }
      session.begin(path, qemu, primary);
    } catch (cause) {
      const message = messageOf(cause);
      this.events.emit('sync.failed', { message });
      session.link.send(MESSAGE.failed, {
        code: cause instanceof ColoError ? cause.code : 'COLO_SYNC',
        message,
      });
      // Of a session that has ended already: the next one's copy is none of its business.
      if (this.secondarySession === session) this.dispatch({ type: 'syncFailed', message });
    }
  }

  private async startSync(): Promise<void> {
    const session = this.primarySession;
    const { vm } = this;
    if (session === null || vm === null) return;
    this.events.emit('sync.started', { peer: this.peerName });
    try {
      await vm.colo.resetAfterFailover();
      await session.sync(generationOf(this.pair));
    } catch (cause) {
      const message = messageOf(cause);
      this.events.emit('sync.failed', { message });
      // Ends the first copy, if it is this session's still: a later one's copy is none of its business.
      session.close(message);
    }
  }

  private async goAlone(cause: string): Promise<void> {
    const released = this.path?.goAlone(generationOf(this.pair)) ?? 0;
    this.events.emit('pair.alone', { cause, releasedFrames: released, generation: generationOf(this.pair) });
    try {
      await this.vm?.failover(FAILOVER_DEADLINE_MS);
    } catch (error) {
      this.events.emit('vm.failover-failed', { message: messageOf(error) });
      void this.exit(1, errorText(error));
    }
  }

  private async promote(cause: string): Promise<void> {
    const from = this.secondaryPath;
    if (from === null || this.vm === null) {
      void this.exit(1, 'promoted without a VM');
      return;
    }
    from.leave();
    const path = this.newPrimaryPath(from.offsets, from.epoch);
    path.voice.grantAlone(generationOf(this.pair));
    const promotion = from.handOver((slab, at, length) => path.sendAsIs(slab, at, length));
    this.secondaryPath = null;
    this.setPath(path);
    path.flush();
    this.announce(path);
    try {
      await this.vm.failover(FAILOVER_DEADLINE_MS);
    } catch (error) {
      void this.exit(1, errorText(error));
      return;
    }
    const doneMs = this.clock.now();
    this.failoverReport = {
      generation: generationOf(this.pair),
      cause,
      detectMs: this.linkLostAt.decidedMs - this.linkLostAt.heardMs,
      promoteMs: doneMs - this.linkLostAt.decidedMs,
      atMs: this.clock.wall(),
    };
    this.events.emit('failover.done', { ...this.failoverReport, ...promotion });
    this.dispatch({ type: 'promoted' });
  }

  private announce(path: PrimaryPath): void {
    const frames = announcements(this.config.vm.mac, this.config.vm.addresses);
    for (const ms of ANNOUNCE_AT_MS) {
      this.timers.after(ms, () => {
        if (this.path === path) for (const frame of frames) path.announce(frame);
      });
    }
  }

  private fence(why: string): void {
    this.path?.fence();
    this.secondaryPath?.discard();
    this.events.emit('pair.fenced', { why });
    void this.dropVm();
  }

  private async exit(code: number, message: string | null): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    this.pair.state = { name: 'stopped' };
    this.path?.fence();
    this.primarySession?.close('node stops');
    this.secondarySession?.close('node stops');
    await this.dropVm();
    this.uplinkKeeper.close();
    this.stopCapture();
    await this.listener?.close();
    this.events.emit('node.stopped', { code, ...(message === null ? {} : { message }) });
    this.resolveDone(code);
    for (const watcher of this.watchers) watcher();
  }

  /* The link, as the one that is dialled. */

  private hello(channel: Hello['channel'], role: Hello['role']): Hello {
    return {
      version: LINK_VERSION,
      channel,
      pair: this.config.pair,
      node: this.config.node,
      generation: generationOf(this.pair),
      role,
      leaseMs: this.config.heartbeat.leaseMs,
    };
  }

  private admitCandidate(): void {
    if (this.pair.state.name !== 'alone' || this.primarySession !== null || this.vm === null) {
      throw new ColoError('COLO_LINK_BUSY', `this node is ${phaseOf(this.pair)} and takes no candidate now`);
    }
  }

  private admitCopyChannel(hello: Hello): void {
    const awaited =
      this.pair.state.name === 'syncing' &&
      hello.node === this.peerName &&
      this.primarySession?.awaitsCopyChannel(hello.channel) === true;
    if (!awaited) {
      throw new ColoError(
        'COLO_LINK_BUSY',
        `no first copy to this peer is under way that lacks channel "${hello.channel}"`,
      );
    }
  }

  private openPrimarySession(channel: LinkChannel, hello: Hello): void {
    const { path, vm } = this;
    if (path === null || vm === null) {
      channel.close();
      return;
    }
    this.peerName = hello.node;
    this.policy = new CheckpointPolicy(this.config.checkpoint);
    const session = new PrimarySession({
      link: channel,
      path,
      vm: { openCopy: () => vm.openCopy(), requestCheckpoint: () => vm.colo.requestCheckpoint() },
      policy: this.policy,
      clock: this.clock,
      timers: this.timers,
      heartbeat: this.config.heartbeat,
      limits: this.limits,
      events: {
        firstCommit: () => this.dispatch({ type: 'committed' }),
        checkpoint: (report, inexact) => this.noteCheckpoint(report, inexact),
        takeoverAsked: () => this.dispatch({ type: 'takeoverAsked' }),
        closed: (cause) => {
          if (this.primarySession !== session) return;
          this.primarySession = null;
          this.events.emit('link.lost', { cause });
          this.dispatch({ type: 'linkLost', cause });
        },
      },
    });
    this.primarySession = session;
    this.events.emit('link.up', { peer: hello.node, peerGeneration: hello.generation });
    this.dispatch({ type: 'linkUp', peer: hello.node });
    // A former primary that was paused may have woken in the middle of a write, after the takeover was announced: the
    // network then sends to its port. By now it has read the record, and says nothing more.
    this.announce(path);
  }

  private noteCheckpoint(report: CheckpointReport, inexact: number): void {
    this.history.add(report);
    this.onCheckpoint(report);
    this.events.emit('checkpoint.committed', { ...report, ...(inexact > 0 ? { inexact } : {}) });
  }

  /* VM, ports, taps. */

  private async startVm(incoming: boolean): Promise<GuardedVm> {
    const number = ++this.vmGeneration;
    const onLost = (message: string) => {
      if (number !== this.vmGeneration) return;
      this.vm = null;
      this.events.emit('vm.lost', { message });
      this.dispatch({ type: 'vmLost', message });
    };
    const { config, vmPort, surroundings, launcher } = this;
    const vm = await GuardedVm.start(config, incoming, vmPort, onLost, surroundings, launcher);
    if (number !== this.vmGeneration || this.closing) {
      await vm.stop();
      throw new ColoError('COLO_NODE_CHANGED', 'the VM is not wanted any more');
    }
    this.vm = vm;
    return vm;
  }

  private async dropVm(): Promise<void> {
    this.vmGeneration++;
    const { vm } = this;
    this.vm = null;
    this.path?.fence();
    this.path = null;
    this.secondaryPath?.discard();
    this.secondaryPath = null;
    await vm?.stop();
  }

  private newPrimaryPath(offsets: OffsetMap, epoch: number): PrimaryPath {
    return new PrimaryPath({
      slabs: this.slabs,
      vm: this.vmPort,
      uplink: this.uplink,
      clock: this.clock,
      offsets,
      mac: this.config.vm.mac,
      hashSeed: this.hashSeed,
      voice: new Voice(),
      epoch,
      limits: this.limits,
      events: {
        diverged: (flow, reason) => {
          this.divergences = {
            count: this.divergences.count + 1,
            last: { flow, reason, atMs: this.clock.wall() },
          };
          this.events.emit('compare.diverged', { flow, reason });
          this.policy.diverged(reason);
          this.primarySession?.hurry();
        },
      },
    });
  }

  private setPath(path: PrimaryPath): void {
    this.path = path;
    this.setTap();
  }

  private setTap(): void {
    const { tap } = this.capture;
    if (this.path !== null) this.path.tap = tap;
    if (this.secondaryPath !== null) this.secondaryPath.tap = tap;
  }

  /** Resolves when `holds`; rejects when the node stops or time is over. */
  private reached(holds: () => boolean, msMax: number, what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = (cause: ColoError | null) => {
        this.watchers.delete(watcher);
        cancel();
        if (cause === null) resolve();
        else reject(cause);
      };
      const watcher = () => {
        if (holds()) finish(null);
        else if (this.closing)
          finish(new ColoError('COLO_NODE_STOPPED', `the node stopped before ${what} was done`));
      };
      const cancel = this.timers.after(msMax, () =>
        finish(
          new ColoError('COLO_TIMEOUT', `${what} was not done after ${msMax / 1000} s; see "colo events"`),
        ),
      );
      this.watchers.add(watcher);
      watcher();
    });
  }
}

/** What a node ends with: the message and the code to look it up by. */
function errorText(cause: unknown): string {
  return cause instanceof ColoError ? `${cause.code}: ${cause.message}` : messageOf(cause);
}
