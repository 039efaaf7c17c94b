/**
 * A node as primary: its VM is the one that clients reach, alone or with a secondary.
 *
 * It owns what lives as long as it has this role: the VM, the primary's path with its voice, and the session with the peer
 * that is, or becomes, the secondary. The role ends when the node is fenced, becomes a candidate, or stops.
 */
import { type MatchTotals, MatchWatch } from '../checkpoint/match-watch.ts';
import { Pacing, type PacingStatus, type ReleaseTotals } from '../checkpoint/pacing.ts';
import { CheckpointPolicy } from '../checkpoint/policy.ts';
import { until } from '../checkpoint/until.ts';
import { describeOperatorRule, isExempt } from '../compare/operator-rules.ts';
import type { AcceptsInput } from '../datapath/input-filter.ts';
import type { PassedOn } from '../datapath/passed-on.ts';
import { PassingOn } from '../datapath/passing-on.ts';
import { PrimaryPath } from '../datapath/primary-path.ts';
import type { Promotion } from '../datapath/secondary-path.ts';
import type { Tap } from '../datapath/tap.ts';
import { ColoError, errorText, invariant, messageOf } from '../error.ts';
import { describeMatch } from '../flow/match.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { type Hello, MESSAGE, POWERED_OFF } from '../link/link-protocol.ts';
import { Voice } from '../pair/voice.ts';
import { OffsetMap } from '../translate/offset-map.ts';
import type { Instant } from '../units.ts';
import { Announcer } from './announcer.ts';
import type { AsSecondary, LinkLoss } from './as-secondary.ts';
import { measureCopy } from './copy-measure.ts';
import { OwnImages } from './own-images.ts';
import type { NodeParts } from './parts.ts';
import { PrimarySession } from './primary-session.ts';
import { NO_TRANSFER, RoleVm } from './role-vm.ts';
import { Scope } from './scope.ts';
import type { SecondarySession } from './secondary-session.ts';

/**
 * Leaving COLO takes milliseconds, or longer if the host is starved. This is the last copy of the service, so the node gives
 * up on it only if its QEMU hangs for good.
 */
const FAILOVER_MS_MAX = 60_000;
/** What was written to the uplink is usually in its socket. A network that does not read it for so long is cut off. */
const FALL_SILENT_MS_MAX = 200;
/**
 * For so long after an orderly move the former primary passes on what its uplink hears. The announcements, which move the VM's
 * address, are sent within 800 ms, and the first is enough.
 */
const PASSED_ON_MS = 1000;

export class AsPrimary {
  readonly kind = 'primary';
  readonly path: PrimaryPath;
  readonly vm: RoleVm;
  /** the files behind the VM's disks */
  readonly images: OwnImages;
  private readonly parts: NodeParts;
  private readonly scope: Scope;
  private peer: { session: PrimarySession; policy: CheckpointPolicy; pacing: Pacing } | null = null;
  private readonly watch: MatchWatch;
  private readonly announcer: Announcer;
  /** of a promoted VM, while it followed another one, whose state and clock it got with each checkpoint */
  private readonly pausedBeforeMs: number;
  private promotion: (Promotion & { loss: LinkLoss }) | null = null;
  /** null: it booted its VM */
  private promotedMs: Instant | null = null;
  /** with the former primary, which has yielded to this node */
  private former: SecondarySession | null = null;
  /** to the node that this one has yielded to */
  private passingOn: PassingOn | null = null;

  /** The arbiter's record of `generation` says alone(this node). */
  private constructor(
    parts: NodeParts,
    generation: number,
    from: { vm: RoleVm; offsets: OffsetMap; epoch: number; filter?: AcceptsInput },
  ) {
    this.parts = parts;
    this.images = new OwnImages(parts, generation);
    this.scope = new Scope(parts.scope);
    this.vm = from.vm;
    this.vm.transfer = () => this.session?.transfer ?? NO_TRANSFER;
    this.vm.imagesLack = () => this.images.lack();
    this.pausedBeforeMs = from.vm.vm?.pauses.all.totalMs ?? 0;
    const voice = new Voice();
    voice.grantAlone(generation);
    this.path = new PrimaryPath({
      slabs: parts.slabs,
      vm: parts.vmPort,
      uplink: parts.uplink,
      clock: parts.surroundings.clock,
      offsets: from.offsets,
      mac: parts.config.vm.mac,
      ...(from.filter === undefined ? {} : { filter: from.filter }),
      hashSeed: parts.hashSeed,
      voice,
      places: parts.places,
      epoch: from.epoch,
      limits: parts.limits,
      sight: () => this.vm.vm?.sight ?? null,
      timers: parts.surroundings.timers,
      events: {
        diverged: (divergence, intervalMs) => {
          this.peer?.policy.diverged(divergence, intervalMs);
          this.peer?.session.hurry();
        },
        settled: (divergence) => {
          const { flow, service, reason, class: one, why } = divergence;
          parts.observed.diverged(divergence, parts.surroundings.clock.wall());
          parts.events.emit('compare.diverged', { flow, service, reason, class: one, why });
        },
      },
    });
    const { timers } = parts.surroundings;
    const { places, config } = parts;
    const { own } = this.path;
    this.announcer = new Announcer({ vm: config.vm, places, own, timers, scope: this.scope });
    this.path.tap = parts.tap();
    if (parts.rules.list.length > 0) this.useRules(() => {});
    this.watch = new MatchWatch({
      unmatched: (seen) => parts.events.emit('compare.unmatched', seen),
      over: (cause, forMs) => parts.events.emit('compare.unmatched-over', { cause, forMs }),
    });
  }

