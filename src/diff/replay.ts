/**
 * Two recordings of VM output through the comparator, by the clock of the recordings.
 *
 * Goal: what would `colo node` have done with this output, and why? The engine is the real one (compare/comparator.ts,
 * translate/svm-translator.ts, checkpoint/policy.ts). What is played is everything around it: time, and checkpoints.
 *
 * A checkpoint is simulated where the policy asks for one. What is held leaves, as at a real one. But a real one makes
 * the SVM a copy of the PVM, and in a recording the SVM goes on as it was. Three things follow:
 * - Translation is never forgotten. If the recording has real checkpoints in it, the VMs count alike from then on: that the
 *   PVM has said the same bytes at the recorded place shows it (said-segments.ts).
 * - What the SVM has said beyond the PVM it will not say again, so it is given to the comparator anew after a commit:
 *   exactly the frames that were not confirmed yet.
 * - A flow that differed is compared on from the place that the PVM has reached, and counts its differences: the later
 *   ones may follow from the first. For datagrams, which have no place, a counterpart that comes late or a
 *   datagram that only one VM said is recognized by its payload, and puts the flow in step again.
 *
 * A connection whose SYNs are not in both recordings is compared if the VMs' sequence numbers are near each other
 * (they are after a real checkpoint); else it is left out. So is, until its next SYN, one with a frame that was cut.
 */
