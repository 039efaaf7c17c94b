/**
 * The primary's data path: uplink to PVM and link, PVM to comparator, comparator to uplink.
 *
 * Goal: rules 1, 2 and 3 of docs/architecture.md. The path sends each client frame to the PVM and mirrors it to the link,
 * from one slab. While the pair is protected the comparator holds the PVM's output; while the VM is alone output leaves at
 * once.
 *
 * Numbers: inside, everything is in the PVM's sequence numbers. Clients of a connection that outlived a failover know other
 * numbers; `offsets` translates them at the uplink, in place, on input and at release.
 *
 * Voice: the path asks `voice` (pair/voice.ts) before each write to the uplink. While it may not speak, released frames stay
 * in the uplink's queue; `fence` drops them. Bytes that the socket does not take at once would leave later without another
 * question, even before a paused process runs its first line. A write is therefore at most `uplinkWriteBytesMax`, and the
 * next one comes when the socket has taken all of it.
 *
 * Input waits in order while the SVM is behind in its flow (catch-up.ts), while a checkpoint is drained and taken, and while both VMs
 * work on earlier input (portions.ts); afterwards both VMs get it.
 *
 * | phase     | `secondary` | input                   | output                 | ends by                                  |
 * |-----------|-------------|-------------------------|------------------------|------------------------------------------|
 * | alone     | null        | to the PVM              | released at once       | `commit` (protected), `fence`            |
 * | protected | the link    | to the PVM and mirrored | held by the comparator | `goAlone` (alone), `fence`               |
 * | fenced    | any         | dropped                 | dropped                | nothing: the path is over, its seats end |
 *
 * Limits: input that waits (there, or because PVM or link takes too little) pauses the reading of the uplink. Output
 * that waits (because the uplink takes too little, or because the comparator is full until the next checkpoint:
 * `Comparator.isFull`) pauses the reading of the PVM.
 */
import { Comparator, type ComparatorSink, type Overdue, type Urgent } from '../compare/comparator.ts';
import { NO_FLOW } from '../compare/held-frames.ts';
import { LESSON, type Lesson } from '../compare/lesson.ts';
import type { OperatorRule } from '../compare/operator-rules.ts';
import type { ReleaseCause } from '../compare/verdict.ts';
import { invariant } from '../error.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { BatchClock } from '../io/batch-clock.ts';
import { type Clock, systemTimers } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { type Seat, Valve } from '../io/seat.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { LinkWriter } from '../link/link-channel.ts';
import type { Voice } from '../pair/voice.ts';
import type { OffsetMap } from '../translate/offset-map.ts';
import type { Instant, SlabId } from '../units.ts';
import { CatchUp } from './catch-up.ts';
import { ClockLead } from './clock-lead.ts';
import { Confirmations } from './confirmations.ts';
import { type AcceptsInput, InputFilter } from './input-filter.ts';
import { OwnFrames } from './own-frames.ts';
import { PathDivergences } from './path-divergences.ts';
import { PathRules } from './path-rules.ts';
import { Portions } from './portions.ts';
import type { PrimaryPathEvents, PrimaryPathOptions } from './primary-path-options.ts';
import { type ReleasedBy, releasedBy } from './released-by.ts';
import { SvmLag } from './svm-lag.ts';
import { SvmSleep } from './svm-sleep.ts';
import { SvmWait, type WorkWaits } from './svm-wait.ts';
import { TAP, type Tap } from './tap.ts';

