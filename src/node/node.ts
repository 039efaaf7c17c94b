/**
 * A node: the driver of the state machine (pair/machine.ts). It gives the machine an event for whatever happens, and carries
 * out the effects that the machine returns.
 *
 * Lifetimes (scope.ts): slabs, ports, uplink and link listener live as long as the node. `AsPrimary` or `AsSecondary`
 * owns the things of a role (VM, path, session); a promotion passes VM and ports from the second to the first. A session
 * lives as long as one data channel. Timers and requests that are for one state of the machine end with it (`entered`).
 *
 * Events are handled one at a time, in order of arrival; those that an effect causes come after it.
 */
import { randomInt } from 'node:crypto';
import type { CheckpointReport } from '../checkpoint/report.ts';
import { loadNodeConfig, type NodeConfig } from '../config/node-config.ts';
import type { DiskStore } from '../disk/store.ts';
import { ColoError, messageOf } from '../error.ts';
import { type SlabMemory, SlabPool } from '../frames/slabs.ts';
import { FramePort } from '../io/frame-port.ts';
import type { StreamListener } from '../io/socket-stream.ts';
import { type Surroundings, systemSurroundings } from '../io/surroundings.ts';
import { checkLimits, LIMITS, type Limits } from '../limits.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import type { Hello } from '../link/link-protocol.ts';
import { listenLink } from '../link/link-setup.ts';
import type { EventSink } from '../observe/events.ts';
import type { NodeControl, NodeStatus, Reloaded } from '../observe/status.ts';
import type { Arbiter } from '../pair/arbiter.ts';
import { generationOf, newPair, type Pair, type PairEffect, type PairEvent, step } from '../pair/machine.ts';
import { Places } from '../pair/places.ts';
import { frameBytesMinOf } from '../qemu/command-line.ts';
import { type QemuLauncher, systemLauncher } from '../qemu/launcher.ts';
import { ArbiterWatch } from './arbiter-watch.ts';
import { AsPrimary } from './as-primary.ts';
import { AsSecondary } from './as-secondary.ts';
import { Capture } from './capture.ts';
import { Control } from './control.ts';
import { fencerOf } from './fence-command.ts';
import { helloOf } from './hello.ts';
import type { LinkTls } from './link-tls.ts';
import { nodeDisksOf } from './node-disks.ts';
import { NodeRules } from './node-rules.ts';
import { Observed } from './observed.ts';
import type { NodeParts } from './parts.ts';
import { type Fencer, PeerFence } from './peer-fence.ts';
import { PeerView } from './peer-view.ts';
import { Scope } from './scope.ts';
import { type NodeRole, statusOf } from './status.ts';
import { namesNode, phaseOf } from './status-view.ts';
import { UplinkKeeper } from './uplink.ts';
import { UplinkWatch } from './uplink-watch.ts';

/** A node that was primary of a pair waits this long for the other one to show that it has the VM. */
const RETURN_MS_MAX = 10_000;

export class ColoNode implements NodeControl {
  readonly done: Promise<number>;
  private readonly parts: NodeParts;
  private readonly arbiter: ArbiterWatch;
  private readonly events: EventSink;
  private readonly pair: Pair;
  private readonly capture: Capture;
  private readonly uplinkKeeper: UplinkKeeper;
  private readonly control: Control;
  private readonly resolveDone: (code: number) => void;
  private readonly queue: PairEvent[] = [];
  private handling = false;
  private listener: StreamListener | null = null;
  private role: NodeRole | null = null;
  /** lasts until the machine enters another state */
  private entered: Scope;

