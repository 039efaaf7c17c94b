/**
 * A node as candidate and as secondary: it dials the primary, takes a copy of its VM, and follows it until the link ends.
 *
 * It owns what lives as long as it has this role: the session with the primary, the copy of the VM, and the secondary's
 * path. A promotion hands VM and path to the primary's role (as-primary.ts); otherwise they end with this one.
 */
import { SecondaryPath } from '../datapath/secondary-path.ts';
import type { Tap } from '../datapath/tap.ts';
import { invariant, messageOf } from '../error.ts';
import { describeFlowKey } from '../flow/key.ts';
import { Outage, redial } from '../io/redial.ts';
import { closeCopy, dialCopy } from '../link/copy.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { type Hello, MESSAGE, type StartSync } from '../link/link-protocol.ts';
import { dialLink, dialStream } from '../link/link-setup.ts';
import { LeasePromise } from '../pair/lease.ts';
import { OffsetMap } from '../translate/offset-map.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import type { NodeParts } from './parts.ts';
import { NO_TRANSFER, RoleVm } from './role-vm.ts';
import { Scope } from './scope.ts';
import { SecondarySession } from './secondary-session.ts';

const REDIAL_MS = 100;

/** When the primary's latest heartbeat arrived, and when this node decided that the primary is gone. */
export type LinkLoss = { heardMs: number; decidedMs: number };

export class AsSecondary {
  readonly kind = 'secondary';
  readonly vm: RoleVm;
  private readonly parts: NodeParts;
  private readonly scope: Scope;
  private current: SecondarySession | null = null;
  private copy: SecondaryPath | null = null;
  private loss: LinkLoss = { heardMs: 0, decidedMs: 0 };
  /** until then the primary may still speak */
  private leaseOverAtMs = 0;
  /** when the primary yielded */
  private yieldedMs: number | null = null;

  constructor(parts: NodeParts) {
    this.parts = parts;
    this.scope = new Scope(parts.scope);
    this.vm = new RoleVm(parts);
    this.vm.transfer = () => this.current?.transfer ?? NO_TRANSFER;
  }

  get isOver(): boolean {
    return this.scope.isOver;
  }

  /** Whether there is a VM with a committed copy. */
  get isPromotable(): boolean {
    return this.vm.vm !== null && this.copy?.isPromotable === true;
  }

  get session(): SecondarySession | null {
    return this.current;
  }

  get path(): SecondaryPath | null {
    return this.copy;
  }

  /** Dials the primary until it accepts this node as its candidate, or `wanted` ends. */
  async dial(wanted: Scope): Promise<void> {
    const { config, slabs, surroundings, events, link } = this.parts;
    await redial({
      dial: async () => {
        const hello = this.parts.hello('data', 'candidate');
        const { channel, hello: theirs } = await dialLink(config.link.peer, slabs, hello, link);
        return { channel, hello: theirs, close: () => channel.close() };
      },
      connected: ({ channel, hello }) => this.openSession(channel, hello),
      outage: new Outage('per cause', (message, code) => events.emit('link.dial-failed', { message, code })),
      timers: surroundings.timers,
      waitMs: REDIAL_MS,
      signal: wanted.signal,
    });
  }

  /** Dispatches `leaseOver` when the lease that this node has promised is over, unless `wanted` has ended by then. */
  waitForLease(wanted: Scope): void {
    const { clock, timers } = this.parts.surroundings;
    const leftMs = Math.max(0, this.leaseOverAtMs - clock.now());
    wanted.after(timers, Math.ceil(leftMs), () => {
      const nowMs = clock.now();
      // A timer may fire a fraction of a millisecond early.
      if (nowMs < this.leaseOverAtMs) return this.waitForLease(wanted);
      this.loss.decidedMs = nowMs;
      this.parts.dispatch({ type: 'leaseOver' });
    });
  }

  /** Asks the living primary to yield. */
  askTakeover(): void {
    this.current?.link.send(MESSAGE.takeover, {});
  }

  /** Tells the peer what this node's VM suffers from, and closes the link. */
  reportVm(message: string): void {
    this.current?.link.sendFailed(message, 'COLO_VM_TROUBLE');
    this.closeLink(message);
  }

  /** Notifies the primary of the state of this node's uplink. */
  sendUplink(): void {
    this.current?.link.send(MESSAGE.uplink, this.parts.uplinkWatch.body);
  }

  closeLink(cause: string): void {
    this.current?.close(cause);
  }

  setTap(tap: Tap | null): void {
    if (this.copy !== null) this.copy.tap = tap;
  }

  /** The claim to be promoted is lost: forgets the copy and stops the VM. */
  fence(): void {
    this.scope.end();
    this.copy?.discard();
    void this.vm.stop();
  }

