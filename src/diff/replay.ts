/**
 * Two recordings of VM output through the comparator, by the clock of the recordings.
 *
 * Goal: what would `colo node` have done with this output, and why? The engine is the real one (compare/comparator.ts,
 * translate/svm-translator.ts, checkpoint/policy.ts). Time (played-clock.ts) and checkpoints (played-checkpoints.ts) are
 * played around it.
 *
 * The replay takes a checkpoint where the policy asks for one, and held output leaves as at a real one. A real one also
 * makes the SVM a copy of the PVM; in a recording the SVM continues as it was. Three things follow:
 * - The translation is never forgotten. If the recording contains real checkpoints, the VMs count alike from then on. The
 *   replay notices it when the PVM has sent the same bytes at the recorded place (sent-segments.ts).
 * - The SVM will not send again what it had sent ahead of the PVM, so the replay hands it to the comparator again after a
 *   commit: exactly the frames that were not confirmed.
 * - A flow that differed is compared on from the place that the PVM has reached, and its differences are counted: the
 *   later ones may follow from the first. Datagrams have no place: one that comes late, or that only one VM sent, is
 *   recognised by its payload, and the flow is in step again.
 *
 * Which connections are compared, and from where: placement.ts. What is found: findings.ts.
 */
import { CheckpointPolicy, type PolicyLimits } from '../checkpoint/policy.ts';
import { COMPARE_AS, compareAs } from '../compare/classes.ts';
import { Comparator, type Overdue } from '../compare/comparator.ts';
import { AT, INDEX, NO_FRAME, SLAB } from '../compare/held-frames.ts';
import { LESSON } from '../compare/lesson.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import type { FrameId, Instant, SlabId } from '../units.ts';
import { readI32 } from '../wire/bytes.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP, TCP_SYN } from '../wire/tcp.ts';
import type { FrameBytes } from './explain.ts';
import { Findings } from './findings.ts';
import { type FlowRecord, isAhead, isBareAck, oldest, type StoredFrame } from './flow-record.ts';
import { FrameStore } from './frame-store.ts';
import { Placement } from './placement.ts';
import { ASSUMED_CHECKPOINT_MS, PlayedCheckpoints } from './played-checkpoints.ts';
import { PlayedClock } from './played-clock.ts';
import { hashBytes } from './recent-payloads.ts';
import type { Finding, ReplayCounts, SideCounts } from './report.ts';
import { SentSegments, sumOf } from './sent-segments.ts';
import { toMicros, WaitHistogram } from './wait-histogram.ts';

/** A frame of a recording: its bytes, its number in the file, and its time. */
export type RecordedFrame = FrameBytes & {
  originalLength: number;
  number: number;
  fileMs: number;
  /** By the clock that both recordings are merged by. */
  ms: Instant;
};

const WAITS: PolicyLimits = {
  // Checkpoints at intervals come whatever the VMs send.
  intervalMsMax: Number.POSITIVE_INFINITY,
  waitMsMin: ASSUMED_CHECKPOINT_MS,
  waitMsMax: 200,
  ackWaitMsMax: 300,
};
/** No translation is forgotten between two checkpoints, so a replay has room for more than a node needs. */
const REPLAY_LIMITS: Limits = { ...LIMITS, translationsMax: 1 << 18 };

export class Replay {
  private readonly limits: Limits;
  private readonly store: FrameStore;
  private readonly comparator: Comparator;
  private readonly translator: SvmTranslator;
  private readonly translating: boolean;
  private readonly policy = new CheckpointPolicy(WAITS);
  private readonly clock: PlayedClock;
  private readonly checkpoints: PlayedCheckpoints;
  private readonly view = new PacketView();
  private readonly placement: Placement;
  private readonly found: Findings;
  private readonly sent = new SentSegments();
  private readonly waits = new WaitHistogram();
  /** The SVM datagram that differed since the last checkpoint. */
  private instead: StoredFrame | undefined;
  private readonly counts = {
    matched: 0,
    matchedLate: 0,
    harmless: 0,
    releasedByCheckpoint: 0,
    flowsDiverged: 0,
  };
  private readonly divergences: Record<string, number> = {};

