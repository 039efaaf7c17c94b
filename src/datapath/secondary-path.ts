/**
 * The secondary's data path: link to SVM, SVM to link, and nothing to the uplink.
 *
 * Goal: the SVM receives what the PVM receives, in the same order (rule 3), and its output reaches the comparator in the
 * PVM's numbers. For a failover the path retains two things (rule 4): SVM output that the primary has not confirmed, which
 * the promotion sends at once so that no client waits for a retransmission timer; and client frames that this node's own
 * uplink received and the primary has not passed on (silent-input.ts).
 *
 * Numbers: inside, everything is in the PVM's. `offsets` is a copy of the primary's map for connections that outlived an
 * earlier failover; it translates what the silent uplink receives.
 *
 * Phases. In addition, `hasCopy` is false until the first commit: until then the SVM receives nothing, and its output is
 * dropped.
 *
 * | phase    | the SVM's output                         | next phase                                                    |
 * |----------|------------------------------------------|---------------------------------------------------------------|
 * | running  | is sent; the link's back-pressure counts | draining: `readRest`, the SVM stops for a checkpoint          |
 * | draining | is sent past every limit                 | stopped: `stop`, all of it was read                           |
 * | stopped  | is not read: it comes from the new state | running: `commit`, the SVM has the PVM's state                |
 * | over     | belongs to the ports' next user          | none: `leave` (a promotion) or `discard`; the seats have ended|
 *
 * `discard` may come in every phase.
 *
 * Limits: those of silent-input.ts; retained output is held on the primary as well, which forces a checkpoint long before
 * the list grows large; a link that takes too little pauses the reading of the SVM.
 */

import { LESSON, type Lesson } from '../compare/lesson.ts';
import { invariant } from '../error.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { BatchClock } from '../io/batch-clock.ts';
import { type Clock, systemTimers, type Timers } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { type Seat, Valve } from '../io/seat.ts';
import type { SleepSight } from '../io/sleep-sight.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { LinkWriter } from '../link/link-channel.ts';
import type { OffsetMap } from '../translate/offset-map.ts';
import type { SvmTranslator } from '../translate/svm-translator.ts';
import type { UnifiedValue } from '../translate/unified-values.ts';
import { ValueLesson } from '../translate/value-lesson.ts';
import type { SlabId } from '../units.ts';
import { InputFilter } from './input-filter.ts';
import { PassedOn } from './passed-on.ts';
import { SilentInput } from './silent-input.ts';
import { SleepWatch } from './sleep-watch.ts';
import { TAP, type Tap } from './tap.ts';

/** Frames that a promotion sent to clients and delivered to the VM, and connections that it could not translate. */
export type Promotion = { sentFrames: number; deliveredFrames: number; lostConnections: number };

export class SecondaryPath {
  readonly counters = { inputFrames: 0, outputFrames: 0, droppedFrames: 0 };
  readonly offsets: OffsetMap;
  readonly translator: SvmTranslator;
  tap: Tap | null = null;
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly vm: FramePort;
  private readonly link: LinkWriter;
  private readonly clock: Clock;
  private readonly batchClock: BatchClock;
  private readonly vmSeat: Seat;
  private readonly uplinkSeat: Seat;
  private readonly linkValve: Valve;
  private readonly stoppedValve: Valve;
  private readonly filter: InputFilter;
  /** SVM output of this epoch that the primary has not confirmed, by its index */
  private readonly retained: RetainedFrames;
  private readonly silent: SilentInput;
  private readonly watch: SleepWatch;
  /** how many frames of this epoch's input the primary has asked about */
  private watchedFrames = 0;
  private phase: 'running' | 'draining' | 'stopped' | 'over' = 'running';
  private hasCopy = false;
  private currentEpoch = 0;
  /**
   * retained SYNs are not in the PVM's numbers yet, or replies do not have its value of a field; one read may teach several, so they
   * are corrected at its end
   */
  private isToCorrect = false;
  /** null except in an orderly move */
  private passedOn: PassedOn | null = null;

  constructor(options: {
    slabs: SlabPool;
    vm: FramePort;
    uplink: FramePort;
    link: LinkWriter;
    clock: Clock;
    offsets: OffsetMap;
    translator: SvmTranslator;
    mac: string;
    limits?: Limits;
    /** Sees whether the SVM sleeps; null without a VM. */
    sight?: () => SleepSight | null;
    timers?: Timers;
  }) {
    this.limits = options.limits ?? LIMITS;
    this.slabs = options.slabs;
    this.vm = options.vm;
    this.link = options.link;
    this.clock = options.clock;
    this.batchClock = new BatchClock(options.clock);
    this.offsets = options.offsets;
    this.translator = options.translator;
    // The primary teaches every SYN of the PVM before any client can reply to it.
    this.translator.portsFrom = 'lessons';
    this.filter = new InputFilter(options.mac);
    this.retained = new RetainedFrames(options.slabs);
    this.silent = new SilentInput(options.slabs, this.limits);
    this.watch = new SleepWatch({
      port: this.vm,
      sight: options.sight ?? (() => null),
      clock: options.clock,
      timers: options.timers ?? systemTimers,
      asleep: () => this.link.sendAsleep(this.epoch, this.watchedFrames),
    });
    this.uplinkSeat = options.uplink.seat({
      handler: {
        frame: (slab, at, length) => this.onSilentInput(slab, at, length),
        batchEnd: () => {},
      },
    });
    this.vmSeat = this.vm.seat({
      handler: {
        frame: (slab, at, length) => this.onOutput(slab, at, length),
        batchEnd: () => this.onOutputEnd(),
      },
    });
    this.linkValve = new Valve(this.vmSeat);
    this.stoppedValve = new Valve(this.vmSeat);
  }

