/**
 * Two recordings of VM output through the comparator, by the clock of the recordings.
 *
 * Goal: what would `colo node` have done with this output, and why? The engine is the real one (compare/comparator.ts,
 * translate/svm-translator.ts, checkpoint/policy.ts). Time (played-clock.ts) and checkpoints (played-checkpoints.ts) are
 * played around it.
 *
 * A recording is not what a VM sent: it begins and ends somewhere, and lacks frames. Nobody is blamed for that. TCP segments
 * reach the comparator through streams.ts, datagrams through datagrams.ts, which know what can be compared.
 *
 * The replay takes a checkpoint where the policy asks for one, and held output leaves as at a real one. A real one also
 * makes the SVM a copy of the PVM; in a recording the SVM continues as it was. So the translation is never forgotten, what
 * the SVM had sent ahead of the PVM is handed to the comparator again after a commit, and a flow that differed is compared on
 * from the place that the PVM has reached: its later differences may follow from the first.
 *
 * Each counted checkpoint has a finding (findings.ts), and a flow of which PVM output is held at the end has one, too.
 */
import { CheckpointPolicy } from '../checkpoint/policy.ts';
import { COMPARE_AS, compareAs } from '../compare/classes.ts';
import { Comparator, type Overdue } from '../compare/comparator.ts';
import { LESSON } from '../compare/lesson.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import type { FrameBytes } from '../divergence/difference.ts';
import { invariant } from '../error.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import type { FrameId, Instant, SlabId } from '../units.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { Blame } from './blame.ts';
import { Datagrams } from './datagrams.ts';
import { Findings } from './findings.ts';
import { type FlowRecord, type StoredFrame, storedFrame } from './flow-record.ts';
import { FrameStore } from './frame-store.ts';
import { Placement } from './placement.ts';
import { PLAYED_WAITS, PlayedCheckpoints } from './played-checkpoints.ts';
import { PlayedClock } from './played-clock.ts';
import { PlayedDivergences } from './played-divergences.ts';
import { Reassembly } from './reassembly.ts';
import { isBeyondIp, parseRecorded, payloadHash, type RecordedFrame } from './recorded-frame.ts';
import type { ReplayCounts, Side, SideCounts } from './report.ts';
import { Streams } from './streams.ts';
import { WaitHistogram } from './wait-histogram.ts';

/** No translation is forgotten between two checkpoints, so a replay has room for more than a node needs. */
const REPLAY_LIMITS: Limits = { ...LIMITS, translationsMax: 1 << 18 };
export class Replay {
  readonly found: Findings;
  private readonly limits: Limits;
  private readonly knownFromMs: number;
  private readonly store: FrameStore;
  private readonly comparator: Comparator;
  private readonly translator: SvmTranslator;
  private readonly policy = new CheckpointPolicy(PLAYED_WAITS);
  private readonly clock: PlayedClock;
  private readonly checkpoints: PlayedCheckpoints;
  private readonly view = new PacketView();
  private readonly placement: Placement;
  private readonly streams: Streams;
  private readonly datagrams: Datagrams;
  private readonly blame: Blame;
  private readonly reassembly = { primary: new Reassembly(), secondary: new Reassembly() };
  private readonly waits = new WaitHistogram();
  /** What the recordings count. */
  private readonly sides: Record<Side, SideCounts | null> = { primary: null, secondary: null };
  /** The frame that a method is about. */
  private current: RecordedFrame | null = null;
  /** The SVM datagram that differed since the last checkpoint. */
  private instead: StoredFrame | undefined;
  /** Held frames leave because their flow cannot be compared. */
  private abandoning = false;
  private readonly counts = { matched: 0, harmless: 0, releasedByCheckpoint: 0, inGaps: 0 };
  private readonly divergences: PlayedDivergences;

