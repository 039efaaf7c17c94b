/**
 * Input in portions: both VMs are given what clients have sent in the same portions, and the next portion when both sleep
 * over the last.
 *
 * Goal: rule 3 made stronger. Both VMs get the same frames in the same order in any case; but in which order a process takes
 * what waits for it depends on when it looks. Two VMs that rest whenever input arrives take it in one order. This is a poor man's
 * deterministic delivery: not instructions are counted, but rests. It is a matter of speed only: whatever a portion
 * does, the comparator decides what leaves.
 *
 * Only input for services whose VMs order has parted is given in portions (portion-switch.ts); other input goes to the VMs at once.
 * When the portions of one of several services are switched off, all that waits goes first: nothing overtakes within a flow.
 *
 * A portion ends when the SVM has slept over it (the secondary looks, and sends ASLEEP) and the PVM sleeps (sleep-watch.ts).
 * Nobody looks while no input waits. As long as a portion gives work of one flow only, more of that flow belongs to it
 * at once: one client alone is never made to wait. A bare ACK gives no work; it waits only behind what waits.
 * Where other services keep a guest awake, a portion also ends by both VMs' answers and quiet after them (portion-answers.ts).
 *
 * A portion is cut from the waiting input, in order (portion-cut.ts): at most `size` frames with work, which aims at 40 to 80 ms of it.
 * Between two portions both guests rest for 2 to 4 ms, which short ones would pay too often.
 *
 * Bound: no input waits longer than `boundMs`, which is at most `portionMsMax` (limits.ts), beside what a checkpoint's gate
 * takes. What has waited so long goes to both VMs at once, whatever its size. A portion that the bound has ended halves the bound,
 * down to `portionMsMin`, and one that ended in sleep doubles it: a guest that never sleeps costs half a second once. Then the
 * switch (portion-switch.ts) turns portions off.
 *
 * | phase   | input                                      | next phase                                                          |
 * |---------|--------------------------------------------|---------------------------------------------------------------------|
 * | through | to the VMs                                 | running: switched on; gated                                         |
 * | running | of the portion's only flow: to the VMs     | ending: other input waits; through: switched off, alone; gated      |
 * | ending  | waits                                      | running, ending: the portion has ended; through: as above; gated    |
 * | gated   | waits                                      | through, running, ending: the gate opens                            |
 *
 * A checkpoint changes nothing else: the portion goes on in both VMs, and the SVM is asked again.
 * Failover: what waits here was not mirrored. The secondary's own uplink has received it (silent-input.ts), and a promotion
 * delivers it. A primary that goes alone delivers it itself.
 */
import type { DivergenceClass } from '../divergence/explained.ts';
import { invariant } from '../error.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { SleepSight } from '../io/sleep-sight.ts';
import type { Limits } from '../limits.ts';
import type { Instant, SlabId } from '../units.ts';
import { InputFlow, NO_WORK, serviceOf } from './input-flow.ts';
import { PortionAnswers } from './portion-answers.ts';
import { PortionCut } from './portion-cut.ts';
import { type OffReason, PortionSwitches } from './portion-switch.ts';
import { SleepWatch, type WatchedPort } from './sleep-watch.ts';
import type { SvmSleep } from './svm-sleep.ts';

/** A portion's only flow, while it has none, and once it has several. */
const NO_FLOW = 0;
const SEVERAL = -1;

/** Work in a portion: one that took longer is followed by one of half its size, a full one that took less than half by a larger. */
const WORK_MS_MAX = 80;

export type PortionsOff = OffReason | 'alone' | 'blind';

export type PortionsStatus = {
  readonly state: 'on' | 'off';
  /** why they are off; null while on */
  readonly why: PortionsOff | null;
  /** why the sleep of a VM cannot be seen; null if it can */
  readonly blindness: string | null;
  readonly boundMs: number;
  readonly size: number;
  readonly endedBySleep: number;
  readonly endedByAnswers: number;
  readonly endedByBound: number;
  /** frames that waited for the end of a portion */
  readonly waitedFrames: number;
};

export type PortionsOwner = {
  /** Gives one frame to both VMs; nothing is written yet. */
  deliver(slab: SlabId, at: number, length: number): void;
  /** Writes what was delivered. */
  delivered(): void;
  /** Returns whether output of the flow with this key waits for its counterpart. */
  isHeld(key: Int32Array): boolean;
};