  get epoch(): number {
    return this.currentEpoch;
  }

  /** Whether the SVM may be promoted: a checkpoint has committed. */
  get isPromotable(): boolean {
    return this.hasCopy && this.phase !== 'over';
  }

  get retainedFrames(): number {
    return this.retained.frames;
  }

  /** Takes a client frame that the primary mirrors. */
  input(slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    this.watch.end();
    this.counters.inputFrames++;
    this.tap?.(TAP.uplinkIn, bytes, at, length, 'mirrored');
    this.silent.passedOn(bytes, at, length, this.batchClock.now());
    this.translator.input(bytes, at, length);
    this.vm.out.push(slab, at, length);
  }

  /**
   * Takes a frame of the PVM; `lesson` names the values in it that the translator learns. A SYN of an earlier epoch may
   * arrive after the commit, since the two travel on different connections: the SVM has that connection already, and the
   * translator must not pair the next connection that the SVM opens to the same place with it. The value of a field is void then.
   */
  teach(epoch: number, lesson: Lesson, slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    if (lesson === LESSON.httpDate) {
      if (epoch === this.epoch && this.hasCopy) this.learnValue(bytes, at, length);
      return;
    }
    this.offsets.teach(lesson, bytes, at, length);
    const age = epoch < this.epoch ? 'past' : 'current';
    if (this.translator.teach(lesson, age, bytes, at, length) === 'syn-moved') this.isToCorrect = true;
  }

  /** Clients have received what the SVM frames `from` to `to` of this epoch contain. */
  confirm(epoch: number, from: number, to: number): void {
    if (epoch === this.epoch) this.retained.remove(from, to);
  }

  /**
   * The primary waits until the SVM sleeps over the first `frames` frames of this epoch's input, all of which have arrived. If that
   * cannot be seen it is notified of that.
   */
  watchSleep(epoch: number, frames: number): void {
    if (epoch !== this.epoch || this.phase !== 'running') return;
    this.vm.flush();
    const { blindness } = this.watch;
    if (blindness !== null) {
      this.link.sendBlind(blindness);
      return;
    }
    this.watchedFrames = frames;
    this.watch.begin();
  }

  linkBatchEnd(): void {
    if (this.isToCorrect) this.sendCorrected();
    this.vm.flush();
    if (this.link.queuedBytes < this.limits.unsentBytesMax) this.linkValve.shutIf(false);
    this.batchClock.end();
  }

  /** The SVM has read all of its input. */
  get inputDrained(): boolean {
    return this.vm.drained;
  }

  /** This node has read all of the SVM's output. */
  get outputExhausted(): boolean {
    return this.vm.exhausted;
  }

  /** The SVM has stopped. Its remaining output belongs to the epoch that ends, so it is read past every limit. */
  readRest(): void {
    if (this.phase === 'over') return;
    this.watch.end();
    this.phase = 'draining';
    this.linkValve.shutIf(false);
  }

  /** All output of the stopped SVM has been read. Its next output comes from the PVM's state, after `commit`. */
  stop(): void {
    // A barrier may reach this point after its session has ended.
    if (this.phase === 'over') return;
    this.phase = 'stopped';
    this.stoppedValve.shutIf(true);
  }

  /** The primary ends `epoch`. Before the first commit this node takes its epoch's number from it. */
  endOfEpoch(epoch: number): void {
    if (!this.hasCopy) this.currentEpoch = epoch;
    invariant(epoch === this.epoch, `the primary ends epoch ${epoch}, this node is in ${this.epoch}`);
  }

  /** The SVM has the PVM's whole state: drops its earlier output and its translations (rule 6). */
  commit(): void {
    if (this.phase === 'over') return;
    invariant(this.phase === 'stopped', `a checkpoint committed while the SVM was ${this.phase}`);
    this.translator.clear();
    this.retained.clear();
    this.currentEpoch++;
    this.hasCopy = true;
    this.phase = 'running';
    this.stoppedValve.shutIf(false);
  }

  /** The primary has yielded, and will pass on what its uplink still hears: to be called before `leave`. */
  expectPassedOn(): PassedOn {
    const { slabs, vm, clock, filter, translator, limits } = this;
    this.passedOn = new PassedOn({ slabs, vm, clock, filter, translator, byLink: this.silent.ahead, limits });
    return this.passedOn;
  }

