/**
 * Gaps: bytes of a TCP stream that are missing in one recording, or in both.
 *
 * A TCP sends its stream without gaps, so a segment beyond the next byte shows that the recording lost some (tcpdump drops
 * frames when it is too slow), or that a segment comes later. Nothing is known of the missing bytes. They must not hold up
 * what follows, and nobody is to blame for them.
 *
 * So that the comparator sees two streams without gaps, the missing bytes are filled with zeros, and so is what the other
 * recording has at their place. The bytes that were there are kept (`fills`): if the missing ones come later in both
 * recordings, as a retransmission or out of order, they are compared here.
 *
 * A FIN takes a sequence number as a byte does. If it lies in a gap it is taken out of its segment, and a zero takes its place.
 *
 * Limits: a gap is closed OPEN_MS after it was noticed, if both recordings have gone past it; a flow with GAPS_MAX gaps that are
 * open is abandoned (`isFull`). FILLS_MAX segments of each side are kept for each gap.
 */
import { seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import type { Instant } from '../units.ts';
import type { PacketView } from '../wire/packet.ts';
import type { Fill, FlowRecord, Gap, StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';
import type { GapReport, Side } from './report.ts';

/** After both recordings have gone past a gap, its bytes may still come so much later. */
const OPEN_MS = 1000;
/** The same after one of the recordings has ended, beyond which nothing else is compared. */
const OUT_OF_ORDER_MS = 100;
const GAPS_MAX = 4096;
const FILLS_MAX = 1024;

/** The first frame of the one recording that has the bytes of a gap, and where in its payload they begin. */
export type InOne = { side: Side; frame: StoredFrame; offset: number };

export type GapSink = {
  /** Both recordings have bytes in a gap, and they differ. */
  differ(primary: StoredFrame, secondary: StoredFrame, primaryOffset: number, secondaryOffset: number): void;
  /** A gap is over. `only`: null if neither recording has the bytes, or they are known already. */
  close(gap: GapReport, only: InOne | null): void;
};

export class Gaps {
  private readonly store: FrameStore;
  private readonly sink: GapSink;
  /** When each recording was last found to have a gap. */
  private readonly lastMs = { primary: Number.NEGATIVE_INFINITY, secondary: Number.NEGATIVE_INFINITY };

  constructor(store: FrameStore, sink: GapSink) {
    this.store = store;
    this.sink = sink;
  }

  mayStillFill(side: Side, ms: Instant): boolean {
    return ms - this.lastMs[side] < OUT_OF_ORDER_MS;
  }

  isFull(flow: FlowRecord): boolean {
    return flow.gaps.length >= GAPS_MAX;
  }

  /** A recording of the flow lacks the bytes from `from` to `to`. */
  open(flow: FlowRecord, side: Side, from: number, to: number, sinceMs: Instant): Gap {
    let gap = flow.gaps.find((other) => other.from === from && other.to === to);
    if (gap === undefined) {
      this.closeOld(flow, sinceMs);
      const position = Math.max(0, flow.placeOf(from));
      const missing = { primary: false, secondary: false };
      const fills = { primary: [], secondary: [] };
      gap = {
        from,
        to,
        missing,
        fills,
        sinceMs,
        position,
        hasFin: false,
        differs: false,
        reported: false,
        closed: false,
      };
      flow.gaps.push(gap);
    }
    gap.missing[side] = true;
    this.lastMs[side] = sinceMs;
    return gap;
  }

  /** Takes a segment of the flow: what lies in gaps is kept and zeroed. Returns true if any of it does. */
  pass(side: Side, frame: StoredFrame): boolean {
    let any = false;
    for (const gap of frame.flow.gaps) any = this.passInto(gap, side, frame) || any;
    return any;
  }

  /** The same for one gap. */
  passInto(gap: Gap, side: Side, frame: StoredFrame): boolean {
    const end = (frame.seq + frame.payloadBytes) | 0;
    const from = seqMax(frame.seq, gap.from);
    const to = seqBefore(gap.to, end) ? gap.to : end;
    if (frame.payloadBytes === 0 || !seqBefore(from, to)) return false;
    frame.original ??= this.store.copyOf(frame);
    const { bytes, at } = this.store.bytesOf(frame);
    const zero = at + frame.payload + seqDiff(from, frame.seq);
    bytes.fill(0, zero, zero + seqDiff(to, from));
    // A difference takes a checkpoint, after which other frames may lie in the slab.
    if (gap.fills[side].length < FILLS_MAX)
      this.compare(gap, side, { ...frame, bytes: frame.original, at: 0 });
    return true;
  }

  /** Closes all gaps of the flow. */
  closeAll(flow: FlowRecord): void {
    for (const gap of flow.gaps) this.close(gap, flow);
    flow.gaps.length = 0;
  }

  private compare(gap: Gap, side: Side, fill: Fill): void {
    gap.fills[side].push(fill);
    for (const other of gap.fills[side === 'primary' ? 'secondary' : 'primary']) {
      if (gap.differs) return;
      const [mine, theirs] = side === 'primary' ? [fill, other] : [other, fill];
      const from = [mine.seq, theirs.seq].reduce(seqMax, gap.from);
      let left = seqDiff(gap.to, from);
      for (const { seq, payloadBytes } of [mine, theirs])
        left = Math.min(left, seqDiff(seq + payloadBytes, from));
      const myOffset = seqDiff(from, mine.seq);
      const theirOffset = seqDiff(from, theirs.seq);
      for (let i = 0; i < left; i++) {
        if (byteAt(mine, myOffset + i) === byteAt(theirs, theirOffset + i)) continue;
        if (isKnownToDiffer(gap, fill.flow, (from + i) | 0)) continue;
        gap.differs = true;
        this.sink.differ(mine, theirs, myOffset + i, theirOffset + i);
        break;
      }
    }
  }

  private closeOld(flow: FlowRecord, nowMs: number): void {
    for (const gap of flow.gaps) {
      if (nowMs - gap.sinceMs < OPEN_MS) break;
      if (!isPast(flow.primaryNext, gap.to) || !isPast(flow.secondaryNext, gap.to)) break;
      this.close(gap, flow);
    }
    while (flow.gaps.length > 0 && flow.gaps[0].closed && nowMs - flow.gaps[0].sinceMs > 2 * OPEN_MS)
      flow.gaps.shift();
  }

  private close(gap: Gap, flow: FlowRecord): void {
    if (gap.closed) return;
    // A recording that ends before it may have the bytes.
    if (!gap.missing.primary && !isPast(flow.primaryNext, gap.to)) return;
    if (!gap.missing.secondary && !isPast(flow.secondaryNext, gap.to)) return;
    const there = coverage(gap, flow);
    for (const { closed, from, to } of flow.gaps)
      if (closed) there.fill(IN_PRIMARY | IN_SECONDARY, ...spanIn(gap, from, to));
    gap.closed = true;
    const report = (inFile: GapReport['in'], mark: number): void => {
      const first = there.indexOf(mark);
      if (first < 0) return;
      let bytes = 0;
      for (const one of there) if (one === mark) bytes++;
      const only = inFile === 'neither' || gap.reported ? null : firstIn(gap, inFile, there, mark);
      const about = { flow: flow.name, timeMs: gap.sinceMs, at: gap.position + first, bytes, in: inFile };
      this.sink.close(about, only);
    };
    report('neither', 0);
    report('primary', IN_PRIMARY);
    report('secondary', IN_SECONDARY);
  }
}

/** Returns true if the byte is in another gap, too, for which a difference was reported. */
function isKnownToDiffer(gap: Gap, { gaps }: FlowRecord, seq: number): boolean {
  return gaps.some(
    (other) => other !== gap && other.differs && seqAtOrBefore(other.from, seq) && seqBefore(seq, other.to),
  );
}

function isPast(next: number | null, to: number): boolean {
  return next !== null && seqAtOrBefore(to, next);
}

const IN_PRIMARY = 1;
const IN_SECONDARY = 2;

/** Returns which recordings have each byte of the gap. */
function coverage(gap: Gap, flow: FlowRecord): Uint8Array {
  const { from, to, fills } = gap;
  const there = new Uint8Array(seqDiff(to, from));
  const markFills = (frames: Fill[], bit: number): void => {
    for (const { seq, payloadBytes } of frames) {
      const [begin, end] = spanIn(gap, seq, (seq + payloadBytes) | 0);
      for (let i = begin; i < end; i++) there[i] |= bit;
    }
  };
  const mark = (side: Side, bit: number, next: number | null): void => {
    // A recording that has gone past it had its bytes before the gap was noticed, but for its own gaps.
    if (!gap.missing[side] && isPast(next, to)) {
      for (let i = 0; i < there.length; i++) there[i] |= bit;
      const own = flow.gaps.filter(({ missing }) => missing[side]);
      for (const other of own) {
        const [begin, end] = spanIn(gap, other.from, other.to);
        for (let i = begin; i < end; i++) there[i] &= ~bit;
      }
      for (const other of own) markFills(other.fills[side], bit);
    }
    markFills(fills[side], bit);
  };
  mark('primary', IN_PRIMARY, flow.primaryNext);
  mark('secondary', IN_SECONDARY, flow.secondaryNext);
  return there;
}

/** Returns which of the gap's bytes lie between two sequence numbers. */
function spanIn({ from, to }: Gap, begin: number, end: number): [number, number] {
  const bytes = seqDiff(to, from);
  return [
    Math.max(0, Math.min(bytes, seqDiff(begin, from))),
    Math.max(0, Math.min(bytes, seqDiff(end, from))),
  ];
}

/** Returns the frame that has the first of the bytes with this mark, or null: they may have been compared before the gap was noticed. */
function firstIn(gap: Gap, side: Side, there: Uint8Array, mark: number): InOne | null {
  let first: InOne | null = null;
  let firstAt = there.length;
  for (const frame of gap.fills[side]) {
    const [begin, end] = spanIn(gap, frame.seq, (frame.seq + frame.payloadBytes) | 0);
    const at = there.indexOf(mark, begin);
    if (at < 0 || at >= end || at >= firstAt) continue;
    firstAt = at;
    first = { side, frame, offset: seqDiff((gap.from + at) | 0, frame.seq) };
  }
  return first;
}

function byteAt({ bytes, payload }: Fill, offset: number): number {
  return bytes[payload + offset];
}

/** Returns true if the FIN of the segment in `view` lies in a gap of the flow. */
export function finInGap(flow: FlowRecord, view: PacketView): boolean {
  const at = (view.seq + view.payloadBytes) | 0;
  return flow.gaps.some(({ from, to, hasFin }) => !hasFin && seqAtOrBefore(from, at) && seqBefore(at, to));
}
