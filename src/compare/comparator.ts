/**
 * The comparator: holds what the PVM sends until the SVM has sent the same.
 *
 * Goal: rule 1 (output commit). PVM frames arrive from the VM port, SVM frames from the link, both in one sequence space. A
 * PVM frame leaves through `sink.release` on a match, or at a commit, or at once if its kind is harmless (classes.ts) or its flow
 * exempt (rules/exempt.ts); so does what the SVM asks of its neighbours, if the PVM does not (questions.ts). Any other SVM frame leaves nothing behind but a
 * `confirm` of its index, once the client has what it carries: the secondary then need not retain it for a failover.
 *
 * This file parses frames and hands each to the rule of its flow (rules/table.ts). What is held, its limits and its waits
 * are the holding's (holding.ts). TCP segments go to their rule first and directly: nearly all of them take one of its lanes.
 *
 * Events: a frame of either side, or some of each (`pairOff`, `pairCut`); `commit` (a checkpoint has made both VMs equal: release
 * all held frames in order of arrival, forget the SVM's); `releaseDue` and `overdue` (asked by the owner of the clock: what leaves
 * because it has waited long enough, and has a frame waited too long?).
 */

import { ofOneFlow } from '../flow/key.ts';
import type { Framing } from '../frames/frame-reader.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { FlowId, FrameId, Instant, SlabId } from '../units.ts';
import { PACKET, PacketView } from '../wire/packet.ts';
import { COMPARE_AS, compareAs, RULE, ruleOf } from './classes.ts';
import { FrameParser } from './frame-parser.ts';
import { type ArrivalList, type HeldFrames, NO_FLOW, NO_FRAME, WAITS, WAITS_FOR } from './held-frames.ts';
import { HeldWaits } from './held-waits.ts';
import { Holding } from './holding.ts';
import type { OperatorRules } from './operator-rules.ts';
import { Questions } from './questions.ts';
import type { ReadFrames } from './read-frames.ts';
import type { Rule } from './rule.ts';
import type { ExemptRule } from './rules/exempt.ts';
import { isPlainData, TAKEN, type Taken } from './rules/lockstep.ts';
import { Reassembly } from './rules/reassembly.ts';
import { makeRules } from './rules/table.ts';
import type { Lanes, TcpRule } from './rules/tcp.ts';
import type { HeldTcpFlow } from './rules/tcp-flow.ts';
import type { ComparatorSink, Overdue, Pressure, WaitLimits } from './sink.ts';

export type { ComparatorSink, Overdue, Pressure, Urgent, WaitLimits } from './sink.ts';

/**
 * Result of `pairOff` and `pairCut`.
 *
 * - `matched`: a frame of the PVM was released.
 * - `...Alone`: that side's next frame, or both, must now be handed in by themselves, before any later one of their side.
 * - `cut`: no pair, but maybe for `pairCut`, which must be asked next.
 * - `primaryEnds`, `secondaryEnds`: the frames that were read of that side do not suffice to go on.
 */
export const STEP = {
  matched: 0,
  primaryAlone: 1,
  secondaryAlone: 2,
  bothAlone: 3,
  cut: 4,
  primaryEnds: 5,
  secondaryEnds: 6,
} as const;
export type Step = (typeof STEP)[keyof typeof STEP];

export class Comparator {
  readonly frames: HeldFrames;
  readonly primary: ArrivalList;
  readonly secondary: ArrivalList;
  readonly counters: Holding['counters'];
  private readonly slabs: SlabPool;
  private readonly sink: ComparatorSink;
  private readonly holding: Holding;
  private readonly waits: HeldWaits;
  private readonly rules: readonly Rule[];
  private readonly tcp: TcpRule;
  private readonly exempt: ExemptRule;
  /** the operator's rules, if one of them exempts flows */
  private exempting: OperatorRules | null = null;
  private readonly reassembly: Reassembly;
  private readonly questions: Questions;
  /** TCP's cursor and lanes, of which each pair of frames asks */
  private readonly flow: HeldTcpFlow;
  private readonly lanes: Lanes | null;
  private readonly parser: FrameParser;
  private readonly view = new PacketView();
  /** of a PVM frame, while one of the SVM is in `view` */
  private readonly primaryView = new PacketView();