  /** First half of a promotion: gives both ports back to the node, for the primary's path. */
  leave(): void {
    invariant(this.isPromotable, 'a VM without a committed copy was promoted');
    this.phase = 'over';
    this.watch.end();
    this.uplinkSeat.end();
    this.vmSeat.end();
  }

  /**
   * Second half of a promotion: the SVM is the one VM now. The path delivers to it what the primary did not pass on, and
   * hands what the primary did not confirm to `send`, in the client's numbers. After that `offsets` maps the SVM's numbers.
   */
  handOver(send: (slab: SlabId, at: number, length: number) => void): Promotion {
    invariant(this.vmSeat.isEnded, 'a promotion used the ports before the secondary had left them');
    const promotion: Promotion = { sentFrames: 0, deliveredFrames: 0, lostConnections: 0 };
    this.translator.portsFrom = 'clients';
    const { passedOn } = this;
    this.silent.drain((slab, at, length) => {
      const bytes = this.slabs.buffer(slab);
      // The link may bring it yet.
      passedOn?.accepts(bytes, at, length);
      this.translator.input(bytes, at, length);
      this.vm.out.push(slab, at, length);
      promotion.deliveredFrames++;
    });
    this.retained.drain((slab, at, length) => {
      const bytes = this.slabs.buffer(slab);
      this.correct(bytes, at, length);
      this.translator.correctTime(bytes, at, length);
      this.offsets.output(bytes, at, length);
      send(slab, at, length);
      promotion.sentFrames++;
    });
    promotion.lostConnections = this.translator.carryOver(this.offsets);
    if (passedOn === null) this.translator.clear();
    this.vm.flush();
    return promotion;
  }

  /** The SVM will not be promoted: forgets everything and gives both ports back. */
  discard(): void {
    this.phase = 'over';
    this.watch.end();
    this.retained.clear();
    this.silent.clear();
    this.uplinkSeat.end();
    this.vmSeat.end();
  }

  /** Learns what clients are told in place of a value of the SVM, which is in a frame that is retained. */
  private learnValue(bytes: Uint8Array, at: number, length: number): void {
    const { values } = this.translator;
    // A promotion adds them to those.
    if (values.size + this.offsets.values.size >= this.offsets.values.valuesMax) return;
    const lesson = new ValueLesson(bytes, at, length);
    const found: UnifiedValue[] = [];
    this.retained.forEach((_index, slab, at, length) => {
      const value = lesson.valueIn(this.slabs.buffer(slab), at, length);
      if (value !== null) found.push(value);
    });
    // The SVM may have repeated it: all have the same.
    if (found.length > 0 && values.add(found[0])) this.isToCorrect = true;
  }

  private onSilentInput(slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    if (!this.hasCopy || !this.filter.accepts(bytes, at, length)) return;
    this.offsets.input(bytes, at, length);
    this.silent.receive(slab, at, length, this.clock.now());
  }

  private onOutput(slab: SlabId, at: number, length: number): void {
    if (!this.hasCopy) {
      this.counters.droppedFrames++;
      return;
    }
    const bytes = this.slabs.buffer(slab);
    this.counters.outputFrames++;
    this.tap?.(TAP.secondaryVm, bytes, at, length, `epoch ${this.epoch}`);
    this.translator.output(bytes, at, length);
    const index = this.retained.add(slab, at, length);
    this.link.pushOutput(this.epoch, index, slab, at, length);
  }

  /**
   * Sends again each SYN that left in the SVM's own number or from its own port, and each reply with the SVM's own value of a field:
   * it did not match the PVM's. What was corrected shows the primary that this node knows the PVM's, so that it releases the PVM's.
   *
   * The frame is changed in place. If its first copy still waits in a socket, the corrected frame is sent twice: harmless.
   */
  private sendCorrected(): void {
    this.isToCorrect = false;
    const corrected: [index: number, slab: SlabId, at: number, length: number][] = [];
    this.retained.forEach((index, slab, at, length) => {
      if (this.correct(this.slabs.buffer(slab), at, length)) corrected.push([index, slab, at, length]);
    });
    for (const [index, slab, at, length] of corrected) {
      const again = this.retained.add(slab, at, length);
      this.link.pushOutput(this.epoch, again, slab, at, length);
      this.retained.remove(index);
    }
    this.link.flush();
  }

  /** Gives a retained frame what the PVM has taught since it was sent. Returns true if it has changed. */
  private correct(bytes: Uint8Array, at: number, length: number): boolean {
    const { translator } = this;
    return translator.correctSyn(bytes, at, length) || translator.values.correct(bytes, at, length);
  }

  private onOutputEnd(): void {
    // If the SVM sleeps now, the link needs one write for this too.
    this.watch.outputSeen();
    this.link.flush();
    if (this.phase === 'running' && this.link.queuedBytes >= this.limits.unsentBytesMax)
      this.linkValve.shutIf(true);
  }
}