  constructor(options: {
    /** The secondary's recording is in its VM's own numbers. */
    translate: boolean;
    hashSeed: number;
    findingsMax: number;
    /** The zero of the findings' times. */
    startMs: number;
    /** What lies before may have its counterpart before one of the recordings. */
    knownFromMs?: number;
    limits?: Limits;
  }) {
    const { hashSeed, translate: translating } = options;
    const limits = options.limits ?? REPLAY_LIMITS;
    this.limits = limits;
    this.knownFromMs = options.knownFromMs ?? Number.NEGATIVE_INFINITY;
    this.store = new FrameStore(limits);
    const { view, store, knownFromMs } = this;
    const { slabs } = store;
    this.found = new Findings(store, options.findingsMax, options.startMs);
    this.translator = new SvmTranslator(hashSeed, limits);
    this.comparator = new Comparator(
      slabs,
      {
        release: (slab, at, _length, cause) => this.onRelease(slab, at, cause),
        absorb: (slab, at) => this.onRelease(slab, at, 'absorbed'),
        teach: (lesson, slab, at, length) =>
          this.translator.teach(lesson, 'current', slabs.buffer(slab), at, length),
        confirm: (index) => this.onConfirm(index),
        diverged: (key, reason, primary, secondary) => this.onDiverged(key, reason, primary, secondary),
      },
      hashSeed,
      'plain',
      limits,
    );
    const { comparator, policy, found } = this;
    this.divergences = new PlayedDivergences(comparator, store, found);
    this.clock = new PlayedClock(comparator, policy, {
      onOverdue: (overdue) => this.onOverdue(overdue),
      deadlineMs: () =>
        Math.min(this.datagrams.deadline(policy.waits.secondaryMs), this.checkpoints.aheadDueMs),
      onDeadline: () => this.onDeadline(),
    });
    const { clock } = this;
    this.datagrams = new Datagrams({
      view,
      store,
      comparator,
      found,
      knownFromMs,
      host: {
        differed: (primary, secondary) => this.onDatagramsDiffer(primary, secondary),
        unmatched: (frame) => {
          found.secondaryWaited(frame);
          this.checkpoints.take('wait-secondary', clock.nowMs, undefined);
        },
      },
    });
    const translator = translating ? this.translator : null;
    const { datagrams } = this;
    this.blame = new Blame({ comparator, store, policy, datagrams, knownFromMs });
    this.checkpoints = new PlayedCheckpoints({ comparator, policy, store, translator, datagrams });
    this.placement = new Placement({
      view,
      flowsMax: limits.flowsMax,
      hashSeed,
      translating,
      onForget: (flow) => this.streams.closeGaps(flow),
    });
    this.streams = new Streams({
      view,
      store,
      placement: this.placement,
      translator,
      host: {
        get nowMs(): Instant {
          return clock.nowMs;
        },
        describe: (flow, slab, at, length) => this.describe(flow, slab, at, length, 0, 0),
        hand: (side, frame) => this.hand(side, frame),
        abandon: (flow) => this.abandon(flow),
        current: () => this.current as RecordedFrame,
        takeAs: (frame) => {
          this.current = frame;
        },
        countLeftOut: (side, count) => {
          (this.sides[side] as SideCounts).leftOut += count;
        },
        excuseSyn: (flow) => {
          const reason = found.excuseSyn(flow);
          if (reason !== null) this.checkpoints.uncount(reason, 1);
        },
        excuse: (flow, from, to) => {
          const excused = found.excuse(flow, from, to);
          if (excused > 0) this.checkpoints.uncount('wait-primary', excused);
          return excused > 0;
        },
        differ: (primary, secondary, primaryOffset, secondaryOffset) => {
          this.divergences.inGap(primary, secondary, primaryOffset, secondaryOffset);
          this.checkpoints.take('diverged-bytes', clock.nowMs, undefined);
        },
        close: (gap, only) => found.gap(gap, only),
      },
    });
  }

  /** The translator is full: a connection that began later was not translated. */
  get translationsFull(): boolean {
    return this.translator.size >= this.limits.translationsMax;
  }

  /** Number of datagrams whose fragments are not all in a recording, or contradict each other. */
  incompleteDatagrams(side: Side): number {
    return this.reassembly[side].incomplete;
  }

  /** Takes a client's frame, as the VM of that side received it, and may change its bytes. */
  input(side: Side, { bytes, at, length, ms }: RecordedFrame): void {
    this.clock.advanceTo(ms);
    const { view } = this;
    if (ms < this.knownFromMs) {
      const kind = parsePacket(bytes, at, length, view);
      if (kind === PACKET.tcp) this.placement.noteClientSyn(side, bytes);
      else if (kind !== PACKET.malformed) {
        const hash = payloadHash(bytes, view);
        this.datagrams.input(this.placement.flowOfInput(bytes), side, hash);
      }
    }
    if (side === 'primary') this.translator.input(bytes, at, length);
  }