  /** `lane`: tests switch the lanes off, to compare them with the general way. */
  constructor(
    slabs: SlabPool,
    sink: ComparatorSink,
    hashSeed: number,
    framing: Framing = 'plain',
    limits: Limits = LIMITS,
    lane: 'lane' | 'no-lane' = 'lane',
  ) {
    this.slabs = slabs;
    this.sink = sink;
    this.parser = new FrameParser(slabs, framing);
    const holding = new Holding(slabs, sink, hashSeed, limits);
    this.waits = new HeldWaits(holding);
    const { rules, tcp, exempt } = makeRules(holding, { framing, limits, lane });
    holding.useRules(rules);
    this.holding = holding;
    this.rules = rules;
    this.tcp = tcp;
    this.exempt = exempt;
    this.flow = tcp.flow;
    this.lanes = tcp.lanes;
    this.reassembly = new Reassembly(holding, rules, hashSeed, limits);
    this.questions = new Questions(slabs, {
      release: (slab, at, length) => {
        this.counters.questions++;
        this.releaseHarmless(slab, at, length);
      },
      confirm: (index) => sink.confirm(index),
    });
    this.frames = holding.frames;
    this.primary = holding.primary;
    this.secondary = holding.secondary;
    this.counters = holding.counters;
  }

  get flowCount(): number {
    return this.holding.flowCount;
  }

  get tcpFlows(): number {
    return this.holding.flowCountOf(RULE.tcp);
  }

  /** As `TcpJudge.taught`: the secondary knows every SYN of the PVM. */
  get taught(): boolean {
    return this.tcp.judge.taught;
  }
  set taught(taught: boolean) {
    this.tcp.judge.taught = taught;
  }

  /** The operator's rules that are in force, or null. */
  get operatorRules(): OperatorRules | null {
    return this.holding.operatorRules;
  }

  /** Puts rules into force, while nothing is held: alone, or right after a commit. They do not hold for `pairOff` and `pairCut`. */
  useOperatorRules(rules: OperatorRules): void {
    this.holding.useOperatorRules(rules);
    this.exempting = rules.hasExempt ? rules : null;
  }

  /** As `TcpRule.pairOpenings`: SYNs of different ports may be counterparts, and nobody teaches the secondary the PVM's. */
  pairOpenings(): void {
    this.tcp.pairOpenings();
  }

  /** Held TCP segments examined in searches. */
  get visits(): number {
    return this.tcp.queue.visits + this.tcp.held.visits;
  }

  /** As `Unify.taught`. */
  get unified(): number {
    return this.tcp.unify.taught;
  }

  /** Connections whose client is owed an ACK. */
  get owedAcks(): number {
    return this.tcp.exit.owed.rows;
  }

  /** Returns for how long the SVM has been silent where a client is owed what it does not acknowledge. */
  owedMs(nowMs: Instant): number {
    return this.tcp.exit.owed.oldestMs(nowMs);
  }

  /** Returns the key of the flow in which the SVM has been silent for longest about an ACK that is owed, or null. */
  oldestOwedKey(): Int32Array | null {
    return this.holding.keyOf(this.tcp.exit.owed.oldestFlow());
  }

  /** Slabs that no frame of a VM is in. */
  get ownSlabs(): number {
    return this.tcp.exit.made.ownSlabs;
  }

  /** A PVM frame: released now, held, or (only if its lengths contradict each other) dropped and counted. */
  primaryFrame(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { view, exempting } = this;
    const kind = this.parser.parse(slab, at, length, view);
    if (exempting !== null && this.exempt.owns(exempting, view, slab, this.secondary, nowMs)) {
      this.exempt.primaryFrame(view, slab, at, length);
      return;
    }
    if (kind === PACKET.tcp) {
      this.tcp.primaryFrame(view, slab, at, length, nowMs);
      return;
    }
    if (view.kind === PACKET.malformed) {
      this.counters.malformed++;
      return;
    }
    const as = compareAs(view);
    if (as === COMPARE_AS.harmless) {
      this.questions.noteAsked(view, slab, nowMs);
      this.releaseHarmless(slab, at, length);
    } else if (as === COMPARE_AS.pieces) this.reassembly.primaryFragment(view, slab, at, length, nowMs);
    else this.rules[ruleOf(view)].primaryFrame(view, slab, at, length, nowMs);
  }

  /** An SVM frame; `index` is its number in the epoch. */
  secondaryFrame(slab: SlabId, at: number, length: number, index: number, nowMs: Instant): void {
    const { view, exempting } = this;
    const kind = this.parser.parse(slab, at, length, view);
    if (exempting !== null && this.exempt.owns(exempting, view, slab, this.primary, nowMs)) {
      this.exempt.secondaryFrame(view, slab, at, length, index);
      return;
    }
    if (kind === PACKET.tcp) {
      this.tcp.secondaryFrame(view, slab, at, length, index, nowMs);
      return;
    }
    const as = compareAs(view);
    if (view.kind === PACKET.malformed) this.sink.confirm(index);
    else if (as === COMPARE_AS.harmless) this.questions.ask(view, slab, at, length, index, nowMs);
    else if (as === COMPARE_AS.pieces)
      this.reassembly.secondaryFragment(view, slab, at, length, index, nowMs);
    else this.rules[ruleOf(view)].secondaryFrame(view, slab, at, length, index, nowMs);
  }