  /** Makes the role for a VM that `boot` starts. */
  static toBoot(parts: NodeParts, generation: number): AsPrimary {
    const offsets = new OffsetMap(parts.hashSeed, parts.limits);
    return new AsPrimary(parts, generation, { vm: new RoleVm(parts), offsets, epoch: 0 });
  }

  /**
   * Makes the role of a promoted secondary, with its VM, ports and translations, and sends the output that it has retained.
   * QEMU still has to leave COLO: `finishPromotion`.
   */
  static promote(parts: NodeParts, generation: number, secondary: AsSecondary): AsPrimary {
    const { path, vm, loss, yielded } = secondary.giveUp();
    const passedOn = yielded === null ? null : path.expectPassedOn();
    // The secondary's path leaves the ports before this role's path takes them.
    path.leave();
    const { offsets, epoch } = path;
    const filter = passedOn === null ? {} : { filter: passedOn };
    const primary = new AsPrimary(parts, generation, { vm, offsets, epoch, ...filter });
    const promotion = path.handOver((slab, at, length) => primary.path.sendAsIs(slab, at, length));
    primary.promotion = { ...promotion, loss };
    primary.promotedMs = parts.surroundings.clock.now();
    primary.path.flush();
    primary.announcer.begin();
    if (yielded !== null && passedOn !== null) primary.hearFrom(yielded, passedOn, generation);
    return primary;
  }

  get isOver(): boolean {
    return this.scope.isOver;
  }

  /** When this node was promoted; null if it booted its VM. */
  get promotedAtMs(): Instant | null {
    return this.promotedMs;
  }

  get session(): PrimarySession | null {
    return this.peer?.session ?? null;
  }

  /** Whether the SVM's output matches; null without a pair. */
  get matches(): MatchWatch | null {
    return this.watch.isWatching ? this.watch : null;
  }

  /** When a difference takes its checkpoint; null without a pair. */
  pacingStatus(nowMs: Instant): PacingStatus | null {
    if (this.peer === null || this.matches === null) return null;
    const { pacing, policy } = this.peer;
    return pacing.status(nowMs, policy.periodMs);
  }

  /** How long the VM has been stopped since this node runs it as the primary. */
  get pausedMs(): number {
    return (this.vm.vm?.pauses.all.totalMs ?? this.pausedBeforeMs) - this.pausedBeforeMs;
  }

  /** Starts the VM; dispatches `vmFailed` if that fails. */
  async boot(generation: number): Promise<void> {
    const { disks } = this.parts;
    try {
      await disks.admit(generation);
      if (this.isOver) return;
      const vm = await this.vm.start('boot');
      this.parts.events.emit('vm.started', { pid: vm.pid, qemu: vm.capabilities.version.text });
    } catch (cause) {
      this.failed(cause);
    }
  }

  /** Makes QEMU leave COLO: the VM continues from its own state. Then dispatches `promoted`. */
  async finishPromotion(generation: number, cause: string): Promise<void> {
    const { parts, promotion } = this;
    invariant(promotion !== null, 'a VM that was not promoted left COLO');
    try {
      await this.images.beginPromotion(generation);
      await this.leaveColo();
    } catch (error) {
      this.failed(error);
      return;
    }
    const { loss, ...done } = promotion;
    const { clock } = parts.surroundings;
    const report = {
      generation,
      cause,
      detectMs: loss.decidedMs - loss.heardMs,
      promoteMs: clock.now() - loss.decidedMs,
      atMs: clock.wall(),
    };
    parts.observed.failover = report;
    parts.events.emit('failover.done', { ...report, ...done });
    this.images.promoted(this.vm.vm?.disks ?? null, generation);
    parts.dispatch({ type: 'promoted' });
  }