export class PrimaryPath {
  readonly counters = {
    inputFrames: 0,
    inputBytes: 0,
    foreignFrames: 0,
    releasedFrames: 0,
    releasedByPromotion: 0,
    releasedBytes: 0,
    peerFrames: 0,
    droppedFrames: 0,
  };
  readonly comparator: Comparator;
  readonly rules: PathRules;
  readonly lag: SvmLag;
  readonly clockLead: ClockLead;
  readonly portions: Portions;
  readonly catchUp: CatchUp;
  readonly svm: SvmSleep;
  readonly own: OwnFrames;
  private readonly svmWait: SvmWait;
  private readonly confirmations: Confirmations;
  readonly offsets: OffsetMap;
  readonly voice: Voice;
  tap: Tap | null = null;
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly vm: FramePort;
  private readonly uplink: FramePort;
  private readonly vmSeat: Seat;
  private readonly uplinkSeat: Seat;
  private readonly vmValve: Valve;
  private readonly uplinkValve: Valve;
  private readonly clock: Clock;
  private readonly batchClock: BatchClock;
  private readonly events: PrimaryPathEvents;
  private readonly divergences: PathDivergences;
  private readonly filter: AcceptsInput;
  /** SVM output of the next epoch that arrived before this node has committed; the tag is its index */
  private readonly early: RetainedFrames;
  private currentEpoch: number;
  /** the link to a secondary that has a copy: input is mirrored to it, and output compared with its VM's */
  private secondary: LinkWriter | null = null;
  /** `rest`: the PVM has stopped, and its output is read past every limit */
  private reading: 'limited' | 'rest' = 'limited';
  private sending = false;
  private inputIndex = 0;

  constructor(options: PrimaryPathOptions) {
    this.limits = options.limits ?? LIMITS;
    this.slabs = options.slabs;
    this.vm = options.vm;
    this.uplink = options.uplink;
    this.clock = options.clock;
    this.batchClock = new BatchClock(options.clock);
    this.offsets = options.offsets;
    this.voice = options.voice;
    this.currentEpoch = options.epoch;
    this.events = options.events;
    this.filter = options.filter ?? new InputFilter(options.mac);
    this.early = new RetainedFrames(options.slabs);
    const sink: ComparatorSink = {
      release: (slab, at, length, cause) => this.release(slab, at, length, cause),
      absorb: () => {},
      teach: (lesson, slab, at, length) => this.teach(lesson, slab, at, length),
      confirm: (index) => this.confirmations.add(this.epoch, index),
      diverged: (...divergence) => this.onDiverged(...divergence),
    };
    this.comparator = new Comparator(options.slabs, sink, options.hashSeed, 'plain', this.limits);
    this.comparator.taught = true;
    this.rules = new PathRules(this.comparator);
    const { comparator, events } = this;
    this.divergences = new PathDivergences(comparator, options.slabs, (one) => events.settled(one));
    this.lag = new SvmLag(this.comparator);
    this.clockLead = new ClockLead(options.slabs, this.comparator);
    this.svm = new SvmSleep(() => this.secondary?.sendWatchSleep(this.epoch, this.inputIndex));
    this.svmWait = new SvmWait(this.svm);
    const { slabs, clock, timers = systemTimers, sight = () => null } = options;
    const { limits, vm, svm, voice, uplink } = this;
    const deliver = (slab: SlabId, at: number, length: number) => this.deliver(slab, at, length);
    const isHeld = (key: Int32Array) => this.isHeld(key);
    const owner = { deliver, delivered: () => this.onInputEnd(), isHeld };
    this.portions = new Portions({ slabs, limits, vm, sight, clock, timers, svm, owner });
    const rest = { next: this.portions, delivered: owner.delivered };
    // Only frames that have left this process: if it dies earlier, the secondary has to send them.
    const allLeft = () => !voice.isFenced && uplink.out.runs === 0 && uplink.isTaken;
    this.confirmations = new Confirmations({ timers, allLeft, link: () => this.secondary });
    this.catchUp = new CatchUp({ slabs, limits, clock, timers, comparator, ...rest });
    this.own = new OwnFrames(options, {
      take: (slab, at, length) => this.catchUp.take(slab, at, length),
      taken: () => this.onTaken(),
    });
    this.uplinkSeat = this.uplink.seat({
      handler: {
        frame: (slab, at, length) => this.onInput(slab, at, length),
        batchEnd: () => this.onTaken(),
      },
      written: () => {
        this.sendOut();
        this.regulate();
      },
      // No client has received it: unconfirmed, the secondary retains it until the next checkpoint.
      lost: () => this.secondary?.dropConfirms(),
    });
    this.vmSeat = this.vm.seat({
      handler: {
        frame: (slab, at, length) => this.onOutput(slab, at, length),
        batchEnd: () => {
          this.onOutputEnd();
          this.portions.outputSeen();
        },
      },
      written: () => this.regulate(),
    });
    this.uplinkValve = new Valve(this.uplinkSeat);
    this.vmValve = new Valve(this.vmSeat);
  }