  /**
   * Tries to match one PVM frame against one SVM frame, neither of which was handed in before. On `matched` both are
   * finished. Any other result changes nothing, except that the SVM's ACK may have been recorded.
   */
  pairOff(
    slab: SlabId,
    at: number,
    length: number,
    svmSlab: SlabId,
    svmAt: number,
    svmLength: number,
    svmIndex: number,
    nowMs: Instant,
  ): Step {
    const { view, primaryView, holding, parser } = this;
    const { flow, lanes } = this;
    if (lanes === null) return STEP.bothAlone;
    const svmBytes = this.slabs.buffer(svmSlab);
    if (parser.parse(svmSlab, svmAt, svmLength, view) !== PACKET.tcp || !isPlainData(view, svmBytes))
      return STEP.secondaryAlone;
    const flowId = holding.knownFlowOf(svmBytes, view, holding.primary);
    if (flowId === NO_FLOW) return STEP.bothAlone;
    flow.moveTo(flowId);
    if (flow.primary.head !== NO_FRAME) return STEP.cut;
    if (!parser.parseTwin(slab, at, length, svmSlab, view, primaryView)) {
      const bytes = this.slabs.buffer(slab);
      if (parser.parse(slab, at, length, primaryView) !== PACKET.tcp || !isPlainData(primaryView, bytes))
        return STEP.primaryAlone;
      if (!ofOneFlow(bytes, primaryView, svmBytes, view)) return STEP.primaryAlone;
    }
    flow.lastSeenMs = nowMs;
    if (flow.secondary.head !== NO_FRAME) return STEP.cut;
    if (!lanes.lockstep.takePair(flow, primaryView, slab, at, length, view, svmSlab, svmIndex))
      return STEP.cut;
    return STEP.matched;
  }

  /**
   * Tries to match the SVM's frames from `svm.next` on (there is one) against the PVM frame at the head of their flow, or else
   * against that at `pvm.next`. On `matched`, `next` of both sides is after the frames that are done with. Any other result changes
   * nothing, except that ACKs of the SVM may have been recorded.
   */
  pairCut(pvm: ReadFrames, svm: ReadFrames, nowMs: Instant): Step {
    const { view, primaryView, holding, parser, flow, lanes } = this;
    const pvmEnds = pvm.next === pvm.end;
    const svmSlab = svm.slabOf(svm.next);
    const svmBytes = this.slabs.buffer(svmSlab);
    const svmKind = parser.parse(svmSlab, svm.offsetOf(svm.next), svm.lengthOf(svm.next), view);
    if (lanes === null || svmKind !== PACKET.tcp || !isPlainData(view, svmBytes)) return STEP.secondaryAlone;
    const flowId = holding.knownFlowOf(svmBytes, view, holding.primary);
    if (flowId === NO_FLOW) return pvmEnds ? STEP.primaryEnds : STEP.bothAlone;
    flow.moveTo(flowId);
    if (flow.primary.head !== NO_FRAME) {
      flow.lastSeenMs = nowMs;
      const taken = lanes.cut.takeHeld(flow, view, svm);
      if (taken === TAKEN.more) this.tcp.advance(flowId);
      return stepOf(taken, STEP.secondaryAlone);
    }
    if (pvmEnds) return STEP.primaryEnds;
    const slab = pvm.slabOf(pvm.next);
    const at = pvm.offsetOf(pvm.next);
    const length = pvm.lengthOf(pvm.next);
    const bytes = this.slabs.buffer(slab);
    if (parser.parse(slab, at, length, primaryView) !== PACKET.tcp || !isPlainData(primaryView, bytes))
      return STEP.primaryAlone;
    if (!ofOneFlow(bytes, primaryView, svmBytes, view)) return STEP.primaryAlone;
    flow.lastSeenMs = nowMs;
    const otherwise = flow.secondary.head === NO_FRAME ? STEP.bothAlone : STEP.primaryAlone;
    const taken = lanes.cut.takeRead(flow, primaryView, slab, at, length, view, svm);
    if (taken === TAKEN.yes) pvm.toNext();
    return stepOf(taken, otherwise);
  }

  /**
   * Releases what waits for a time, and for nothing else: what the SVM has asked of its neighbours and the PVM has not
   * (questions.ts), and ACKs of segments that wait (rules/tcp-exit.ts). Returns how many frames.
   */
  releaseDue(nowMs: Instant): number {
    return this.questions.release(nowMs) + this.tcp.exit.releaseHeldAcks(nowMs);
  }