  constructor(options: {
    /** The secondary's recording is in its VM's own numbers. */
    translate: boolean;
    hashSeed: number;
    findingsMax: number;
    /** The zero of the findings' times. */
    startMs: number;
    limits?: Limits;
  }) {
    const { hashSeed } = options;
    const limits = options.limits ?? REPLAY_LIMITS;
    this.limits = limits;
    this.translating = options.translate;
    this.store = new FrameStore(limits);
    const { slabs } = this.store;
    this.placement = new Placement(this.view, limits.flowsMax, hashSeed);
    this.found = new Findings(this.store, options.findingsMax, options.startMs);
    this.translator = new SvmTranslator(hashSeed, limits);
    this.comparator = new Comparator(
      slabs,
      {
        release: (slab, at, _length, cause) => this.onRelease(slab, at, cause),
        teach: (lesson, slab, at, length) =>
          this.translator.teach(lesson, 'current', slabs.buffer(slab), at, length),
        confirm: (index) => this.onConfirm(index),
        diverged: (_key, reason, primary, secondary) => this.onDiverged(reason, primary, secondary),
      },
      hashSeed,
      'plain',
      limits,
    );
    const { comparator, policy, store } = this;
    this.clock = new PlayedClock(comparator, policy, (overdue) => this.onOverdue(overdue));
    const translator = options.translate ? this.translator : null;
    this.checkpoints = new PlayedCheckpoints({ comparator, policy, store, translator });
  }

  get findings(): readonly Finding[] {
    return this.found.list;
  }

  get findingsLeftOut(): number {
    return this.found.leftOut;
  }

  /** The translator is full: a connection that began later was not translated. */
  get translationsFull(): boolean {
    return this.translator.size >= this.limits.translationsMax;
  }

  /** Takes a client's frame, as the PVM received it, and may change its bytes. */
  input({ bytes, at, length, ms }: RecordedFrame): void {
    this.clock.advanceTo(ms);
    this.translator.input(bytes, at, length);
  }

  /** Takes a frame that the PVM sent. */
  primary(frame: RecordedFrame, side: SideCounts): void {
    this.clock.advanceTo(frame.ms);
    const { view } = this;
    if (!this.look(frame, side)) return;
    const flow = this.placement.flowOf(frame.bytes);
    const { tcp } = flow;
    const ordinal = ++flow.primaryDatagrams;
    const compared = tcp ? this.placement.placePrimary(flow) : true;
    if (!compared || flow.leftOut) {
      side.leftOut++;
      return;
    }
    if (tcp && view.payloadBytes > 0)
      this.sent.add(flow.number, view.seq, sumOf(frame.bytes, view.payload, view.payloadBytes));
    const hash = tcp ? 0 : hashBytes(frame.bytes, view.payload, view.payloadBytes);
    if (!tcp && flow.awaitedFromPrimary.has(hash) && oldest(flow.retained)?.hash !== hash) {
      flow.awaitedFromPrimary.take(hash);
      this.counts.matched++;
      this.counts.matchedLate++;
      this.waits.add(0);
      return;
    }
    const held = this.stored(frame, flow, this.store.place(frame), hash, ordinal);
    this.store.hold(held);
    this.comparator.primaryFrame(held.slab, held.at, held.length, this.clock.nowMs);
    this.afterFrame();
  }