  /** Takes a frame that the PVM sent. */
  primary(recorded: RecordedFrame, side: SideCounts): void {
    this.sides.primary = side;
    const flow = this.flowOf('primary', recorded, side);
    if (flow === null) return;
    const frame = this.current ?? recorded;
    if (flow.tcp) {
      if (!this.streams.primary(frame, flow)) side.leftOut++;
    } else this.primaryDatagram(frame, flow, side);
    this.afterFrame();
  }

  /** Takes a frame that the SVM sent. */
  secondary(recorded: RecordedFrame, side: SideCounts): void {
    this.sides.secondary = side;
    const flow = this.flowOf('secondary', recorded, side);
    if (flow === null) return;
    const frame = this.current ?? recorded;
    if (flow.tcp) {
      if (!this.streams.secondary(frame, flow)) side.leftOut++;
    } else this.secondaryDatagram(frame, flow, side);
    this.afterFrame();
  }

  /** Takes a PVM frame from before the part that is compared: it may hold a connection's numbers. */
  skipPrimary(frame: RecordedFrame): void {
    this.skip('primary', frame, (flow, { bytes, at, length }, hash) => {
      if (flow.tcp) this.translator.teach(LESSON.tcpSyn, 'current', bytes, at, length);
      else flow.awaitedFromSecondary.add(hash, frame.ms);
    });
  }

  /** Takes an SVM frame from before the part that is compared. */
  skipSecondary(frame: RecordedFrame): void {
    this.skip('secondary', frame, (flow, { bytes, at, length }, hash) => {
      if (flow.tcp) this.translator.output(bytes, at, length);
      else flow.awaitedFromPrimary.add(hash, frame.ms);
    });
  }

  /** Takes a PVM frame from after the end of the SVM's recording: returns true if it has bytes of a gap, out of order. */
  primaryLate(frame: RecordedFrame): boolean {
    if (!this.streams.mayStillFill('primary', frame.ms) || frame.length < frame.originalLength) return false;
    if (parseRecorded(frame, this.view) !== PACKET.tcp || this.view.fragment) return false;
    this.current = frame;
    if (!this.streams.fill(frame, this.placement.flowOf(frame.bytes))) return false;
    this.counts.inGaps++;
    return true;
  }

  /** Returns true if the rest of the SVM's recording may still have what PVM output is compared with. */
  mayStillMatch(ms: Instant): boolean {
    if (this.streams.mayStillFill('secondary', ms)) return true;
    return this.store.held.size > 0 && this.comparator.overdue(ms, this.policy.waits) !== 'wait-primary';
  }

  /** The recordings are over; the PVM's ended at `primaryEndMs`. */
  finish(primaryEndMs: number = this.clock.nowMs): ReplayCounts {
    const { counts, waits, checkpoints, datagrams, store, found } = this;
    datagrams.finish(this.clock.nowMs, Math.min(primaryEndMs, this.clock.nowMs));
    for (const flow of this.placement.known) this.streams.closeGaps(flow);
    found.heldAtEnd(store.held.values());
    const taken = Object.values(checkpoints.byReason).reduce((sum, count) => sum + count, 0);
    invariant(taken <= found.total, 'a checkpoint was counted without a finding');
    found.sort();
    return {
      ...this.placement.flowCounts,
      matched: counts.matched + datagrams.counts.matched,
      matchedLate: datagrams.counts.matchedLate + checkpoints.matchedLate,
      harmless: counts.harmless,
      releasedByCheckpoint: counts.releasedByCheckpoint,
      secondaryUnmatched: checkpoints.unmatched + datagrams.counts.unmatched,
      flowsDiverged: this.divergences.flowsDiverged,
      heldAtEnd: store.held.size,
      inGaps: counts.inGaps,
      duplicates: datagrams.counts.duplicates,
      nearBeginning: datagrams.counts.nearBeginning,
      divergences: this.divergences.byReason,
      divergencesByClass: this.divergences.byClass,
      checkpoints: checkpoints.byReason,
      waits: waits.summary(),
    };
  }