  /** Continues without a secondary: the arbiter's record of `generation` says alone(this node). */
  async goAlone(generation: number, cause: string): Promise<void> {
    const { events } = this.parts;
    const releasedFrames = this.path.goAlone(generation);
    events.emit('pair.alone', { cause, releasedFrames, generation });
    void this.images.record(generation);
    const wasStopped = this.vm.vm?.watch.trouble?.state === 'paused';
    try {
      await this.leaveColo();
      // QEMU resumes a VM that leaves COLO.
      if (wasStopped) await this.vm.vm?.colo.stopAgain();
    } catch (error) {
      events.emit('vm.failover-failed', { message: messageOf(error) });
      this.failed(error);
    }
  }

  /** Opens a session with the candidate that has opened the data channel. */
  openSession(link: LinkChannel, hello: Hello): void {
    const { config, events, limits, observed, surroundings, dispatch } = this.parts;
    const { vm } = this.vm;
    if (vm === null || this.isOver) {
      link.close();
      return;
    }
    invariant(this.peer === null, 'a primary opened a second session');
    const { disks } = vm;
    const pacing = new Pacing((change) => events.emit('checkpoint.pacing', change));
    const policy = new CheckpointPolicy(config.checkpoint, pacing);
    const session = new PrimarySession({
      link,
      path: this.path,
      vm: {
        disks:
          disks === null
            ? null
            : {
                sizes: () => this.parts.disks.sizes(),
                open: (streams, lost) => vm.openDisks(disks, streams, lost, limits),
              },
        openCopy: () => vm.openCopy(),
        requestCheckpoint: () => vm.colo.requestCheckpoint(),
        standing: () => vm.watch.standing,
      },
      policy,
      clock: surroundings.clock,
      timers: surroundings.timers,
      heartbeat: config.heartbeat,
      places: this.parts.places,
      limits,
      events: {
        disksCopied: (tookMs) => events.emit('disk.copied', { tookMs }),
        firstCommit: () => dispatch({ type: 'committed' }),
        checkpoint: (report) => {
          const nowMs = surroundings.clock.now();
          observed.checkpoint(report, nowMs);
          events.emit('checkpoint.committed', report);
          const totals = this.totals();
          this.watch.committed(totals, nowMs);
          pacing.committed(report, totals, nowMs);
        },
        takeoverAsked: () => dispatch({ type: 'takeoverAsked' }),
        taken: () => dispatch({ type: 'taken' }),
        written: () => this.passingOn?.linkWritten(),
        peerUplink: (body) => this.parts.uplinkWatch.peerSaid(body),
        peerSummary: (body) => this.parts.peerView.heard(body),
        closed: (cause) => {
          this.peer = null;
          this.passingOn?.end();
          this.parts.uplinkWatch.peerGone();
          this.parts.peerView.gone(link);
          this.watch.pairEnded(surroundings.clock.now());
          pacing.pairEnded(surroundings.clock.now());
          events.emit('link.lost', { cause });
          if (!this.isOver) dispatch({ type: 'linkLost', cause });
        },
      },
    });
    this.peer = { session, policy, pacing };
    observed.peerName = hello.node;
    this.sendUplink();
    this.parts.peerView.begin(link, hello);
    events.emit('link.up', { peer: hello.node, peerGeneration: hello.generation });
    dispatch({ type: 'linkUp', peer: hello.node });
    // A former primary that was paused may have woken in the middle of a write, after the promotion was announced: the
    // network then sends to its port. By now it has read the record, and sends nothing more.
    this.announcer.begin();
  }

  /** Copies the VM to the peer. A copy that fails ends its session. */
  async copy(generation: number): Promise<void> {
    const { events, observed } = this.parts;
    const { session } = this;
    const { vm } = this.vm;
    if (session === null || vm === null) return;
    events.emit('sync.started', { peer: observed.peerName });
    const copied = measureCopy(vm.pauses, { clock: this.parts.surroundings.clock, events, observed });
    try {
      const { standing } = vm.watch;
      if (standing !== null) throw new ColoError('COLO_VM_STANDS', `${standing}: it cannot be copied now`);
      if (!(await this.images.areWhole()))
        throw new ColoError('COLO_DISK_COMMIT', "this node's images are not whole");
      await vm.colo.resetAfterFailover();
      await session.sync(generation);
      copied.done();
    } catch (cause) {
      copied.failed();
      const message = messageOf(cause);
      events.emit('sync.failed', { message });
      // This copy's own session: by now another one may be open.
      session.close(message);
    }
  }