import { CheckpointPolicy, type PolicyLimits } from '../checkpoint/policy.ts';
import { COMPARE_AS, compareAs } from '../compare/classes.ts';
import { Comparator } from '../compare/comparator.ts';
import { LESSON } from '../compare/lesson.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import { invariant } from '../error.ts';
import { FLOW_KEY_WORDS, writeOutputKey } from '../flow/key.ts';
import { seqAtOrBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import { FlowTable } from '../flow/table.ts';
import { NO_SLAB, SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import type { Instant, SlabId } from '../units.ts';
import { readI32 } from '../wire/bytes.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP, TCP_ACK, TCP_SYN } from '../wire/tcp.ts';
import {
  excerptOf,
  type FrameBytes,
  firstPayloadDifference,
  firstStreamDifference,
  flagsOf,
} from './explain.ts';
import { FlowRecord, type HeldFrame, isAhead, isBareAck, oldest } from './flow-record.ts';
import { hashBytes } from './recent-payloads.ts';
import type { Finding, FoundFrame, ReplayCounts, SideCounts } from './report.ts';
import { SaidSegments, sumOf } from './said-segments.ts';
import { toMicros, WaitHistogram } from './wait-histogram.ts';

/** A frame of a recording: where its bytes are, which one it is, and when it was said. */
export type RecordedFrame = FrameBytes & {
  originalLength: number;
  number: number;
  fileMs: number;
  /** by the clock that both recordings are merged by */
  ms: number;
};

/** What a checkpoint of a small guest takes; the configuration's default waits are bounds around it. */
export const ASSUMED_CHECKPOINT_MS = 20;
const WAITS: PolicyLimits = {
  // Checkpoints at intervals come whatever the VMs say.
  intervalMsMax: Number.POSITIVE_INFINITY,
  waitMsMin: ASSUMED_CHECKPOINT_MS,
  waitMsMax: 200,
  ackWaitMsMax: 300,
};
/** Nothing is forgotten between two checkpoints here, so there is room for more than a node needs. */
const REPLAY_LIMITS: Limits = { ...LIMITS, translationsMax: 1 << 18 };
/** Farther apart than usual windows: two connections' numbers that have nothing to do with each other. */
const NEAR_SEQ = 1 << 23;
/** How exactly the moment is found at which a wait became overdue. */
const OVERDUE_STEP_MS = 0.05;
const SECONDARY_LOOK_MS = 50;
/** Kept frames are copied out of their slabs beyond this many: single ones would pin whole slabs. */
const KEPT_SLABS_MAX = 64;
/** What the SVM has said and clients have not heard: twice what the comparator queues. */
const KEPT_FRAMES_MAX = 32_768;

export class Replay {
  readonly findings: Finding[] = [];
  findingsLeftOut = 0;
  private readonly limits: Limits;
  private readonly findingsMax: number;
  private readonly startMs: number;
  private readonly slabs: SlabPool;
  private readonly comparator: Comparator;
  private readonly translator: SvmTranslator;
  private readonly translating: boolean;
  private readonly said = new SaidSegments();
  private readonly policy = new CheckpointPolicy(WAITS);
  private readonly view = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  private readonly table: FlowTable;
  private flows: FlowRecord[] = [];
  /** by where they are, in order of arrival */
  private readonly held = new Map<number, HeldFrame>();
  /** by index, in order of arrival */
  private readonly kept = new Map<number, HeldFrame>();
  private readonly waits = new WaitHistogram();
  private slab: SlabId = NO_SLAB;
  private filled = 0;
  private nextIndex = 0;
  private nowMs = Number.NEGATIVE_INFINITY;
  private secondaryLookMs = Number.NEGATIVE_INFINITY;
  private current: FlowRecord | null = null;
  private diverged: HeldFrame | null = null;
  private readonly counts = {
    flows: 0,
    flowsLeftOut: 0,
    matched: 0,
    matchedLate: 0,
    harmless: 0,
    releasedByCheckpoint: 0,
    secondaryUnmatched: 0,
    flowsDiverged: 0,
  };
  private readonly divergences: Record<string, number> = {};
  private readonly checkpoints: Record<string, number> = {};

  constructor(options: {
    /** the secondary's recording is in its VM's own numbers */
    translate: boolean;
    hashSeed: number;
    findingsMax: number;
    /** the zero of the findings' times */
    startMs: number;
    limits?: Limits;
  }) {
    this.limits = options.limits ?? REPLAY_LIMITS;
    this.findingsMax = options.findingsMax;
    this.startMs = options.startMs;
    this.translating = options.translate;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax);
    this.table = new FlowTable(this.limits.flowsMax, options.hashSeed);
    this.translator = new SvmTranslator(options.hashSeed, this.limits);
    this.comparator = new Comparator(
      this.slabs,
      {
        release: (slab, at, _length, cause) => this.onRelease(slab, at, cause),
        teach: (lesson, slab, at, length) =>
          this.translator.teach(lesson, 'current', this.slabs.buffer(slab), at, length),
        confirm: (index) => this.onConfirm(index),
        diverged: (_key, reason) => this.onDiverged(reason),
      },
      options.hashSeed,
      'plain',
      this.limits,
    );
  }

  /** Connections that began and could not be translated for want of room may have been among them. */
  get translationsFull(): boolean {
    return this.translator.size >= this.limits.translationsMax;
  }

  /** A client's frame, as the PVM heard it. Its bytes are void afterwards. */
  input({ bytes, at, length, ms }: RecordedFrame): void {
    this.advanceTo(ms);
    this.translator.input(bytes, at, length);
  }

  primary(frame: RecordedFrame, side: SideCounts): void {
    this.advanceTo(frame.ms);
    const { view } = this;
    if (!this.look(frame, side)) return;
    const flow = this.flowOf(frame.bytes);
    const { tcp } = flow;
    const ordinal = ++flow.primaryDatagrams;
    const compared = tcp ? this.placePrimary(flow) : true;
    if (!compared || flow.leftOut) {
      side.leftOut++;
      return;
    }
    if (tcp && view.payloadBytes > 0)
      this.said.add(flow.number, view.seq, sumOf(frame.bytes, view.payload, view.payloadBytes));
    const hash = tcp ? 0 : hashBytes(frame.bytes, view.payload, view.payloadBytes);
    if (!tcp && flow.spare.has(hash) && oldest(flow.secondaryKept)?.hash !== hash) {
      flow.spare.take(hash);
      this.counts.matched++;
      this.counts.matchedLate++;
      this.waits.add(0);
      return;
    }
    const held = this.heldFrame(frame, flow, this.place(frame), hash, ordinal);
    this.held.set(this.placeKey(held.slab, held.at), held);
    flow.primaryHeld.add(held);
    this.current = flow;
    this.comparator.primaryFrame(held.slab, held.at, held.length, this.nowMs as Instant);
    this.afterFrame();
  }

  secondary(frame: RecordedFrame, side: SideCounts): void {
    this.advanceTo(frame.ms);
    const { view } = this;
    if (!this.look(frame, side)) return;
    const flow = this.flowOf(frame.bytes);
    const { tcp } = flow;
    const at = this.place(frame);
    const bytes = this.slabs.buffer(this.slab);
    if (tcp && this.translating) this.translate(frame, flow, bytes, at);
    parsePacket(bytes, at, frame.length, view);
    const ordinal = ++flow.secondaryDatagrams;
    const compared = tcp ? this.placeSecondary(flow) : true;
    if (!compared || flow.leftOut) {
      side.leftOut++;
      this.filled = at;
      return;
    }
    const hash = tcp ? 0 : hashBytes(bytes, view.payload, view.payloadBytes);
    this.settleLate(flow, hash);
    if (!tcp && flow.owed.has(hash) && oldest(flow.primaryHeld)?.hash !== hash) {
      flow.owed.take(hash);
      this.counts.matchedLate++;
      this.filled = at;
      return;
    }
    const kept = this.heldFrame(frame, flow, at, hash, ordinal);
    this.keep(kept);
    this.current = flow;
    this.comparator.secondaryFrame(kept.slab, kept.at, kept.length, kept.index, this.nowMs as Instant);
    this.afterFrame();
  }

  /** A frame of the PVM from before the part that is compared: a connection's numbers can be learnt from it. */
  skipPrimary(frame: RecordedFrame): void {
    this.skip(frame, (flow, bytes, at, length, hash) => {
      if (flow.tcp) this.translator.teach(LESSON.tcpSyn, 'current', bytes, at, length);
      else flow.owed.add(hash);
    });
  }

  /** The same for the SVM's. */
  skipSecondary(frame: RecordedFrame): void {
    this.skip(frame, (flow, bytes, at, length, hash) => {
      if (flow.tcp) this.translator.output(bytes, at, length);
      else flow.spare.add(hash);
    });
  }

  /** Is there PVM output that the rest of the SVM's recording may still let out? */
  mayStillMatch(ms: number): boolean {
    return this.held.size > 0 && this.comparator.overdue(ms as Instant, this.policy.waits) !== 'wait-primary';
  }

  finish(): ReplayCounts {
    const heldAtEnd = this.held.size;
    const { counts, waits } = this;
    return {
      ...counts,
      heldAtEnd,
      divergences: this.divergences,
      checkpoints: this.checkpoints,
      waits: {
        p50Ms: toMicros(waits.quantile(0.5)),
        p99Ms: toMicros(waits.quantile(0.99)),
        maxMs: toMicros(waits.maxMs),
      },
    };
  }

  /** Parses; false when the frame is not for the comparator, and counted as what it is. */
  private look(frame: RecordedFrame, side: SideCounts): boolean {
    const { view } = this;
    const { bytes, at, length, originalLength } = frame;
    if (length < originalLength) {
      side.cut++;
      // The headers tell the flow. What follows in it has a hole before it.
      if (parsePacket(bytes, at, originalLength, view) !== PACKET.malformed)
        this.leaveOut(this.flowOf(bytes));
      return false;
    }
    if (parsePacket(bytes, at, length, view) === PACKET.malformed) {
      side.malformed++;
      return false;
    }
    if (compareAs(view) !== COMPARE_AS.harmless) return true;
    this.counts.harmless++;
    return false;
  }

  private skip(
    frame: RecordedFrame,
    learn: (flow: FlowRecord, bytes: Uint8Array, at: number, length: number, hash: number) => void,
  ): void {
    const { view } = this;
    const { bytes, at, length } = frame;
    if (parsePacket(bytes, at, length, view) === PACKET.malformed) return;
    if (compareAs(view) === COMPARE_AS.harmless) return;
    const syn = (view.tcpFlags & TCP_SYN) !== 0;
    if (view.kind === PACKET.tcp && !syn) return;
    const flow = this.flowOf(bytes);
    if (syn) flow.synSkipped = true;
    learn(flow, bytes, at, length, flow.tcp ? 0 : hashBytes(bytes, view.payload, view.payloadBytes));
  }

  /** A segment of the SVM, in place; the view is of the frame as it was recorded. */
  private translate(frame: RecordedFrame, flow: FlowRecord, bytes: Buffer, at: number): void {
    const { view, translator, said } = this;
    const recorded = view.seq;
    const seqAt = at + view.l4 - frame.at + TCP.seq;
    translator.output(bytes, at, frame.length);
    const translated = readI32(bytes, seqAt);
    if ((view.tcpFlags & TCP_SYN) !== 0) {
      flow.countsAlike = null;
      return;
    }
    if (translated === recorded) return;
    if (view.payloadBytes > 0) {
      const sum = sumOf(frame.bytes, view.payload, view.payloadBytes);
      const alike = said.has(flow.number, recorded, sum);
      if (alike !== said.has(flow.number, translated, sum)) flow.countsAlike = alike;
    }
    if (flow.countsAlike === true) bytes.set(frame.bytes.subarray(frame.at, frame.at + frame.length), at);
  }

  /** True when the PVM's segment in the view can be compared. */
  private placePrimary(flow: FlowRecord): boolean {
    const { view } = this;
    const end = (view.seq + view.seqLength) | 0;
    if ((view.tcpFlags & TCP_SYN) !== 0) {
      if (!this.placeAtSyn(flow)) return false;
      flow.begin((view.seq + 1) | 0);
      flow.primaryEnd = end;
      return true;
    }
    flow.pass(view.seq);
    flow.primaryEnd = flow.primaryEnd === null ? end : seqMax(flow.primaryEnd, end);
    if (flow.placed) return !this.isBeforePlace(flow, end);
    this.placeInMiddle(flow);
    return false;
  }

  private placeSecondary(flow: FlowRecord): boolean {
    const { view } = this;
    const end = (view.seq + view.seqLength) | 0;
    if ((view.tcpFlags & TCP_SYN) !== 0) return this.placeAtSyn(flow);
    if (flow.placed) return !this.isBeforePlace(flow, end);
    flow.secondaryEnd = flow.secondaryEnd === null ? end : seqMax(flow.secondaryEnd, end);
    this.placeInMiddle(flow);
    return false;
  }

  /** False when a SYN before the compared part began the connection: this one repeats it, or is its counterpart. */
  private placeAtSyn(flow: FlowRecord): boolean {
    if (flow.synSkipped && !flow.placed) return false;
    if (flow.leftOut) this.takeIn(flow);
    flow.placed = true;
    flow.fromSeq = null;
    return true;
  }

  /** What was said before both were seen has no counterpart that is known. */
  private isBeforePlace(flow: FlowRecord, end: number): boolean {
    return flow.fromSeq !== null && this.view.seqLength > 0 && seqAtOrBefore(end, flow.fromSeq);
  }

  private placeInMiddle(flow: FlowRecord): void {
    const { primaryEnd, secondaryEnd } = flow;
    if (primaryEnd === null || secondaryEnd === null || flow.leftOut) return;
    if (Math.abs(seqDiff(primaryEnd, secondaryEnd)) > NEAR_SEQ) {
      this.leaveOut(flow);
      return;
    }
    flow.placed = true;
    flow.fromSeq = seqMax(primaryEnd, secondaryEnd);
  }

  private leaveOut(flow: FlowRecord): void {
    if (flow.leftOut) return;
    flow.leftOut = true;
    this.counts.flowsLeftOut++;
  }

  /** A new connection on the ports of one that was left out. */
  private takeIn(flow: FlowRecord): void {
    flow.leftOut = false;
    flow.synSkipped = false;
    this.counts.flowsLeftOut--;
  }

  private flowOf(bytes: Uint8Array): FlowRecord {
    writeOutputKey(bytes, this.view, this.key);
    let id = this.table.find(this.key);
    if (id >= 0) return this.flows[id];
    if (this.table.size === this.table.flowsMax) {
      // What is held knows its own record. A connection that goes on is one that is first seen in its middle.
      this.table.clear();
      this.flows = [];
    }
    id = this.table.insert(this.key);
    this.counts.flows++;
    const flow = new FlowRecord(this.counts.flows, this.key, this.view.kind === PACKET.tcp);
    this.flows[id] = flow;
    return flow;
  }

  /** The frame in the view, which has been placed at `at`. */
  private heldFrame(
    frame: RecordedFrame,
    flow: FlowRecord,
    at: number,
    hash: number,
    ordinal: number,
  ): HeldFrame {
    const { view } = this;
    return {
      flow,
      number: frame.number,
      fileMs: frame.fileMs,
      sinceMs: this.nowMs,
      slab: this.slab,
      at,
      length: frame.length,
      index: -1,
      bytes: null,
      seq: view.seq,
      seqEnd: (view.seq + view.seqLength) | 0,
      ack: view.ack,
      flags: view.tcpFlags,
      payloadBytes: view.payloadBytes,
      hash,
      ordinal,
    };
  }

  /** Copies a frame into the slab that is being filled; where it is now. */
  private place({ bytes, at, length }: FrameBytes): number {
    if (this.slab < 0 || this.filled + length > this.slabs.slabBytes) {
      if (this.slab >= 0) this.slabs.unref(this.slab);
      if (this.slabs.inUse >= KEPT_SLABS_MAX) this.moveOut();
      this.slab = this.slabs.acquire();
      invariant(this.slab >= 0, 'held output pinned all slabs without a checkpoint being asked for');
      this.filled = 0;
    }
    const to = this.filled;
    this.slabs.buffer(this.slab).set(bytes.subarray(at, at + length), to);
    this.filled = to + length;
    return to;
  }

  private placeKey(slab: SlabId, at: number): number {
    return slab * this.slabs.slabBytes + at;
  }

  private keep(frame: HeldFrame): void {
    frame.index = this.nextIndex++;
    this.slabs.ref(frame.slab);
    this.kept.set(frame.index, frame);
    frame.flow.secondaryKept.add(frame);
  }

  private forget(frame: HeldFrame): void {
    this.kept.delete(frame.index);
    frame.flow.secondaryKept.delete(frame);
    if (frame.bytes === null) this.slabs.unref(frame.slab);
  }

  private onRelease(slab: SlabId, at: number, cause: string): void {
    const key = this.placeKey(slab, at);
    const frame = this.held.get(key);
    if (frame === undefined) return;
    this.held.delete(key);
    frame.flow.primaryHeld.delete(frame);
    this.waits.add(this.nowMs - frame.sinceMs);
    if (cause === 'commit') this.counts.releasedByCheckpoint++;
    else this.counts.matched++;
  }

  private onConfirm(index: number): void {
    const frame = this.kept.get(index);
    if (frame !== undefined) this.forget(frame);
  }

  private onDiverged(reason: DivergenceReason): void {
    const flow = this.current!;
    this.policy.diverged(reason);
    this.divergences[reason] = (this.divergences[reason] ?? 0) + 1;
    if (flow.divergences++ === 0) this.counts.flowsDiverged++;
    const frame = oldest(flow.primaryHeld) ?? null;
    this.diverged = frame;
    const candidates = [...flow.secondaryKept].filter((other) => !isBareAck(other));
    const counterpart = frame === null ? null : this.differenceOf(frame, candidates);
    this.report(reason, flow, frame, counterpart?.frame ?? null, counterpart);
  }

  private differenceOf(
    frame: HeldFrame,
    candidates: HeldFrame[],
  ): { frame: HeldFrame; primaryOffset: number; secondaryOffset: number } | null {
    if (candidates.length === 0) return null;
    const primary = this.bytesOf(frame);
    if (!frame.flow.tcp) {
      const [first] = candidates;
      return { frame: first, ...firstPayloadDifference(primary, this.bytesOf(first)) };
    }
    const found = firstStreamDifference(
      primary,
      candidates.map((other) => this.bytesOf(other)),
    );
    if (found !== null) return { ...found, frame: candidates[found.index] };
    // Flags: the first one that takes sequence numbers where this one does.
    const near = candidates.find(
      (other) => seqDiff(other.seqEnd, frame.seq) >= 0 && seqDiff(frame.seqEnd, other.seq) >= 0,
    );
    const other = near ?? candidates[0];
    return { frame: other, primaryOffset: 0, secondaryOffset: 0 };
  }

  private bytesOf(frame: HeldFrame): FrameBytes {
    if (frame.bytes !== null) return { bytes: frame.bytes, at: 0, length: frame.length };
    return { bytes: this.slabs.buffer(frame.slab), at: frame.at, length: frame.length };
  }

  private report(
    reason: string,
    flow: FlowRecord,
    primary: HeldFrame | null,
    secondary: HeldFrame | null,
    offsets: { primaryOffset: number; secondaryOffset: number } | null,
  ): Finding | null {
    const earlierInFlow = flow.findings++;
    if (this.findings.length >= this.findingsMax) {
      this.findingsLeftOut++;
      return null;
    }
    const shown = primary ?? secondary;
    const finding: Finding = {
      reason,
      flow: flow.name,
      timeMs: toMicros((shown?.sinceMs ?? this.nowMs) - this.startMs),
      earlierInFlow,
      position:
        shown === null ? null : this.positionOf(shown, primary === null ? 0 : (offsets?.primaryOffset ?? 0)),
      primary: primary === null ? null : this.describe(primary, offsets?.primaryOffset ?? 0),
      secondary: secondary === null ? null : this.describe(secondary, offsets?.secondaryOffset ?? 0),
      cameAfterMs: null,
    };
    this.findings.push(finding);
    return finding;
  }

  private positionOf(frame: HeldFrame, offset: number): Finding['position'] {
    if (!frame.flow.tcp) return { unit: 'datagram', at: frame.ordinal };
    return { unit: 'byte', at: Math.max(0, frame.flow.placeOf(frame.seq)) + offset };
  }

  private describe(frame: HeldFrame, payloadOffset: number): FoundFrame {
    const bytes = this.bytesOf(frame);
    const { offset, hex } = excerptOf(bytes, payloadOffset);
    return {
      frame: frame.number,
      atMs: toMicros(frame.fileMs),
      flags: flagsOf(bytes),
      payloadOffset: offset,
      hex,
    };
  }

  /** Something may be due because of a frame. */
  private afterFrame(): void {
    this.current = null;
    const reason = this.policy.due(this.nowMs as Instant, null, this.comparator.pressure());
    if (reason !== null) this.checkpoint(reason);
    if (this.kept.size > KEPT_FRAMES_MAX) this.forgetOldest();
  }

  /** Time goes on to `ms`; what becomes overdue on the way has its checkpoint then. */
  private advanceTo(ms: number): void {
    if (ms <= this.nowMs) return;
    const { comparator, policy } = this;
    const { waits } = policy;
    while (comparator.oldestWaitMs(ms as Instant) >= waits.dataMs || ms >= this.secondaryLookMs) {
      this.secondaryLookMs = ms + SECONDARY_LOOK_MS;
      const overdue = comparator.overdue(ms as Instant, waits);
      if (overdue === null) break;
      this.nowMs = this.momentOverdue(ms);
      this.waited(overdue);
    }
    this.nowMs = ms;
  }

  private momentOverdue(untilMs: number): number {
    const { comparator, policy } = this;
    let early = Math.max(this.nowMs, untilMs - 86_400_000);
    let late = untilMs;
    while (late - early > OVERDUE_STEP_MS) {
      const middle = (early + late) / 2;
      if (comparator.overdue(middle as Instant, policy.waits) === null) early = middle;
      else late = middle;
    }
    return late;
  }

  private waited(overdue: 'wait-primary' | 'wait-secondary'): void {
    const frame = overdue === 'wait-primary' ? this.longestHeld() : this.kept.values().find(isAhead);
    if (frame?.flow.leftOut === true) {
      // It was held before its flow had to be left out: let go of it, and do not blame the VMs.
      this.letGo(overdue);
      return;
    }
    if (overdue === 'wait-secondary') {
      if (frame !== undefined) this.report(overdue, frame.flow, null, frame, null);
    } else if (frame !== undefined) {
      const { flow, seqEnd, ack, hash, sinceMs } = frame;
      const finding = this.report(overdue, flow, frame, null, null);
      if (finding !== null) flow.addLate({ finding, seqEnd, ack, hash, sinceMs });
    }
    this.checkpoint(overdue);
  }

  /** Of the PVM's frames the one whose wait is over. */
  private longestHeld(): HeldFrame | undefined {
    const { dataMs, ackMs } = this.policy.waits;
    for (const frame of this.held.values()) {
      const age = this.nowMs - frame.sinceMs;
      if (age < dataMs) break;
      if (!isBareAck(frame) || age >= ackMs) return frame;
    }
    return this.held.values().next().value;
  }

  /** The SVM's frame in the view may be what a frame of the PVM has waited for too long. */
  private settleLate(flow: FlowRecord, hash: number): void {
    const { view } = this;
    const end = (view.seq + view.seqLength) | 0;
    for (let i = 0; i < flow.late.length; i++) {
      const { finding, seqEnd, ack, hash: wanted, sinceMs } = flow.late[i];
      const acked = (view.tcpFlags & TCP_ACK) !== 0 && seqAtOrBefore(ack, view.ack);
      if (flow.tcp ? !(seqAtOrBefore(seqEnd, end) && acked) : hash !== wanted) continue;
      finding.cameAfterMs = toMicros(this.nowMs - sinceMs);
      flow.late.splice(i--, 1);
    }
  }

  private checkpoint(reason: string): void {
    this.checkpoints[reason] = (this.checkpoints[reason] ?? 0) + 1;
    this.letGo(reason);
  }

  private letGo(reason: string): void {
    const { comparator, diverged } = this;
    for (const { flow, hash } of this.held.values()) if (!flow.tcp) flow.owed.add(hash);
    // What the SVM said in place of it, the PVM may say yet.
    const instead = diverged !== null && !diverged.flow.tcp ? oldest(diverged.flow.secondaryKept) : undefined;
    this.diverged = null;
    const before = [...this.kept.values()];
    comparator.commit();
    this.policy.committed(this.nowMs as Instant, ASSUMED_CHECKPOINT_MS);
    const { secondaryMs } = this.policy.waits;
    const full = reason.startsWith('limit-');
    for (const frame of before) {
      const { flow, hash } = frame;
      if (!flow.tcp && flow.owed.has(hash)) {
        flow.owed.take(hash);
        this.counts.matchedLate++;
        this.forget(frame);
        continue;
      }
      const waitedLong =
        reason === 'wait-secondary' && isAhead(frame) && this.nowMs - frame.sinceMs >= secondaryMs;
      if (frame === instead || full || waitedLong) {
        this.counts.secondaryUnmatched++;
        if (!flow.tcp) flow.spare.add(hash);
        this.forget(frame);
        continue;
      }
      this.sayAgain(frame);
    }
  }

  private sayAgain(frame: HeldFrame): void {
    if (frame.bytes !== null) {
      frame.at = this.place({ bytes: frame.bytes, at: 0, length: frame.length });
      frame.slab = this.slab;
      frame.bytes = null;
      this.slabs.ref(frame.slab);
    }
    const { slab, at, length, index, flow } = frame;
    if (this.translating) this.translator.correctSyn(this.slabs.buffer(slab), at, length);
    this.current = flow;
    this.comparator.secondaryFrame(slab, at, length, index, this.nowMs as Instant);
    this.current = null;
  }

  private moveOut(): void {
    for (const frame of this.kept.values()) {
      if (frame.bytes !== null) continue;
      frame.bytes = Uint8Array.prototype.slice.call(
        this.slabs.buffer(frame.slab),
        frame.at,
        frame.at + frame.length,
      );
      this.slabs.unref(frame.slab);
    }
  }

  private forgetOldest(): void {
    const [frame] = this.kept.values();
    this.counts.secondaryUnmatched++;
    this.forget(frame);
  }
}