  /**
   * Returns the flow of a frame, which is then in the view; or null, and counts the frame, if it is not compared. `current` is
   * that frame, or the datagram that it was the last fragment of.
   */
  private flowOf(side: Side, frame: RecordedFrame, counts: SideCounts): FlowRecord | null {
    this.clock.advanceTo(frame.ms);
    this.current = frame;
    const { view } = this;
    const { bytes, length, originalLength } = frame;
    const kind = parseRecorded(frame, view);
    if (kind !== PACKET.malformed && view.fragment) {
      const whole = this.reassembly[side].take(frame, view);
      return whole === null ? null : this.flowOf(side, whole, counts);
    }
    const isCut = length < originalLength;
    if (isCut || kind === PACKET.malformed || isBeyondIp(view)) {
      if (isCut) counts.cut++;
      else counts.malformed++;
      // Its headers name the flow, which has a hole from here on.
      if (kind !== PACKET.malformed) this.placement.leaveOut(this.placement.flowOf(bytes));
      return null;
    }
    if (compareAs(view) === COMPARE_AS.harmless) {
      this.counts.harmless++;
      return null;
    }
    const flow = this.placement.flowOf(bytes);
    // Only a RST is as much as a second one: a TCP knows its other segments by their numbers.
    const isReset = flow.tcp && (view.tcpFlags & TCP_RST) !== 0;
    if (isReset && this.datagrams.isCopy(flow, side, bytes, view.seq, frame.ms)) return null;
    return flow;
  }

  private primaryDatagram(frame: RecordedFrame, flow: FlowRecord, side: SideCounts): void {
    const { datagrams, clock } = this;
    const { nowMs } = clock;
    const hash = payloadHash(frame.bytes, this.view);
    if (datagrams.isCopy(flow, 'primary', frame.bytes, hash, nowMs)) return;
    flow.primaryDatagrams++;
    if (flow.leftOut) side.leftOut++;
    else if (datagrams.primary(flow, hash, nowMs)) this.waits.add(0);
    else {
      this.hand('primary', this.placed(frame, flow, hash, flow.primaryDatagrams));
      datagrams.settle(flow, nowMs);
    }
  }

  private secondaryDatagram(frame: RecordedFrame, flow: FlowRecord, side: SideCounts): void {
    const { datagrams, clock } = this;
    const { nowMs } = clock;
    const hash = payloadHash(frame.bytes, this.view);
    if (datagrams.isCopy(flow, 'secondary', frame.bytes, hash, nowMs)) return;
    flow.secondaryDatagrams++;
    if (flow.leftOut) side.leftOut++;
    if (flow.leftOut || datagrams.secondary(flow, hash, nowMs)) return;
    datagrams.withhold(this.placed(frame, flow, hash, flow.secondaryDatagrams));
    datagrams.settle(flow, nowMs);
  }

  /** Stores a datagram, and describes it. */
  private placed(frame: RecordedFrame, flow: FlowRecord, hash: number, ordinal: number): StoredFrame {
    const { store, view } = this;
    const at = store.place(frame);
    parsePacket(store.slabs.buffer(store.slab), at, frame.length, view);
    return this.describe(flow, store.slab, at, frame.length, hash, ordinal);
  }

  private hand(side: Side, frame: StoredFrame): void {
    const { store, comparator, clock } = this;
    const { slab, at, length } = frame;
    if (side === 'primary') {
      store.hold(frame);
      comparator.primaryFrame(slab, at, length, clock.nowMs);
      return;
    }
    if (frame.flow.tcp && frame.origin !== 'filler') this.found.noteLate(frame);
    store.retain(frame);
    comparator.secondaryFrame(slab, at, length, frame.index, clock.nowMs);
  }

  private skip(
    side: Side,
    recorded: RecordedFrame,
    learn: (flow: FlowRecord, frame: FrameBytes, hash: number) => void,
  ): void {
    const { view } = this;
    let frame: RecordedFrame | null = recorded;
    if (parseRecorded(recorded, view) === PACKET.malformed) return;
    if (view.fragment) frame = this.reassembly[side].take(recorded, view);
    if (frame === null || frame.length < frame.originalLength) return;
    const { bytes, at, length } = frame;
    if (parsePacket(bytes, at, length, view) === PACKET.malformed) return;
    if (compareAs(view) === COMPARE_AS.harmless) return;
    const syn = (view.tcpFlags & TCP_SYN) !== 0;
    if (view.kind === PACKET.tcp && !syn) return;
    const flow = this.placement.flowOf(bytes);
    if (syn) this.placement.skipSyn(flow, side);
    learn(flow, frame, flow.tcp ? 0 : payloadHash(bytes, view));
  }