  /** Notifies the secondary that the arbiter's record names it. */
  confirmProtected(generation: number): void {
    invariant(
      this.path.voice.isLeased,
      'the record names a secondary while this node speaks without a lease',
    );
    void this.images.record(generation);
    this.session?.link.send(MESSAGE.protected, { generation });
    this.parts.events.emit('pair.protected', { generation, secondary: this.parts.observed.peerName });
  }

  /** Puts the node's rules into force; `inForce` is called when they are. */
  useRules(inForce: () => void): void {
    const { list } = this.parts.rules;
    this.path.useRules(list, () => {
      this.parts.events.emit('rules.changed', {
        rules: list.map(describeOperatorRule),
        unprotected: list.filter(isExempt).map(({ match }) => describeMatch(match)),
      });
      inForce();
    });
  }

  /** The uplink has come up: what was announced before may have reached nobody. */
  uplinkUp(): void {
    this.announcer.begin();
  }

  /** Notifies the secondary of the state of this node's uplink. */
  sendUplink(): void {
    this.session?.link.send(MESSAGE.uplink, this.parts.uplinkWatch.body);
  }

  /** Offers the secondary to take over: this node's uplink is away. */
  offerTakeover(): void {
    this.session?.link.send(MESSAGE.offer, {});
  }

  speakByLease(): void {
    this.session?.speakByLease();
  }

  /** Gives the voice up for the secondary, and notifies it when this node is silent. Both VMs get all input, as before. */
  async yieldVoice(): Promise<void> {
    this.path.voice.yield();
    this.session?.yield();
    this.path.catchUp.letGo();
    const { session } = this;
    const { surroundings, uplink } = this.parts;
    const { clock, timers } = surroundings;
    const isSilent = () => uplink.queuedBytes === 0;
    if (!(await until(clock, timers, FALL_SILENT_MS_MAX, isSilent)) && !this.isOver) uplink.close();
    session?.link.send(MESSAGE.yielded, {});
  }

  /** The secondary has taken over: drops all output, stops the VM, and passes on what the uplink still hears. */
  handOver(why: string): void {
    const { config, events, limits, slabs, uplink } = this.parts;
    const { path, session } = this;
    path.fence();
    void this.vm.stop();
    events.emit('pair.fenced', { why });
    if (session === null) return;
    const { offsets, epoch } = path;
    const { mac } = config.vm;
    this.passingOn = new PassingOn({ slabs, uplink, link: session.link, offsets, mac, epoch, limits });
  }

  /** Tells the peer what this node's VM suffers from, and closes the link. */
  reportVm(message: string): void {
    this.session?.link.sendFailed(message, 'COLO_VM_TROUBLE');
    this.closeLink(message);
  }

  /** Tells the peer that the guest has been switched off. */
  reportOff(): void {
    this.session?.link.sendFailed('the guest has been switched off', POWERED_OFF);
  }

  /** The arbiter's record of `generation` says alone(this node), and the VM is off: what is held leaves. */
  release(generation: number): void {
    const { path } = this;
    path.goAlone(generation);
  }

  closeLink(cause: string): void {
    this.session?.close(cause);
  }

  setTap(tap: Tap | null): void {
    this.path.tap = tap;
  }

  /** Drops all output and stops the VM: this node has lost the voice for good. */
  fence(): void {
    this.path.fence();
    this.scope.end();
    void this.vm.stop();
  }

  /** Ends the role with its session and its VM; resolves when the VM's QEMU has ended. */
  async end(): Promise<void> {
    this.path.fence();
    this.scope.end();
    this.closeLink('closed by this node');
    this.former?.close('closed by this node');
    await this.vm.stop();
  }

  private totals(): MatchTotals & ReleaseTotals {
    const { comparator, counters } = this.path;
    return {
      matched: comparator.counters.matched,
      releasedByCommit: comparator.releasedWithoutMatch,
      releasedBytes: counters.releasedBytes,
      secondaryFrames: counters.peerFrames,
    };
  }

  /** The former primary has yielded, and passes on for a while what its uplink hears. */
  private hearFrom(former: SecondarySession, passedOn: PassedOn, generation: number): void {
    this.former = former;
    former.handOver(passedOn, generation);
    const end = () => former.close('the move is complete');
    this.scope.after(this.parts.surroundings.timers, PASSED_ON_MS, end);
  }

  private async leaveColo(): Promise<void> {
    await this.vm.vm?.failover(FAILOVER_MS_MAX);
  }

  private failed(cause: unknown): void {
    if (!this.isOver) this.parts.dispatch({ type: 'vmFailed', message: errorText(cause) });
  }
}