  constructor(options: {
    config: NodeConfig;
    arbiter: Arbiter;
    events: EventSink;
    surroundings?: Surroundings;
    /** Reads the file again that `config` is from. */
    readConfig?: () => NodeConfig;
    /** Encrypts the link; without it the link is what `surroundings` has. */
    tls?: LinkTls | null;
    launcher?: QemuLauncher;
    diskStore?: DiskStore;
    /** In place of the configuration's fence command. */
    fencer?: Fencer;
    /** Seed of the flow tables' hash: secret, so that no sender can choose flows that collide. */
    hashSeed?: number;
    limits?: Limits;
    /** Slab memory of a node that has ended, for its successor in the same process. */
    slabMemory?: SlabMemory;
  }) {
    const { config, events, readConfig = () => loadNodeConfig(config.file), tls = null } = options;
    const limits = options.limits ?? LIMITS;
    checkLimits(limits);
    const surroundings = options.surroundings ?? systemSurroundings;
    const slabs = new SlabPool(limits.slabBytes, limits.slabsMax, options.slabMemory);
    const uplink = new FramePort('uplink', slabs);
    const scope = new Scope();
    const dispatch = (event: PairEvent) => this.dispatch(event);
    this.events = events;
    const fencer = options.fencer ?? fencerOf(config);
    this.pair = newPair(config.node, config.protect === 'auto', fencer === null ? 'lease' : 'fence');
    this.capture = new Capture(events, surroundings.clock, () => this.role?.setTap(this.capture.tap));
    const uplinkWatch = this.newUplinkWatch(uplink, config, limits, surroundings);
    const changed = () => uplinkWatch.socketChanged();
    this.uplinkKeeper = new UplinkKeeper(uplink, config.uplink.socket, { events, changed }, surroundings);
    this.entered = new Scope(scope);
    this.parts = {
      config,
      limits,
      surroundings,
      link: { timers: surroundings.timers, transports: tls?.connections ?? surroundings.transports },
      tls,
      launcher: options.launcher ?? systemLauncher,
      slabs,
      disks: nodeDisksOf(config, options.diskStore, events),
      uplink,
      vmPort: new FramePort('vm', slabs, 'plain', frameBytesMinOf(config.vm.nic)),
      hashSeed: options.hashSeed ?? randomInt(0x7fffffff),
      events,
      observed: new Observed(),
      fence:
        fencer === null
          ? null
          : new PeerFence({ fencer, events, clock: surroundings.clock, scope, dispatch }),
      rules: new NodeRules(config, readConfig, events, tls),
      places: new Places(config.vm.mac, limits),
      scope,
      dispatch,
      uplinkWatch,
      peerView: new PeerView({ own: () => this.status(), scope, ...surroundings }),
      hello: (channel, role) => this.hello(channel, role),
      tap: () => this.capture.tap,
    };
    this.arbiter = new ArbiterWatch({
      arbiter: options.arbiter,
      history: this.parts.observed.arbiter,
      events,
      surroundings,
      scope,
      agrees: (stored) => namesNode(this.pair, stored),
    });
    this.control = new Control({
      pair: this.pair,
      scope,
      timers: surroundings.timers,
      dispatch,
      primarySession: () => (this.role?.kind === 'primary' ? this.role.session : null),
      rules: this.parts.rules,
      useRules: (inForce) => this.useRules(inForce),
    });
    const { promise, resolve } = Promise.withResolvers<number>();
    this.done = promise;
    this.resolveDone = resolve;
  }

  async start(): Promise<void> {
    const { config, link, scope, slabs, surroundings, tls } = this.parts;
    this.listener = await listenLink(
      config.link.listen,
      slabs,
      {
        hello: (channel) => this.hello(channel, 'primary'),
        admit: {
          alone: () => this.admitCandidate(),
          copy: (hello) => this.admitCopyChannel(hello),
        },
        open: {
          alone: (link, hello) => this.openSession(link, hello),
          copy: (stream, hello) => this.asPrimary?.session?.copyChannel(hello.channel, stream),
        },
      },
      link,
    );
    this.events.emit('node.started', { pair: config.pair, pid: process.pid });
    tls?.watch(scope, surroundings.timers);
    void this.uplinkKeeper.connect();
    this.arbiter.start();
    this.parts.uplinkWatch.run(this.parts.scope);
    this.perform([{ do: 'readRecord' }]);
  }

  /* Requests to a node. */

  set onCheckpoint(call: (report: CheckpointReport) => void) {
    this.parts.observed.onCheckpoint = call;
  }

  status(): NodeStatus {
    return statusOf(this.parts, this.pair, this.role, this.parts.surroundings.clock.now());
  }

  checkpoint(): Promise<CheckpointReport> {
    return this.control.checkpoint();
  }

  failover(): Promise<void> {
    return this.control.failover();
  }

  protect(): Promise<void> {
    return this.control.protect();
  }