export class Portions {
  private readonly limits: Limits;
  private readonly owner: PortionsOwner;
  private readonly clock: Clock;
  private readonly timers: Timers;
  /** input that waits for the end of the portion; its times are those of `waitClock` */
  private readonly waiting: RetainedFrames;
  /** input that the gate retains: later than all that waits */
  private readonly gated: RetainedFrames;
  private readonly flows: InputFlow;
  private readonly switches = new PortionSwitches();
  /** how often portions of a service had been switched off when this was asked last */
  private switchedOff = 0;
  private readonly watch: SleepWatch;
  private readonly answers: PortionAnswers;
  private cancelQuiet: (() => void) | null = null;
  private phase: 'through' | 'running' | 'ending' | 'gated' = 'through';
  /** the pair is protected: there is an SVM that gets the same input */
  private protection: 'alone' | 'protected' = 'alone';
  private readonly svm: SvmSleep;
  private flow = NO_FLOW;
  private readonly cut: PortionCut;
  private size: number;
  private boundMs: number;
  /** when the portion was delivered, and how many frames with work it had */
  private startedMs = 0;
  private work = 0;
  /** for how long the gate has been closed in all, and since when it is: its time is not the portion's */
  private gateMs = 0;
  private gateClosedMs = 0;
  private cancelBound: (() => void) | null = null;
  private readonly counts = { endedBySleep: 0, endedByAnswers: 0, endedByBound: 0, waitedFrames: 0 };

  constructor(options: {
    slabs: SlabPool;
    limits: Limits;
    vm: WatchedPort;
    sight: () => SleepSight | null;
    clock: Clock;
    timers: Timers;
    svm: SvmSleep;
    owner: PortionsOwner;
  }) {
    this.limits = options.limits;
    this.owner = options.owner;
    this.clock = options.clock;
    this.timers = options.timers;
    this.svm = options.svm;
    this.waiting = new RetainedFrames(options.slabs);
    this.gated = new RetainedFrames(options.slabs);
    this.flows = new InputFlow(options.slabs);
    this.cut = new PortionCut(this.limits.portionFramesMax);
    this.size = this.limits.portionFramesMax;
    this.boundMs = this.limits.portionMsMax;
    this.answers = new PortionAnswers(options.slabs, this.limits.portionFramesMax);
    this.watch = new SleepWatch({
      port: options.vm,
      sight: options.sight,
      clock: options.clock,
      timers: options.timers,
      asleep: () => this.onAsleep(),
    });
  }

  /** Bytes that wait, here and at the gate. */
  get waitingBytes(): number {
    return this.waiting.bytes + this.gated.bytes;
  }

  get isGated(): boolean {
    return this.phase === 'gated';
  }

  /** Returns how long input has waited for the end of a portion. */
  waitedMs(nowMs: Instant): number {
    return this.phase === 'ending' ? this.waitClock(nowMs) - this.oldestSinceMs : 0;
  }

  get status(): PortionsStatus {
    const blindness = this.watch.blindness ?? this.svm.blindness;
    const why = this.offReason(blindness);
    return {
      state: why === null ? 'on' : 'off',
      why,
      blindness,
      boundMs: this.boundMs,
      size: this.size,
      ...this.counts,
    };
  }

  /** Takes a frame of a client, in order within its flow. */
  take(slab: SlabId, at: number, length: number): void {
    switch (this.phase) {
      case 'through':
        this.owner.deliver(slab, at, length);
        return;
      case 'running':
      case 'ending':
        this.takeIntoPortion(slab, at, length);
        return;
      default:
        this.gated.add(slab, at, length);
    }
  }

  private takeIntoPortion(slab: SlabId, at: number, length: number): void {
    const flow = this.flows.of(slab, at, length);
    if (!this.switches.isOn(this.flows.service)) {
      this.owner.deliver(slab, at, length);
      return;
    }
    if (this.phase === 'running') {
      if (flow === NO_WORK || flow === this.flow || this.flow === NO_FLOW) {
        if (flow !== NO_WORK) this.answers.expect(this.flows.key);
        this.owner.deliver(slab, at, length);
        this.note(flow);
        return;
      }
      this.phase = 'ending';
    }
    this.retain(slab, at, length, flow);
    this.armBound();
  }

  /** All frames of one read were taken, and what was delivered is written. */
  taken(): void {
    if (this.phase === 'ending') this.seekEnd();
  }

  /** A frame of the PVM has been released. */
  released(slab: SlabId, at: number, length: number): void {
    if (this.phase !== 'through') this.answers.released(slab, at, length, this.clock.now());
  }

  /** Output of either VM was compared. */
  compared(): void {
    if (this.phase === 'ending') this.seekQuiet();
  }

  /** A batch of the PVM's output was read. */
  outputSeen(): void {
    this.watch.outputSeen();
  }