  /** Takes a frame that the SVM sent. */
  secondary(frame: RecordedFrame, side: SideCounts): void {
    this.clock.advanceTo(frame.ms);
    const { view, store, clock } = this;
    if (!this.look(frame, side)) return;
    const flow = this.placement.flowOf(frame.bytes);
    const { tcp } = flow;
    const at = store.place(frame);
    const bytes = store.slabs.buffer(store.slab);
    if (tcp && this.translating) this.translate(frame, flow, bytes, at);
    parsePacket(bytes, at, frame.length, view);
    const ordinal = ++flow.secondaryDatagrams;
    const compared = tcp ? this.placement.placeSecondary(flow) : true;
    if (!compared || flow.leftOut) {
      side.leftOut++;
      store.unplace(at);
      return;
    }
    const hash = tcp ? 0 : hashBytes(bytes, view.payload, view.payloadBytes);
    this.found.noteLate(flow, view, hash, clock.nowMs);
    if (!tcp && flow.awaitedFromSecondary.has(hash) && oldest(flow.held)?.hash !== hash) {
      flow.awaitedFromSecondary.take(hash);
      this.counts.matchedLate++;
      store.unplace(at);
      return;
    }
    const kept = this.stored(frame, flow, at, hash, ordinal);
    store.retain(kept);
    this.comparator.secondaryFrame(kept.slab, kept.at, kept.length, kept.index, clock.nowMs);
    this.afterFrame();
  }

  /** Takes a PVM frame from before the part that is compared: it may hold a connection's numbers. */
  skipPrimary(frame: RecordedFrame): void {
    this.skip(frame, (flow, { bytes, at, length }, hash) => {
      if (flow.tcp) this.translator.teach(LESSON.tcpSyn, 'current', bytes, at, length);
      else flow.awaitedFromSecondary.add(hash);
    });
  }

  /** Takes an SVM frame from before the part that is compared. */
  skipSecondary(frame: RecordedFrame): void {
    this.skip(frame, (flow, { bytes, at, length }, hash) => {
      if (flow.tcp) this.translator.output(bytes, at, length);
      else flow.awaitedFromPrimary.add(hash);
    });
  }

  /** Returns true if the rest of the SVM's recording may still match PVM output that is held. */
  mayStillMatch(ms: Instant): boolean {
    return this.store.held.size > 0 && this.comparator.overdue(ms, this.policy.waits) !== 'wait-primary';
  }

  finish(): ReplayCounts {
    const { counts, waits, checkpoints } = this;
    return {
      ...this.placement.counts,
      matched: counts.matched,
      matchedLate: counts.matchedLate + checkpoints.matchedLate,
      harmless: counts.harmless,
      releasedByCheckpoint: counts.releasedByCheckpoint,
      secondaryUnmatched: checkpoints.unmatched,
      flowsDiverged: counts.flowsDiverged,
      heldAtEnd: this.store.held.size,
      divergences: this.divergences,
      checkpoints: checkpoints.byReason,
      waits: {
        p50Ms: toMicros(waits.quantile(0.5)),
        p99Ms: toMicros(waits.quantile(0.99)),
        maxMs: toMicros(waits.maxMs),
      },
    };
  }

  /** Parses a frame. Returns false, and counts it, if the comparator does not need it. */
  private look(frame: RecordedFrame, side: SideCounts): boolean {
    const { view } = this;
    const { bytes, at, length, originalLength } = frame;
    if (length < originalLength) {
      side.cut++;
      // Its headers name the flow, which has a hole from here on.
      if (parsePacket(bytes, at, originalLength, view) !== PACKET.malformed)
        this.placement.leaveOut(this.placement.flowOf(bytes));
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
    learn: (flow: FlowRecord, frame: FrameBytes, hash: number) => void,
  ): void {
    const { view } = this;
    const { bytes, at, length } = frame;
    if (parsePacket(bytes, at, length, view) === PACKET.malformed) return;
    if (compareAs(view) === COMPARE_AS.harmless) return;
    const syn = (view.tcpFlags & TCP_SYN) !== 0;
    if (view.kind === PACKET.tcp && !syn) return;
    const flow = this.placement.flowOf(bytes);
    if (syn) flow.synSkipped = true;
    learn(flow, frame, flow.tcp ? 0 : hashBytes(bytes, view.payload, view.payloadBytes));
  }

  /** Translates an SVM segment in place, unless the VMs count alike. The view is of the recorded frame. */
  private translate(frame: RecordedFrame, flow: FlowRecord, bytes: Buffer, at: number): void {
    const { view, translator, sent } = this;
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
      const alike = sent.has(flow.number, recorded, sum);
      if (alike !== sent.has(flow.number, translated, sum)) flow.countsAlike = alike;
    }
    if (flow.countsAlike === true) bytes.set(frame.bytes.subarray(frame.at, frame.at + frame.length), at);
  }