  reload(): Promise<Reloaded> {
    return this.control.reload();
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

  /** For tests, the simulator and the start, which look at a node and change nothing. */
  inspect(): { readonly pair: Pair; readonly role: NodeRole | null; readonly parts: NodeParts } {
    return { pair: this.pair, role: this.role, parts: this.parts };
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
        if (before !== this.pair.state.name) this.enterState(before, next);
        this.perform(effects);
        this.control.changed();
      }
    } finally {
      this.handling = false;
    }
  }

  private enterState(before: string, event: PairEvent): void {
    this.entered.end();
    this.entered = new Scope(this.parts.scope);
    const cause = 'cause' in event ? event.cause : 'message' in event ? event.message : undefined;
    this.events.emit('pair.state', {
      from: before,
      to: this.pair.state.name,
      event: event.type,
      generation: generationOf(this.pair),
      ...(cause === undefined ? {} : { cause }),
    });
  }

  private perform(effects: PairEffect[]): void {
    for (const effect of effects) {
      if (this.parts.scope.isOver) return;
      this.performOne(effect);
    }
  }

  private performOne(effect: PairEffect): void {
    const generation = generationOf(this.pair);
    switch (effect.do) {
      case 'readRecord':
        this.ask('read', async () => ({ type: 'record', stored: await this.arbiter.read() }));
        return;
      case 'swap':
        this.ask('swap', async () => {
          const unfit = await this.parts.disks.unfit(this.pair, effect.record.generation);
          if (unfit !== null) return { type: 'vmFailed', message: unfit };
          const { won, ...stored } = await this.arbiter.compareAndSwap(effect.revision, effect.record);
          this.events.emit(won ? 'arbiter.won' : 'arbiter.lost', {
            revision: stored.revision,
            ...stored.record,
          });
          return { type: 'swapped', won, stored };
        });
        return;
      case 'checkVm':
        void this.checkVm(this.entered);
        return;
      case 'reportVm':
        this.role?.reportVm(effect.message);
        return;
      case 'reportOff':
        this.asPrimary?.reportOff();
        return;
      case 'waitForPowerOff':
        this.later(effect.ms, { type: 'powerOffTimeOver' });
        return;
      case 'release':
        this.asPrimary?.release(generation);
        return;
      case 'bootVm':
        void this.bootVm(generation);
        return;
      case 'becomeCandidate':
        void this.becomeCandidate(this.entered);
        return;
      case 'startSync':
        void this.asPrimary?.copy(generation);
        return;
      case 'goAlone':
        void this.asPrimary?.goAlone(generation, effect.cause);
        return;
      case 'confirmProtected':
        this.asPrimary?.confirmProtected(effect.generation);
        return;
      case 'speakByLease':
        this.asPrimary?.speakByLease();
        return;
      case 'waitForLease':
        this.asSecondary?.waitForLease(this.entered);
        return;
      case 'fencePeer':
        void this.parts.fence?.run(effect.peer);
        return;
      case 'promote':
        this.promote(generation, effect.cause);
        return;
      case 'fence':
        this.fence(effect.why);
        return;
      case 'askTakeover':
        this.asSecondary?.askTakeover();
        return;
      case 'yieldVoice':
        void this.asPrimary?.yieldVoice();
        return;
      case 'handOver':
        this.asPrimary?.handOver(effect.why);
        return;
      case 'offerTakeover':
        this.asPrimary?.offerTakeover();
        return;
      case 'closeLink':
        this.role?.closeLink('closed by this node');
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

  /** Dispatches `event` after `ms`, unless the machine has entered another state by then. */
  private later(ms: number, event: PairEvent): void {
    this.entered.after(this.parts.surroundings.timers, ms, () => this.dispatch(event));
  }

  /** Dispatches the arbiter's reply: to a change in any state, but not what was read for an earlier one, which is old. */
  private ask(what: 'read' | 'swap', question: () => Promise<PairEvent>): void {
    const { entered } = this;
    const dispatch = (event: PairEvent) => {
      if (what === 'swap' || !entered.isOver) this.dispatch(event);
    };
    question().then(dispatch, (cause: unknown) =>
      dispatch({ type: 'arbiterFailed', message: messageOf(cause) }),
    );
  }

  /* Roles. */

  private get asPrimary(): AsPrimary | null {
    return this.role?.kind === 'primary' ? this.role : null;
  }

  private get asSecondary(): AsSecondary | null {
    return this.role?.kind === 'secondary' ? this.role : null;
  }

  /** A node that is not the primary has them in force once it is. */
  private useRules(inForce: () => void): void {
    if (this.asPrimary === null || this.asPrimary.isOver) inForce();
    else this.asPrimary.useRules(inForce);
  }

  private async bootVm(generation: number): Promise<void> {
    await this.endRole();
    if (this.parts.scope.isOver) return;
    const primary = AsPrimary.toBoot(this.parts, generation);
    this.role = primary;
    await primary.boot(generation);
  }

  private async becomeCandidate(wanted: Scope): Promise<void> {
    await this.endRole();
    if (wanted.isOver) return;
    const secondary = new AsSecondary(this.parts);
    this.role = secondary;
    await secondary.dial(wanted);
  }

  private promote(generation: number, cause: string): void {
    const { asSecondary } = this;
    if (asSecondary === null || !asSecondary.isPromotable) {
      this.dispatch({ type: 'vmFailed', message: 'promoted without a VM' });
      return;
    }
    const primary = AsPrimary.promote(this.parts, generation, asSecondary);
    this.role = primary;
    void primary.finishPromotion(generation, cause);
  }

  private fence(why: string): void {
    this.role?.fence();
    this.events.emit('pair.fenced', { why });
  }

  private async endRole(): Promise<void> {
    const { role } = this;
    this.role = null;
    await role?.end();
  }

  private async checkVm(wanted: Scope): Promise<void> {
    const isWell = (await this.role?.vm.isWell()) ?? false;
    if (wanted.isOver) return;
    if (!isWell && !(this.role?.vm.isReported ?? false)) this.events.emit('vm.silent', {});
    this.dispatch({ type: isWell ? 'vmAnswers' : 'vmSilent' });
  }

  private async exit(code: number, message: string | null): Promise<void> {
    const { scope } = this.parts;
    if (scope.isOver) return;
    scope.end();
    this.role?.closeLink('node stops');
    await this.endRole();
    this.uplinkKeeper.close();
    this.stopCapture();
    await this.listener?.close();
    this.events.emit('node.stopped', { code, ...(message === null ? {} : { message }) });
    this.resolveDone(code);
  }

  /* The uplink. */

  private newUplinkWatch(
    port: FramePort,
    config: NodeConfig,
    limits: Limits,
    { clock, timers, readCarrier = async () => 'no-interface' }: Surroundings,
  ): UplinkWatch {
    return new UplinkWatch({
      port,
      config: config.uplink,
      holdDownMs: limits.uplinkHoldDownMs,
      readCarrier,
      clock,
      timers,
      events: this.events,
      changed: (state) => {
        this.role?.sendUplink();
        if (state === 'up') this.asPrimary?.uplinkUp();
      },
      primarySince: () => (this.pair.state.name === 'primary' ? this.asPrimary?.promotedAtMs : undefined),
      offer: () => this.dispatch({ type: 'uplinkAway' }),
    });
  }

  /* The link. */

  private hello(channel: Hello['channel'], role: Hello['role']): Hello {
    return helloOf(this.parts.config, generationOf(this.pair), { channel, role });
  }

  private admitCandidate(): void {
    const { asPrimary } = this;
    const free = this.pair.state.name === 'alone' && asPrimary?.session === null && asPrimary.vm.vm !== null;
    if (!free)
      throw new ColoError('COLO_LINK_BUSY', `this node is ${phaseOf(this.pair)} and takes no candidate now`);
    asPrimary.vm.assertCopyable();
  }

  private openSession(link: LinkChannel, hello: Hello): void {
    if (this.asPrimary === null) link.close();
    else this.asPrimary.openSession(link, hello);
  }

  private admitCopyChannel(hello: Hello): void {
    const awaited =
      this.pair.state.name === 'syncing' &&
      hello.node === this.parts.observed.peerName &&
      this.asPrimary?.session?.awaitsCopyChannel(hello.channel) === true;
    if (!awaited) {
      throw new ColoError(
        'COLO_LINK_BUSY',
        `no first copy to this peer is under way that lacks channel "${hello.channel}"`,
      );
    }
  }
}