  /** The SVM sleeps over all that was delivered. */
  svmAsleep(): void {
    if (this.phase === 'ending') this.watch.begin();
  }

  /** The secondary cannot see whether its VM sleeps. */
  svmBlind(): void {
    this.followSwitch();
  }

  /** From now on the gate retains input, until `openGate`. */
  closeGate(): void {
    this.stopSeeking();
    this.stopBound();
    this.phase = 'gated';
    this.gateClosedMs = this.clock.now();
  }

  openGate(): void {
    if (this.phase === 'gated') this.gateMs += this.clock.now() - this.gateClosedMs;
    if (!this.isWanted) {
      this.letThrough();
      return;
    }
    this.phase = this.waiting.frames > 0 ? 'ending' : 'running';
    if (this.hasSwitchedOff()) this.beginWithAll();
    else if (this.phase === 'ending') this.armBound();
    this.gated.drain((slab, at, length) => this.takeIntoPortion(slab, at, length));
    this.owner.delivered();
    this.taken();
  }

  /** There is an SVM that gets the same input. */
  protect(): void {
    this.protection = 'protected';
  }

  /** There is none any more: all input goes to the VM, now and from now on. */
  goAlone(): void {
    this.protection = 'alone';
    this.letThrough();
  }

  /** Drops everything: the path is over. */
  discard(): void {
    this.stopSeeking();
    this.stopBound();
    this.waiting.clear();
    this.gated.clear();
    this.phase = 'gated';
  }

  /**
   * The VMs diverged in a flow with this key, while output of several flows was held: in order, or in random numbers that were drawn
   * in another order? Else portions would not help.
   */
  diverged(key: ArrayLike<number>, by: DivergenceClass, nowMs: Instant): void {
    if (by !== 'order' && by !== 'random') return;
    this.switches.diverged(serviceOf(key), nowMs);
    this.followSwitch();
  }

  private get isWanted(): boolean {
    return this.offReason(this.watch.blindness ?? this.svm.blindness) === null;
  }

  private offReason(blindness: string | null): PortionsOff | null {
    if (this.protection === 'alone') return 'alone';
    return blindness === null ? this.switches.offReason : 'blind';
  }

  /** Begins or ends portions as the switch and the sights say. */
  private followSwitch(): void {
    if (this.phase === 'gated') return;
    const { isWanted } = this;
    const hasSwitchedOff = this.hasSwitchedOff();
    if (isWanted && this.phase === 'through') {
      this.phase = 'running';
      this.flow = SEVERAL;
      this.answers.clear();
    } else if (!isWanted && this.phase !== 'through') this.letThrough();
    else if (hasSwitchedOff) this.beginWithAll();
  }

  /** Returns whether portions of a service were switched off since the last call. */
  private hasSwitchedOff(): boolean {
    const { switchedOff } = this;
    this.switchedOff = this.switches.switchedOff;
    return this.switchedOff !== switchedOff;
  }

  /** Delivers all that waits, though the portion is not over. */
  private beginWithAll(): void {
    this.stopSeeking();
    if (this.waiting.frames > 0) this.begin(this.waiting.frames, this.clock.now());
    this.flow = SEVERAL;
    this.answers.clear();
  }

  /** Delivers all that waits. */
  private letThrough(): void {
    this.stopSeeking();
    this.stopBound();
    this.phase = 'through';
    for (const frames of [this.waiting, this.gated])
      frames.drain((slab, at, length) => this.owner.deliver(slab, at, length));
    this.owner.delivered();
  }

  /** Returns the time by which input waits: it does not pass while the gate is closed. */
  waitClock(nowMs: Instant): number {
    return (this.phase === 'gated' ? this.gateClosedMs : nowMs) - this.gateMs;
  }

  private get oldestSinceMs(): number {
    return this.waiting.sinceOf(this.waiting.oldest);
  }

  private retain(slab: SlabId, at: number, length: number, flow: number): void {
    this.waiting.add(slab, at, length, flow, this.waitClock(this.clock.now()));
    this.counts.waitedFrames++;
  }

  /** Counts a frame to the portion. */
  private note(flow: number): void {
    if (flow === NO_WORK) return;
    this.work++;
    if (this.flow === NO_FLOW) this.flow = flow;
    else if (this.flow !== flow) this.flow = SEVERAL;
  }

  /** Input waits: finds out whether the portion has ended. */
  private seekEnd(): void {
    if (this.seekQuiet() === 'ended') return;
    if (this.svm.isAsleep) this.watch.begin();
    else this.svm.ask();
  }