  /** Describes the frame in the view, which the store has placed at `at`. */
  private stored(
    frame: RecordedFrame,
    flow: FlowRecord,
    at: number,
    hash: number,
    ordinal: number,
  ): StoredFrame {
    const { view } = this;
    return {
      flow,
      number: frame.number,
      fileMs: frame.fileMs,
      sinceMs: this.clock.nowMs,
      slab: this.store.slab,
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

  private onRelease(slab: SlabId, at: number, cause: string): void {
    const frame = this.store.heldAt(slab, at);
    this.store.release(frame);
    this.waits.add(this.clock.nowMs - frame.sinceMs);
    if (cause === 'commit') this.counts.releasedByCheckpoint++;
    else this.counts.matched++;
  }

  /** A frame that was given up may still be in the comparator, and is confirmed later. */
  private onConfirm(index: number): void {
    const frame = this.store.retained.get(index);
    if (frame !== undefined) this.store.forget(frame);
  }

  private onDiverged(reason: DivergenceReason, primary: FrameId, secondary: FrameId): void {
    const { words } = this.comparator.frames;
    const frame = this.store.heldAt(words[primary + SLAB] as SlabId, words[primary + AT]);
    const { flow } = frame;
    const other = secondary === NO_FRAME ? undefined : this.store.retained.get(words[secondary + INDEX]);
    this.policy.diverged(reason);
    this.divergences[reason] = (this.divergences[reason] ?? 0) + 1;
    if (flow.divergences++ === 0) this.counts.flowsDiverged++;
    this.instead = flow.tcp ? undefined : oldest(flow.retained);
    this.found.diverged(reason, frame, other ?? null);
  }

  /** A frame may have made a checkpoint due. */
  private afterFrame(): void {
    const { nowMs } = this.clock;
    const reason = this.policy.due(nowMs, null, this.comparator.pressure());
    if (reason !== null) this.checkpoints.take(reason, nowMs, this.takeInstead());
    if (this.store.isFull) this.checkpoints.giveUpOldest();
  }

  private onOverdue(overdue: NonNullable<Overdue>): void {
    const { nowMs } = this.clock;
    const frame =
      overdue === 'wait-primary' ? this.longestHeld() : this.store.retained.values().find(isAhead);
    if (frame?.flow.leftOut === true) {
      // It was held before its flow had to be left out: the VMs are not to blame for its wait.
      this.checkpoints.commit(overdue, nowMs, this.takeInstead());
      return;
    }
    if (frame !== undefined) {
      if (overdue === 'wait-primary') this.found.primaryWaited(frame);
      else this.found.secondaryWaited(frame);
    }
    this.checkpoints.take(overdue, nowMs, this.takeInstead());
  }

  private takeInstead(): StoredFrame | undefined {
    const { instead } = this;
    this.instead = undefined;
    return instead;
  }

  /** Returns the PVM frame whose wait is over. */
  private longestHeld(): StoredFrame | undefined {
    const { dataMs, ackMs } = this.policy.waits;
    const { held } = this.store;
    for (const frame of held.values()) {
      const age = this.clock.nowMs - frame.sinceMs;
      if (age < dataMs) break;
      if (!isBareAck(frame) || age >= ackMs) return frame;
    }
    return held.values().next().value;
  }
}