  get epoch(): number {
    return this.currentEpoch;
  }

  get releasedBy(): ReleasedBy {
    return releasedBy(this.comparator, this.counters.releasedByPromotion);
  }

  /** Bytes of the link that wait for the secondary to take them: client input above all. */
  get unsentToSecondary(): number {
    return this.secondary?.queuedBytes ?? 0;
  }

  /** Takes a frame of the SVM: of this epoch, or of the next one if it overtook the message that commits this one. */
  peerFrame(epoch: number, index: number, slab: SlabId, at: number, length: number): void {
    // A fenced path commits nothing, so it would never release the frame.
    if (this.voice.isFenced) return;
    if (epoch > this.epoch) {
      this.retainEarly(slab, at, length, index);
      return;
    }
    if (this.secondary !== null && epoch === this.epoch) this.onPeerOutput(index, slab, at, length);
  }

  peerBatchEnd(): void {
    this.onOutputEnd();
  }

  /** The link has taken frames: there may be room for input again. */
  linkWritten(): void {
    this.regulate();
  }

  /** From now on the gate retains input, until `openGate`. */
  closeGate(): void {
    this.catchUp.closeGate();
  }

  openGate(): void {
    this.catchUp.openGate();
    this.regulate();
  }

  /** The SVM sleeps, having been given the first `frames` frames of an epoch's input. */
  svmAsleep(epoch: number, frames: number): void {
    if (epoch !== this.epoch || frames !== this.inputIndex) return;
    if (this.svm.asleep(this.clock.now())) this.portions.svmAsleep();
  }

  /** The secondary cannot see whether its VM sleeps. */
  svmBlind(why: string): void {
    this.svm.blindness = why;
    this.portions.svmBlind();
  }

  /** The PVM has read all of its input. */
  get inputDrained(): boolean {
    return this.vm.drained;
  }

  /** This node has read all of the PVM's output. */
  get outputExhausted(): boolean {
    return this.vm.exhausted;
  }

  /**
   * The PVM has stopped. Its remaining output belongs to the epoch that ends, so it is read even if a limit had paused the
   * reading. It fits into one socket buffer.
   */
  readRest(): void {
    this.reading = 'rest';
    this.regulate();
  }

  /**
   * A checkpoint has committed: both VMs are equal. The comparator releases everything held, and the next epoch begins.
   * From the first commit on, the path mirrors input to `link` and compares output. Returns how many frames it released.
   */
  commit(link: LinkWriter): number {
    invariant(this.portions.isGated, 'a checkpoint committed while the input gate was open');
    // The secondary has the state. A fenced path has nothing left to release.
    if (this.voice.isFenced) return 0;
    invariant(this.secondary === null || this.secondary === link, 'a checkpoint committed on another link');
    this.reading = 'limited';
    this.secondary = link;
    this.portions.protect();
    this.divergences.settle();
    const released = this.comparator.commit();
    // Input that waited for flows which the next rules may have forgotten.
    this.catchUp.compared();
    this.rules.settle();
    this.divergences.clear();
    this.lag.forget();
    this.clockLead.commit(this.batchClock.now());
    link.dropConfirms();
    this.currentEpoch++;
    this.inputIndex = 0;
    this.svm.forget();
    this.early.drain((slab, at, length, index) => this.onPeerOutput(index, slab, at, length));
    this.onOutputEnd();
    return released;
  }

  /**
   * The arbiter's record of `generation` says alone(this node): what is held leaves, and nothing is held from now on.
   * Returns how many frames the comparator released.
   */
  goAlone(generation: number): number {
    this.voice.grantAlone(generation);
    const wasProtected = this.secondary !== null;
    this.secondary = null;
    this.early.clear();
    this.divergences.settle();
    const released = wasProtected ? this.comparator.commit() : 0;
    this.divergences.clear();
    this.lag.forget();
    this.clockLead.forget();
    this.reading = 'limited';
    this.svm.forget();
    this.svm.blindness = null;
    this.catchUp.goAlone();
    this.rules.settle();
    this.onOutputEnd();
    return released;
  }