  /** Ends the portion if both VMs have answered it and were quiet for long enough; looks again when they may have been. */
  private seekQuiet(): 'ended' | 'goes on' {
    if (!this.answers.isComplete || this.cancelQuiet !== null) return 'goes on';
    const ms = this.answers.remainingMs(this.clock.now(), this.owner.isHeld);
    if (ms === 0) {
      this.ended('answers');
      return 'ended';
    }
    this.cancelQuiet = this.timers.after(ms, () => {
      this.cancelQuiet = null;
      if (this.phase === 'ending') this.seekQuiet();
    });
    return 'goes on';
  }

  private stopSeeking(): void {
    this.watch.end();
    this.cancelQuiet?.();
    this.cancelQuiet = null;
  }

  /** Both VMs sleep over the portion, and input waits. */
  private onAsleep(): void {
    invariant(this.phase === 'ending', `a portion ended in sleep while ${this.phase}`);
    // The SVM has sent something by itself since it was seen asleep.
    if (this.svm.isAsleep) this.ended('sleep');
    else this.svm.ask();
  }

  private ended(cause: 'sleep' | 'answers'): void {
    this.stopSeeking();
    const nowMs = this.clock.now();
    const waitMs = this.waitClock(nowMs);
    if (cause === 'sleep') this.counts.endedBySleep++;
    else this.counts.endedByAnswers++;
    this.boundMs = Math.min(this.boundMs * 2, this.limits.portionMsMax);
    // If nothing waited for that long, nobody looked: it is not known how long the work took.
    const tookMs = waitMs - this.startedMs;
    if (this.oldestSinceMs - this.startedMs <= WORK_MS_MAX) {
      if (tookMs > WORK_MS_MAX) this.size = Math.max(1, this.size >> 1);
      else if (tookMs < WORK_MS_MAX / 2 && this.work >= this.size)
        this.size = Math.min(2 * this.size, this.limits.portionFramesMax);
    }
    this.switches.ended('done', nowMs);
    if (!this.isWanted) this.letThrough();
    else
      this.begin(
        this.hasSwitchedOff() ? this.waiting.frames : this.cut.frames(this.waiting, this.size),
        nowMs,
      );
  }

  /** Delivers a portion of the `frames` oldest frames that wait. */
  private begin(frames: number, nowMs: Instant): void {
    this.flow = NO_FLOW;
    this.work = 0;
    this.startedMs = this.waitClock(nowMs);
    const { waiting } = this;
    this.answers.clear();
    waiting.takeOldest(frames, (slab, at, length, flow) => {
      if (flow !== NO_WORK) {
        this.flows.of(slab, at, length);
        this.answers.expect(this.flows.key);
      }
      this.note(flow);
      this.owner.deliver(slab, at, length);
    });
    this.phase = waiting.frames > 0 ? 'ending' : 'running';
    if (this.phase === 'ending') this.armBound();
    // Of one flow alone nobody may ever have to know. With the question, the link needs one write.
    if (this.phase === 'ending' || this.flow === SEVERAL) this.svm.ask();
    this.owner.delivered();
  }

  /** Ends the portion if input has waited for too long; else asks again when it will have. */
  private onBound(): void {
    this.cancelBound = null;
    if (this.phase !== 'ending') return;
    const nowMs = this.clock.now();
    const waitMs = this.waitClock(nowMs);
    if (waitMs < this.oldestSinceMs + this.boundMs) {
      this.armBound();
      return;
    }
    this.stopSeeking();
    this.counts.endedByBound++;
    this.boundMs = Math.max(this.boundMs / 2, this.limits.portionMsMin);
    this.switches.ended('bound', nowMs);
    if (!this.isWanted) {
      this.letThrough();
      return;
    }
    if (this.hasSwitchedOff()) {
      this.beginWithAll();
      return;
    }
    const { waiting } = this;
    let frames = 0;
    // By the new bound, so that it does not cut again at once.
    const sinceMax = waitMs - this.boundMs;
    while (frames < waiting.frames && waiting.sinceOf(waiting.oldest + frames) <= sinceMax) frames++;
    this.begin(frames, nowMs);
    // What the VMs still work on was not over.
    this.flow = SEVERAL;
  }

  private armBound(): void {
    if (this.cancelBound !== null) return;
    const ms = this.oldestSinceMs + this.boundMs - this.waitClock(this.clock.now());
    this.cancelBound = this.timers.after(Math.max(0, ms), () => this.onBound());
  }

  private stopBound(): void {
    this.cancelBound?.();
    this.cancelBound = null;
  }
}
