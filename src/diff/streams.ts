/**
 * TCP in two recordings: gives the comparator the SVM's segments in the PVM's numbers, from the place on at which a connection
 * is compared (placement.ts), and without gaps (gaps.ts).
 *
 * Numbers. The SVM's are translated by both SYNs, or by the distance at which a stream was found. If the recordings contain
 * real checkpoints, the VMs count alike from then on. The replay notices it when the PVM has sent the same bytes at the recorded
 * place (sent-segments.ts) where the SVM's own numbers jump (own-numbers.ts): a stream that repeats itself has the same bytes at many
 * places.
 *
 * A segment that reaches from before the compared part into it is cut at its front. After a RST that the PVM has sent, a segment
 * of the SVM that the PVM had sent before (a retransmission) has no use, and is left out: the comparator would keep it for ever.
 */

import type { FrameBytes } from '../divergence/difference.ts';
import { seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import type { SvmTranslator } from '../translate/svm-translator.ts';
import type { Instant, SlabId } from '../units.ts';
import { readI32, readU16, writeI32 } from '../wire/bytes.ts';
import { type PacketView, parsePacket } from '../wire/packet.ts';
import { TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { EarlierSegments } from './earlier-segments.ts';
import { type FlowRecord, isAhead, type StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';
import { finInGap, type GapSink, Gaps } from './gaps.ts';
import { NEAR_SEQ, type Place, type Placement } from './placement.ts';
import { copied, type RecordedFrame } from './recorded-frame.ts';
import type { Side } from './report.ts';
import { clearFin, segmentLike, trimFront } from './segments.ts';
import { SentSegments, SUMMED_BYTES, sumOf } from './sent-segments.ts';

/** Fewer bytes may be the same at a place by chance. */
const PROVING_BYTES_MIN = 8;
/** One filler is at most so long: it has to fit into an IP packet. */
const FILLER_BYTES_MAX = 32_768;

export type StreamHost = GapSink & {
  readonly nowMs: Instant;
  /** The frame that is being taken. `describe` names it. */
  current(): RecordedFrame;
  takeAs(frame: RecordedFrame): void;
  /** So many more, or fewer, segments of the side are left out. */
  countLeftOut(side: Side, count: number): void;
  /** Describes the segment in the view, which the store has placed. */
  describe(flow: FlowRecord, slab: SlabId, at: number, length: number): StoredFrame;
  /** Hands a stored segment to the comparator. */
  hand(side: Side, frame: StoredFrame): void;
  /** The SVM sent these bytes, although its recording lacks them: returns true if a PVM segment that waited for them has a finding. */
  excuse(flow: FlowRecord, from: number, to: number): boolean;
  /** The segment goes on with a connection whose SYN its recording lacks. */
  excuseSyn(flow: FlowRecord): void;
  /** Releases what is held of the flow, and forgets what is retained of it. */
  abandon(flow: FlowRecord): void;
};

export class Streams {
  private readonly view: PacketView;
  private readonly store: FrameStore;
  private readonly placement: Placement;
  /** Null if the SVM's recording is in the PVM's numbers. */
  private readonly translator: SvmTranslator | null;
  private readonly host: StreamHost;
  private readonly gaps: Gaps;
  private readonly sent = new SentSegments();
  /** What the SVM has sent, in its own numbers. */
  private readonly ownSent = new SentSegments();
  private readonly earlier = new EarlierSegments();

  constructor(options: {
    view: PacketView;
    store: FrameStore;
    placement: Placement;
    translator: SvmTranslator | null;
    host: StreamHost;
  }) {
    this.view = options.view;
    this.store = options.store;
    this.placement = options.placement;
    this.translator = options.translator;
    this.host = options.host;
    this.gaps = new Gaps(options.store, options.host);
  }

  /** Takes a PVM segment, which is in the view. Returns false if it is left out. */
  primary(frame: FrameBytes, flow: FlowRecord): boolean {
    const { view } = this;
    if ((view.tcpFlags & TCP_SYN) !== 0 && flow.primaryIsn !== view.seq) this.closeGaps(flow);
    if (view.payloadBytes > 0) {
      const sum = sumOf(frame.bytes, view.payload, view.payloadBytes);
      this.sent.add(flow.number, view.seq, withAck(sum, view.ack));
      // A retransmission is no repetition.
      if (flow.primaryEnd === null || seqAtOrBefore(flow.primaryEnd, view.seq))
        flow.noteSum(sumOf(frame.bytes, view.payload, Math.min(view.payloadBytes, SUMMED_BYTES)));
    }
    const place = this.placement.placePrimary(flow, frame.bytes);
    if (!this.goesOn('primary', flow, place, frame)) return false;
    if ((view.tcpFlags & TCP_RST) !== 0) flow.primaryReset = true;
    if ((view.tcpFlags & TCP_SYN) !== 0) {
      flow.primaryReset = false;
      flow.resetsOwed = 0;
    }
    this.take('primary', flow, this.store.place(frame), frame.length);
    return true;
  }

  /** Takes an SVM segment, which is in the view. Returns false if it is left out. */
  secondary(frame: FrameBytes, recorded: FlowRecord): boolean {
    const { view, store, placement } = this;
    const at = store.place(frame);
    const { slab } = store;
    const bytes = store.slabs.buffer(slab);
    const recordedSeq = view.seq;
    if (this.translator !== null) this.translate(this.translator, frame, recorded, bytes, at);
    parsePacket(bytes, at, frame.length, view);
    // The SVM may have opened it from another port.
    const flow = view.sourcePort === recorded.localPort ? recorded : placement.flowOf(bytes);
    const placed = { bytes, at, length: frame.length };
    if (!this.goesOn('secondary', flow, placement.placeSecondary(flow, bytes, recordedSeq), placed)) {
      store.unplace(slab, at, frame.length);
      return false;
    }
    this.trackSecondary(flow);
    this.take('secondary', flow, at, frame.length);
    return true;
  }

  /** The flow is forgotten, or cannot be compared. */
  closeGaps(flow: FlowRecord): void {
    this.gaps.closeAll(flow);
    this.earlier.forget(flow);
  }

  /** Returns true if the side's recording may still have, at `ms`, bytes of a gap out of order. */
  mayStillFill(side: Side, ms: Instant): boolean {
    return this.gaps.mayStillFill(side, ms);
  }

  /** Takes a PVM segment from after the end of the SVM's recording. Returns true if it has bytes of a gap. */
  fill(frame: FrameBytes, flow: FlowRecord): boolean {
    const { view, store } = this;
    if (!flow.placed || flow.leftOut || flow.gaps.length === 0) return false;
    const at = store.place(frame);
    const { slab } = store;
    parsePacket(store.slabs.buffer(slab), at, frame.length, view);
    const fills = this.gaps.pass('primary', this.host.describe(flow, slab, at, frame.length));
    store.unplace(slab, at, frame.length);
    return fills;
  }

  /** Notes where the SVM's stream begins, once that is known in the PVM's numbers. */
  private trackSecondary(flow: FlowRecord): void {
    const { view } = this;
    if ((view.tcpFlags & TCP_SYN) !== 0) flow.secondarySynBytes = view.payloadBytes;
    if (flow.secondaryNext !== null || (view.tcpFlags & (TCP_SYN | TCP_RST)) !== 0) return;
    if (flow.primaryIsn === null || flow.secondarySyns !== flow.primarySyns)
      flow.untrackedSyns = flow.secondarySyns;
    else if (flow.untrackedSyns !== flow.secondarySyns)
      flow.secondaryNext = (flow.primaryIsn + 1 + flow.secondarySynBytes) | 0;
  }

  /** Does what a segment's place asks for; returns true if the segment is compared. */
  private goesOn(side: Side, flow: FlowRecord, place: Place, frame: FrameBytes): boolean {
    if (place === 'abandon') {
      const before = [...flow.held].map((held) =>
        this.recordedAs(held, held.original ?? this.store.copyOf(held)),
      );
      this.host.excuseSyn(flow);
      this.host.abandon(flow);
      for (const held of before) {
        parsePacket(held.bytes, 0, held.length, this.view);
        this.earlier.keep('primary', flow, held, held, this.view);
        this.host.countLeftOut('primary', 1);
      }
      parsePacket(frame.bytes, frame.at, frame.length, this.view);
      this.earlier.keep(side, flow, this.host.current(), frame, this.view);
      return false;
    }
    if (place === 'compare') return true;
    if (!flow.placed && !flow.leftOut) this.earlier.keep(side, flow, this.host.current(), frame, this.view);
    else if (flow.leftOut) this.earlier.forget(flow);
    if (flow.placed && flow.fromSeq !== null && !flow.ackHanded) this.begin(side, flow, frame);
    return false;
  }

  /** The flow was placed by this segment: what both recordings have before it is compared, and the segment itself. */
  private begin(side: Side, flow: FlowRecord, { bytes, at, length }: FrameBytes): void {
    const { earlier, host, view } = this;
    flow.ackHanded = true;
    const current = host.current();
    earlier.keep(side, flow, current, { bytes, at, length }, view);
    const frame = { bytes: copied(bytes, at, at + length), at: 0, length };
    const segments = earlier.take(flow, view);
    parsePacket(frame.bytes, 0, length, view);
    // The SVM has acknowledged what it has, and will not do so again.
    if (flow.secondaryAck !== null && flow.fromSeq !== null) {
      const wanted = { seq: flow.fromSeq, ack: flow.secondaryAck, flags: TCP_ACK, payloadBytes: 0 };
      this.hand('secondary', flow, segmentLike(frame, view, wanted));
    }
    for (const segment of segments) {
      if (!flow.placed) break;
      host.takeAs(segment.frame);
      host.countLeftOut(segment.side, -1);
      this.take(segment.side, flow, this.store.place(segment.frame), segment.frame.length);
    }
    host.takeAs(current);
  }

  private recordedAs({ number, fileMs, sentMs, length }: StoredFrame, bytes: Uint8Array): RecordedFrame {
    return { bytes, at: 0, length, originalLength: length, number, fileMs, ms: sentMs };
  }

  /** Hands on the segment that the store has placed at `at`, in the slab that is being filled. */
  private take(side: Side, flow: FlowRecord, at: number, length: number): void {
    const { slab, slabs } = this.store;
    // A filler may begin another slab.
    slabs.ref(slab);
    this.takeFrom(side, flow, slab, at, length);
    slabs.unref(slab);
  }

  private takeFrom(side: Side, flow: FlowRecord, slab: SlabId, placedAt: number, placedLength: number): void {
    const { view, store, host } = this;
    const bytes = store.slabs.buffer(slab);
    let at = placedAt;
    let length = placedLength;
    parsePacket(bytes, at, length, view);
    const cut = this.bytesBeforePlace(flow);
    if (cut > 0) {
      trimFront(bytes, at, view, cut);
      at += cut;
      length -= cut;
      parsePacket(bytes, at, length, view);
    }
    if (!this.fillGap(side, flow, bytes, at)) return;
    if (side === 'primary') flow.primaryNext = this.next(flow.primaryNext);
    else flow.secondaryNext = this.next(flow.secondaryNext);
    const frame = host.describe(flow, slab, at, length);
    frame.trimmed = cut;
    let instead: Uint8Array | null = null;
    if (flow.gaps.length > 0) {
      if (this.gaps.pass(side, frame)) frame.origin = 'behind-gap';
      if ((frame.flags & TCP_FIN) !== 0 && finInGap(flow, view))
        instead = this.takeFinOut(side, frame, bytes);
    }
    if (side === 'primary' || !this.isLate(frame)) host.hand(side, frame);
    if (instead !== null) this.hand(side, flow, instead);
  }

  /** After a RST of the PVM that has left: returns true for an SVM segment that is no news. */
  private isLate(frame: StoredFrame): boolean {
    const { flow, flags } = frame;
    if (!flow.primaryReset || flow.held.size > 0) return false;
    if ((flags & TCP_RST) === 0) return !isAhead(frame);
    if (flow.resetsOwed === 0) return false;
    flow.resetsOwed--;
    return true;
  }

  /** Returns how many payload bytes of the segment in the view lie before the compared part, if others lie in it. */
  private bytesBeforePlace({ fromSeq }: FlowRecord): number {
    const { view } = this;
    if (fromSeq === null || (view.tcpFlags & (TCP_SYN | TCP_RST)) !== 0) return 0;
    const before = seqDiff(fromSeq, view.seq);
    return before > 0 && before <= view.payloadBytes ? before : 0;
  }

  /** Returns where the bytes after the segment in the view begin. */
  private next(known: number | null): number | null {
    const { view } = this;
    if (known === null || (view.tcpFlags & (TCP_RST | TCP_SYN)) !== 0) return known;
    return seqMax(known, (view.seq + view.seqLength) | 0);
  }

  /**
   * Fills the gap, if there is one, before the segment in the view, which lies at `at` in `bytes`; the view has that segment
   * again afterwards. Returns false if the flow had to be abandoned.
   */
  private fillGap(side: Side, flow: FlowRecord, bytes: Uint8Array, at: number): boolean {
    const { view, gaps, host } = this;
    const next = side === 'primary' ? flow.primaryNext : flow.secondaryNext;
    if (next === null || (view.tcpFlags & (TCP_SYN | TCP_RST)) !== 0) return true;
    const missing = seqDiff(view.seq, next);
    if (missing <= 0) return true;
    const others = side === 'primary' ? flow.retained : flow.held;
    const movedOut = [...others].some((frame) => frame.bytes !== null);
    if (missing > NEAR_SEQ || movedOut || gaps.isFull(flow)) {
      host.abandon(flow);
      this.placement.unplace(flow);
      return false;
    }
    const to = view.seq;
    const frameEnd = { bytes, at, length: view.end - at };
    const fin = [...others].find((frame) => (frame.flags & TCP_FIN) !== 0 && finIn(frame, next, to));
    const ack = view.ack;
    const gap = gaps.open(flow, side, next, to, host.nowMs);
    if (side === 'secondary' && host.excuse(flow, next, to)) gap.reported = true;
    for (const frame of others)
      if (frame.origin !== 'filler' && gaps.passInto(gap, otherSide(side), frame))
        frame.origin = 'behind-gap';
    for (let seq = next; seqBefore(seq, to); ) {
      let payloadBytes = Math.min(seqDiff(to, seq), FILLER_BYTES_MAX);
      const flags = fin !== undefined && finIn(fin, seq, (seq + payloadBytes) | 0) ? TCP_FIN : 0;
      if (flags !== 0) payloadBytes = seqDiff(fin!.seqEnd, seq) - 1;
      if (flags !== 0) gap.hasFin = true;
      parsePacket(bytes, at, frameEnd.length, view);
      this.hand(side, flow, segmentLike(frameEnd, view, { seq, ack, flags, payloadBytes }));
      seq = (seq + payloadBytes + (flags === 0 ? 0 : 1)) | 0;
    }
    parsePacket(bytes, at, frameEnd.length, view);
    return true;
  }

  /** A FIN lies in a gap: takes it out, and returns what to hand in at its place, if there is no filler yet. */
  private takeFinOut(side: Side, frame: StoredFrame, bytes: Uint8Array): Uint8Array | null {
    const { view } = this;
    const seq = (view.seq + view.payloadBytes) | 0;
    const isThere = frame.flow.gaps.some(
      ({ from, to, missing }) => missing[side] && seqAtOrBefore(from, seq) && seqBefore(seq, to),
    );
    clearFin(bytes, view);
    frame.flags &= ~TCP_FIN;
    frame.seqEnd = seq;
    if (isThere) return null;
    const wanted = { seq, ack: view.ack, flags: 0, payloadBytes: 1 };
    return segmentLike({ bytes, at: frame.at }, view, wanted);
  }

  /** Hands in a segment that no recording has. */
  private hand(side: Side, flow: FlowRecord, made: Uint8Array): void {
    const { store, view } = this;
    const at = store.place({ bytes: made, at: 0, length: made.length });
    parsePacket(store.slabs.buffer(store.slab), at, made.length, view);
    const frame = this.host.describe(flow, store.slab, at, made.length);
    frame.origin = 'filler';
    this.host.hand(side, frame);
  }

  /** Translates an SVM segment in place. The view is of the recorded frame. */
  private translate(
    translator: SvmTranslator,
    frame: FrameBytes,
    flow: FlowRecord,
    bytes: Uint8Array,
    at: number,
  ): void {
    const { view, sent } = this;
    const recorded = view.seq;
    const seqAt = at + view.l4 - frame.at + TCP.seq;
    const isSyn = (view.tcpFlags & TCP_SYN) !== 0;
    const restore = (): void => bytes.set(frame.bytes.subarray(frame.at, frame.at + frame.length), at);
    if (!isSyn && flow.seqDelta !== null) {
      writeI32(bytes, seqAt, recorded + flow.seqDelta);
      if (flow.seqDelta === 0) return;
    } else if (isSyn || flow.placed || flow.finder === null) {
      translator.output(bytes, at, frame.length);
      const samePort = readU16(bytes, at + view.l4 - frame.at + TCP.sourcePort) === view.sourcePort;
      // Its place is searched by its own numbers, from the first on.
      if (!isSyn && !flow.placed && !flow.synsKnown && samePort) restore();
    }
    const translated = readI32(bytes, seqAt);
    const end = (recorded + view.seqLength) | 0;
    if (isSyn) {
      flow.countsAlike = null;
      flow.secondaryOwn.begin(end);
      return;
    }
    const goesOn = view.seqLength > 0 && flow.secondaryOwn.goesOn(recorded, end);
    if (translated === recorded) return;
    const { number } = flow;
    const sum = sumOf(frame.bytes, view.payload, view.payloadBytes);
    const isRepetition = this.ownSent.has(number, recorded, sum);
    if (view.payloadBytes > 0) this.ownSent.add(number, recorded, sum);
    if (view.payloadBytes >= PROVING_BYTES_MIN && !goesOn && !isRepetition) {
      const answer = withAck(sum, view.ack);
      const alike = sent.has(number, recorded, answer);
      const apart = sent.has(number, translated, answer);
      if (alike && apart) flow.repeats = true;
      // In a stream that repeats itself, the same bytes at a place that is near prove nothing.
      const proves = !flow.repeats || Math.abs(seqDiff(recorded, translated)) > NEAR_SEQ;
      if (proves && alike !== apart) {
        flow.countsAlike = alike;
        flow.secondaryOwn.begin(end);
      }
    }
    if (flow.countsAlike === true) restore();
  }
}

/** Returns the sum of a segment that acknowledges so much of the client's stream, which tells replies apart that are the same. */
function withAck(sum: number, ack: number): number {
  return Math.imul(sum ^ ack, 0x01000193);
}

function otherSide(side: Side): Side {
  return side === 'primary' ? 'secondary' : 'primary';
}

/** Returns true if the segment's FIN is between two sequence numbers. */
function finIn({ seqEnd }: StoredFrame, from: number, to: number): boolean {
  return seqBefore(from, seqEnd) && seqAtOrBefore(seqEnd, to);
}