  /** Drops all output and gives the ports back: this node has lost the voice for good. */
  fence(): void {
    this.voice.fence();
    if (this.uplinkSeat.isEnded) return;
    this.counters.droppedFrames += this.uplink.out.frames;
    this.uplink.out.clear();
    // The rest of a write that the socket has not taken would still leave. The uplink's keeper opens another socket.
    if (this.uplink.queuedBytes > 0) this.uplink.close();
    this.catchUp.discard();
    this.own.end();
    this.early.clear();
    this.divergences.settle();
    this.comparator.discard();
    this.uplinkSeat.end();
    this.vmSeat.end();
  }

  /** Releases what the VM sent before its promotion. The frame is in the client's numbers already. */
  sendAsIs(slab: SlabId, at: number, length: number): void {
    invariant(this.secondary === null, 'a promotion sent output while the pair was protected');
    this.countReleased(length);
    this.counters.releasedByPromotion++;
    this.tap?.(TAP.released, this.slabs.buffer(slab), at, length, 'promotion');
    this.uplink.out.push(slab, at, length);
  }

  releaseDue(nowMs: Instant): void {
    if (this.secondary !== null && this.comparator.releaseDue(nowMs) > 0) this.onOutputEnd();
  }

  overdue(nowMs: Instant, limits: WorkWaits): Overdue {
    if (this.secondary === null) return null;
    const overdue = this.svmWait.overdue(this.comparator, nowMs, limits);
    if (overdue === 'wait-primary') this.lag.overdue(nowMs);
    return overdue;
  }

  pressure(): Urgent {
    if (this.secondary === null) return null;
    return this.comparator.pressure() ?? (this.rules.isWaiting ? 'requested' : null);
  }

  /** Puts the operator's rules into force: at once while the VM is alone, else at the next commit. `inForce` is called then. */
  useRules(list: readonly OperatorRule[], inForce: () => void): void {
    this.rules.change(list, inForce);
    if (this.secondary === null) this.rules.settle();
  }

  /** Sends the frames that waited for the voice: it was granted, or its lease renewed. */
  flush(): void {
    this.onOutputEnd();
  }

  private onInput(slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    if (!this.filter.accepts(bytes, at, length)) {
      this.counters.foreignFrames++;
      return;
    }
    this.counters.inputFrames++;
    this.counters.inputBytes += length;
    this.own.places.heard(bytes, at, length);
    this.tap?.(TAP.uplinkIn, bytes, at, length, this.portions.isGated ? 'gated' : 'input');
    this.catchUp.take(slab, at, length);
  }

  private deliver(slab: SlabId, at: number, length: number): void {
    // Before either push: both queues write the bytes from where they lie.
    this.offsets.input(this.slabs.buffer(slab), at, length);
    this.vm.out.push(slab, at, length);
    this.svm.forget();
    this.secondary?.pushInput(this.epoch, this.inputIndex++, slab, at, length);
  }

  private onTaken(): void {
    this.onInputEnd();
    this.catchUp.taken();
  }

  private onInputEnd(): void {
    if (this.secondary !== null) this.confirmations.sendInput(this.secondary);
    this.vm.flush();
    this.regulate();
  }

  private onOutput(slab: SlabId, at: number, length: number): void {
    this.tap?.(TAP.primaryVm, this.slabs.buffer(slab), at, length, `epoch ${this.epoch}`);
    this.own.places.sent(this.slabs.buffer(slab), at, length);
    const nowMs = this.batchClock.now();
    if (this.secondary === null) {
      this.comparator.passAlone(slab, at, length, nowMs);
      return;
    }
    this.clockLead.frame('pvm', slab, at, length, nowMs);
    this.comparator.primaryFrame(slab, at, length, nowMs);
  }

  /** A frame that the SVM sent in this epoch. */
  private onPeerOutput(index: number, slab: SlabId, at: number, length: number): void {
    this.counters.peerFrames++;
    this.svm.outputSeen();
    this.tap?.(TAP.secondaryVm, this.slabs.buffer(slab), at, length, `epoch ${this.epoch} index ${index}`);
    const nowMs = this.batchClock.now();
    this.clockLead.frame('svm', slab, at, length, nowMs);
    this.comparator.secondaryFrame(slab, at, length, index, nowMs);
  }