  /** How many frames left by a commit, without a counterpart: the PVM's, and ACKs that were owed. */
  get releasedWithoutMatch(): number {
    return this.counters.releasedByCommit + this.counters.madeByCommit;
  }

  /** How many of the SVM's questions wait. */
  get questionsWaiting(): number {
    return this.questions.size;
  }

  /** The SVM now equals the PVM: releases everything held, in order of arrival. Returns how many frames. */
  commit(): number {
    const made = this.tcp.exit.commit();
    const released = this.holding.commit();
    this.tcp.exit.discard();
    this.reassembly.clear();
    this.questions.clear();
    return made + released;
  }

  /** A TCP flow is compared no longer (a recording does not have all of it): its held PVM frames leave, and it is forgotten. */
  abandon(key: Int32Array): void {
    this.holding.abandon(key);
  }

  /** Drops everything; nothing of it is released. */
  discard(): void {
    this.holding.discard();
    this.tcp.exit.discard();
    this.reassembly.clear();
    this.questions.clear();
  }

  /**
   * Alone, there is nothing to compare with: the frame is released. Its rule records it all the same, so that the
   * comparator knows every stream's place when the VM is protected again.
   */
  passAlone(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { view } = this;
    if (this.parser.parse(slab, at, length, view) === PACKET.malformed) {
      this.counters.malformed++;
      return;
    }
    const { exempting } = this;
    if (exempting === null || !this.exempt.owns(exempting, view, slab, this.secondary, nowMs))
      this.rules[ruleOf(view)].noteAlone(view, slab, nowMs);
    this.counters.releasedAlone++;
    this.sink.release(slab, at, length, 'alone');
  }

  /** Returns which side has held output for longer than `limits`, or null. */
  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    const { waits } = this;
    const overdue = waits.overdue(nowMs, limits);
    if (overdue !== null || this.owedMs(nowMs) < limits.owedMs) return overdue;
    waits.overdueFlow = this.tcp.exit.owed.oldestFlow();
    waits.overdueMs = this.owedMs(nowMs);
    return 'wait-primary';
  }

  /** Right after `overdue` returned `wait-primary`: returns for how long it has waited. */
  get overdueMs(): number {
    return this.waits.overdueMs;
  }

  /** Right after `overdue` returned a reason: returns the key of the flow that waits, or null if the frame has none. */
  overdueFlow(): Int32Array | null {
    return this.holding.keyOf(this.waits.overdueFlow);
  }

  /** Returns the flow with this key, or NO_FLOW. */
  flowWithKey(key: Int32Array): FlowId {
    return this.holding.table.find(key);
  }

  /**
   * Returns whether the PVM has sent in a TCP flow what the SVM has not sent yet. A segment that waits for nothing but the SVM's ACK is
   * no such output, nor is an ACK that left by itself.
   */
  svmIsBehind(id: FlowId): boolean {
    const flow = this.flow.moveTo(id);
    const { head, tail } = flow.primary;
    if (head === NO_FRAME) return false;
    return head !== tail || flow.diverged || this.frames.words[head + WAITS] !== WAITS_FOR.ack;
  }

  /** Input of the flow waits, by the flow's id: it is not forgotten until that has ended. */
  noteAwaited(id: FlowId, awaited: 'awaited' | 'not-awaited'): void {
    this.flow.moveTo(id).awaited = awaited === 'awaited';
  }

  /** Whether output of another flow than that of the held PVM frame `id` is held, of either VM. */
  holdsOther(id: FrameId): boolean {
    const { frames } = this;
    const flow = frames.flowOf(id);
    return frames.hasOther(this.primary, flow) || frames.hasOther(this.secondary, flow);
  }

  /** Returns how long the oldest held PVM frame has waited. */
  oldestWaitMs(nowMs: Instant): number {
    return this.waits.oldestWaitMs(nowMs);
  }

  /** Returns the limit that is near enough for a checkpoint to be due, or null. */
  pressure(): Pressure {
    return this.holding.pressure() ?? (this.reassembly.isFull ? 'limit-fragments' : null);
  }

  /** Returns true if no more PVM output should be read before a checkpoint; `read` frames of it are yet to be handed in. */
  isFull(read: number): boolean {
    return this.holding.fullness(read) !== null || this.reassembly.isFull;
  }

  private releaseHarmless(slab: SlabId, at: number, length: number): void {
    this.counters.harmless++;
    this.sink.release(slab, at, length, 'harmless');
  }
}

/** `otherwise`: if it was not taken. */
function stepOf(taken: Taken, otherwise: Step): Step {
  if (taken === TAKEN.no) return otherwise;
  return taken === TAKEN.short ? STEP.secondaryEnds : STEP.matched;
}