  /**
   * Ends the role for a promotion, which takes VM and path; and the session with a primary that has yielded, if it still
   * passes frames on.
   */
  giveUp(): { path: SecondaryPath; vm: RoleVm; loss: LinkLoss; yielded: SecondarySession | null } {
    const { copy: path, vm, current, yieldedMs } = this;
    invariant(path !== null && vm.vm !== null, 'a node without a copy of the VM was promoted');
    const loss = yieldedMs === null ? this.loss : { heardMs: yieldedMs, decidedMs: yieldedMs };
    this.scope.end();
    this.copy = null;
    return { path, vm, loss, yielded: yieldedMs === null ? null : current };
  }

  /** Forgets the copy and ends the VM; resolves when its QEMU has ended. */
  async end(): Promise<void> {
    this.scope.end();
    this.copy?.discard();
    this.copy = null;
    this.current?.close('closed by this node');
    await this.vm.stop();
  }

  private openSession(channel: LinkChannel, hello: Hello): void {
    const peer = hello.node;
    const { config, events, limits, surroundings, dispatch } = this.parts;
    const { clock, timers } = surroundings;
    invariant(this.current === null, 'a secondary opened a second session');
    const promise = new LeasePromise(config.heartbeat.leaseMs, clock.now());
    const scope = new Scope(this.scope);
    /** the generation of the first copy, until its first checkpoint */
    let copied: number | null = null;
    const session = new SecondarySession({
      link: channel,
      promise,
      clock,
      timers,
      silenceMsMax: config.heartbeat.silenceMsMax,
      limits,
      events: {
        syncAsked: (sync) => {
          dispatch({ type: 'syncAsked' });
          copied = sync.generation;
          void this.receiveCopy(session, scope, sync);
        },
        committed: () => {
          if (copied !== null) void this.parts.disks.record('secondary', copied);
          copied = null;
          dispatch({ type: 'committed' });
        },
        protected: (generation) => {
          void this.parts.disks.record('secondary', generation);
          events.emit('pair.protected', { generation, primary: peer });
          dispatch({ type: 'protectedBy', generation });
        },
        places: (list) => this.parts.places.replace(list),
        yielded: () => {
          this.yieldedMs = clock.now();
          dispatch({ type: 'yielded' });
        },
        peerUplink: (body) => this.parts.uplinkWatch.peerSaid(body),
        peerSummary: (body) => this.parts.peerView.heard(body),
        takeoverOffered: () => {
          if (this.parts.uplinkWatch.isUp) dispatch({ type: 'takeoverOffered' });
        },
        poweredOff: () => dispatch({ type: 'peerOff' }),
        closed: (cause) => {
          scope.end();
          this.current = null;
          this.parts.uplinkWatch.peerGone();
          this.parts.peerView.gone(channel);
          const nowMs = clock.now();
          events.emit('link.lost', { cause, silentMs: nowMs - promise.lastHeardMs });
          if (this.scope.isOver) return;
          this.loss = { heardMs: promise.lastHeardMs, decidedMs: nowMs };
          this.leaseOverAtMs = promise.overAtMs;
          dispatch({ type: 'linkLost', cause });
        },
      },
    });
    this.current = session;
    this.parts.observed.peerName = peer;
    events.emit('link.up', { peer });
    this.sendUplink();
    this.parts.peerView.begin(channel, hello);
    dispatch({ type: 'linkUp', peer });
  }

  /** Starts the SVM and gives its streams, and the link's, to the session, unless `wanted` ends first. */
  private async receiveCopy(
    session: SecondarySession,
    wanted: Scope,
    { channels, disks, generation }: StartSync,
  ): Promise<void> {
    const { parts } = this;
    try {
      const path = this.newPath(session);
      const followed = await parts.disks.prepareCopy(disks ?? [], generation);
      if (wanted.isOver) return;
      const vm = await this.vm.start('incoming');
      await vm.colo.prepare('secondary');
      const qemu = await vm.openIncoming(followed);
      const primary = await dialCopy(channels, (name) =>
        dialStream(parts.config.link.peer, parts.slabs, parts.hello(name, 'candidate'), parts.link),
      );
      if (wanted.isOver) {
        closeCopy(qemu);
        closeCopy(primary);
        return;
      }
      session.begin(path, qemu, primary, () => vm.watch.unloadable);
    } catch (cause) {
      const message = messageOf(cause);
      parts.events.emit('sync.failed', { message });
      session.link.sendFailed(cause, 'COLO_SYNC');
      if (!wanted.isOver) parts.dispatch({ type: 'syncFailed', message });
    }
  }

  private newPath(session: SecondarySession): SecondaryPath {
    const { config, events, hashSeed, limits, slabs, surroundings, uplink, vmPort } = this.parts;
    const translator = new SvmTranslator(hashSeed, limits);
    translator.onSigned = (key) => events.emit('translate.signed', { flow: describeFlowKey(key) });
    const path = new SecondaryPath({
      slabs,
      vm: vmPort,
      uplink,
      link: session.link,
      clock: surroundings.clock,
      offsets: new OffsetMap(hashSeed, limits),
      translator,
      mac: config.vm.mac,
      limits,
      sight: () => this.vm.vm?.sight ?? null,
      timers: surroundings.timers,
    });
    path.tap = this.parts.tap();
    this.copy = path;
    return path;
  }
}