  private onOutputEnd(): void {
    this.catchUp.compared();
    // The link first: the secondary must learn of a SYN before the client can reply to it.
    this.secondary?.flush();
    this.sendOut();
    this.regulate();
    if (this.offsets.size > 0) this.offsets.sweep(this.batchClock.now());
    if (this.secondary !== null) {
      this.portions.compared();
      this.lag.batchEnd(this.batchClock.now());
      this.clockLead.batchEnd(this.batchClock.now());
    }
    this.batchClock.end();
  }

  /** Writes as much as the uplink's socket takes; its `written` callback continues. */
  private sendOut(): void {
    const { uplink } = this;
    // A stream may call `written` from within a write.
    if (this.sending) return;
    this.sending = true;
    while (uplink.out.runs > 0 && uplink.queuedBytes === 0 && this.maySpeak())
      uplink.flush(this.limits.uplinkWriteBytesMax);
    this.sending = false;
    this.confirmations.left();
  }

  /** Back-pressure: a source is read while there is room for what it sends. */
  private regulate(): void {
    this.uplinkValve.shutIf(
      this.catchUp.waitingBytes >= this.limits.gatedBytesMax ||
        this.vm.queuedBytes >= this.limits.unsentBytesMax ||
        this.unsentToSecondary >= this.limits.unsentBytesMax,
    );
    this.vmValve.shutIf(
      this.reading === 'limited' &&
        (this.uplink.queuedBytes + this.uplink.out.bytes >= this.limits.unsentBytesMax ||
          (this.secondary !== null && this.comparator.isFull(0))),
    );
  }

  private release(slab: SlabId, at: number, length: number, cause: ReleaseCause): void {
    const bytes = this.slabs.buffer(slab);
    this.offsets.output(bytes, at, length);
    this.countReleased(length);
    if (this.tap !== null) {
      const comment = cause === 'commit' ? this.divergences.commentOf(slab, at) : cause;
      this.tap(TAP.released, bytes, at, length, comment);
    }
    this.portions.released(slab, at, length);
    this.confirmations.released(bytes, at, length);
    this.uplink.out.push(slab, at, length);
  }

  private isHeld(key: Int32Array): boolean {
    const flow = this.comparator.flowWithKey(key);
    return flow !== NO_FLOW && this.comparator.svmIsBehind(flow);
  }

  /** Sends a frame to learn from, in the PVM's own numbers: a copy if its release may change it before the link is written. */
  private teach(lesson: Lesson, slab: SlabId, at: number, length: number): void {
    const link = this.secondary;
    if (lesson === LESSON.tcpSyn) this.clockLead.began(slab, at, length);
    if (this.offsets.size === 0 && lesson === LESSON.tcpSyn)
      link?.pushTeach(this.epoch, lesson, slab, at, length);
    else link?.sendTeach(this.epoch, lesson, this.slabs.buffer(slab).subarray(at, at + length));
  }

  private onDiverged(...[key, reason, primary, secondary]: Parameters<ComparatorSink['diverged']>): void {
    const capture = this.tap === null ? 'not-captured' : 'captured';
    const divergence = this.divergences.explain(capture, key, reason, primary, secondary);
    this.events.diverged(divergence, this.rules.intervalMsFor(key));
    if (this.comparator.holdsOther(primary)) this.portions.diverged(key, divergence.class, this.clock.now());
  }

  private countReleased(length: number): void {
    this.counters.releasedFrames++;
    this.counters.releasedBytes += length;
  }

  /** Rule 2: asked before each write. */
  private maySpeak(): boolean {
    return this.voice.maySpeak(this.clock.now());
  }

  private retainEarly(slab: SlabId, at: number, length: number, index: number): void {
    // At the limit the frame is dropped: its PVM counterpart is held until a checkpoint.
    if (this.early.frames < this.limits.earlyFramesMax) this.early.add(slab, at, length, index);
  }
}