  private describe(
    flow: FlowRecord,
    slab: SlabId,
    at: number,
    length: number,
    hash: number,
    ordinal: number,
  ): StoredFrame {
    const { number, fileMs, ms: sentMs } = this.current as RecordedFrame;
    const sinceMs = this.clock.nowMs;
    const frame = { number, fileMs, sentMs, sinceMs, flow, slab, at, length, hash, ordinal };
    return storedFrame(frame, this.view);
  }

  /** The recordings lack something of the flow: what is held of it leaves, and it is placed anew. */
  private abandon(flow: FlowRecord): void {
    this.abandoning = true;
    this.comparator.abandon(flow.key);
    this.abandoning = false;
    for (const frame of [...flow.retained]) this.store.forget(frame);
    this.streams.closeGaps(flow);
  }

  private onRelease(slab: SlabId, at: number, cause: string): void {
    if (cause === 'made') return;
    const frame = this.store.heldAt(slab, at);
    if (cause === 'commit' && !frame.flow.tcp) this.datagrams.left(frame);
    if (cause === 'commit' && (frame.flags & TCP_RST) !== 0) frame.flow.resetsOwed++;
    this.blame.left(frame);
    if (frame.origin === 'filler' || this.abandoning) return;
    this.waits.add(this.clock.nowMs - frame.sinceMs);
    if (cause === 'commit') this.counts.releasedByCheckpoint++;
    else if (frame.origin === 'behind-gap') this.counts.inGaps++;
    else this.counts.matched++;
  }

  /** A frame that was given up may still be in the comparator, and is confirmed later. */
  private onConfirm(index: number): void {
    const frame = this.store.retained.get(index);
    if (frame !== undefined) this.store.forget(frame);
  }

  private onDiverged(key: Int32Array, reason: DivergenceReason, primary: FrameId, secondary: FrameId): void {
    const { divergence, frame, other } = this.divergences.compared(key, reason, primary, secondary);
    this.policy.diverged(divergence);
    this.instead = frame.flow.tcp ? undefined : other;
  }

  private onDatagramsDiffer(primary: StoredFrame, secondary: StoredFrame): void {
    const reason = this.divergences.datagrams(primary, secondary, this.datagrams);
    // Its checkpoint was taken when the PVM's datagram had waited for too long.
    if (primary.blamed) this.checkpoints.rename('wait-primary', reason);
  }

  /** A frame may have made a checkpoint due. */
  private afterFrame(): void {
    const { clock, comparator, store, datagrams, limits } = this;
    const { nowMs } = clock;
    const isFull = datagrams.withheld.size >= limits.heldSecondaryMax;
    const reason = this.policy.due(nowMs, null, isFull ? 'limit-frames' : comparator.pressure());
    if (reason !== null) {
      if (reason.startsWith('limit-')) this.found.pressed(reason, first(store.held), first(store.retained));
      this.checkpoints.take(reason, nowMs, this.instead);
      this.instead = undefined;
      this.divergences.forget();
    }
    if (store.isFull) this.checkpoints.giveUpOldest(nowMs);
  }

  private onOverdue(overdue: NonNullable<Overdue>): 'settled' | 'later' {
    const { nowMs } = this.clock;
    const frame = overdue === 'wait-primary' ? this.blame.held(nowMs) : this.blame.ahead(nowMs);
    if (frame === undefined) {
      // Segments of the SVM are left that have nothing new. To forget them takes a commit, which must not let output out.
      if (this.store.held.size > 0) return 'later';
      this.checkpoints.commit(overdue, nowMs, undefined);
      return 'settled';
    }
    if (frame.flow.leftOut || this.blame.mayLieBefore(frame)) {
      this.abandon(frame.flow);
      this.placement.unplace(frame.flow);
      return 'settled';
    }
    if (overdue === 'wait-primary') this.found.primaryWaited(frame);
    else this.found.secondaryWaited(frame);
    this.checkpoints.take(overdue, nowMs, frame);
    return 'settled';
  }

  private onDeadline(): void {
    const { checkpoints, clock, blame } = this;
    if (checkpoints.aheadDueMs > clock.nowMs) this.datagrams.giveUpOldest(clock.nowMs);
    else if (blame.ahead(clock.nowMs) !== undefined) this.onOverdue('wait-secondary');
    else checkpoints.aheadDueMs = blame.aheadDueMs();
  }
}

function first(frames: Map<number, StoredFrame>): StoredFrame | undefined {
  return frames.values().next().value;
}
