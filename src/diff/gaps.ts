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
 * Limits: GAPS_MAX gaps of a flow are remembered and FILLS_MAX segments of each side for each.
 */
import { seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import type { Instant } from '../units.ts';
import type { PacketView } from '../wire/packet.ts';
import type { FrameBytes } from './explain.ts';
import type { Fill, FlowRecord, Gap, StoredFrame } from './flow-record.ts';
import type { GapReport, Side } from './report.ts';

const GAPS_MAX = 16;
const FILLS_MAX = 64;

export type GapSink = {
  /** Both recordings have bytes in a gap, and they differ. */
  differ(primary: StoredFrame, secondary: StoredFrame, primaryOffset: number, secondaryOffset: number): void;
  /** A gap is over. `only`: a frame of the one recording that has the bytes, or null if neither has. */
  close(gap: GapReport, only: { side: Side; frame: StoredFrame } | null): void;
};

export class Gaps {
  private readonly sink: GapSink;

  constructor(sink: GapSink) {
    this.sink = sink;
  }

  /** A recording of the flow lacks the bytes from `from` to `to`. */
  open(flow: FlowRecord, side: Side, from: number, to: number, sinceMs: Instant): Gap {
    let gap = flow.gaps.find((other) => other.from === from && other.to === to);
    if (gap === undefined) {
      if (flow.gaps.length === GAPS_MAX) this.close(flow.gaps.shift() as Gap, flow);
      const position = Math.max(0, flow.placeOf(from));
      const missing = { primary: false, secondary: false };
      const fills = { primary: [], secondary: [] };
      gap = { from, to, missing, fills, sinceMs, position, hasFin: false, differs: false };
      flow.gaps.push(gap);
    }
    gap.missing[side] = true;
    return gap;
  }

  /**
   * Takes a segment of the flow, which lies in `frame.bytes` or at `at` in `bytes`: what lies in gaps is kept and zeroed.
   * Returns true if any of it does.
   */
  pass(side: Side, frame: StoredFrame, { bytes, at, length }: FrameBytes): boolean {
    let any = false;
    for (const gap of frame.flow.gaps) any = this.passInto(gap, side, frame, { bytes, at, length }) || any;
    return any;
  }

  /** The same for one gap. */
  passInto(gap: Gap, side: Side, frame: StoredFrame, { bytes, at, length }: FrameBytes): boolean {
    const end = (frame.seq + frame.payloadBytes) | 0;
    const from = seqMax(frame.seq, gap.from);
    const to = seqBefore(gap.to, end) ? gap.to : end;
    if (frame.payloadBytes === 0 || !seqBefore(from, to)) return false;
    if (gap.fills[side].length < FILLS_MAX) {
      const copy = Uint8Array.prototype.slice.call(bytes, at, at + length);
      const payload = frame.payload - at;
      const kept: StoredFrame = { ...frame, bytes: copy, at: 0 };
      this.compare(gap, side, { frame: kept, bytes: { bytes: copy, at: 0, length }, payload });
    }
    const zero = frame.payload + seqDiff(from, frame.seq);
    bytes.fill(0, zero, zero + seqDiff(to, from));
    return true;
  }

  /** Closes all gaps of the flow. */
  closeAll(flow: FlowRecord): void {
    for (const gap of flow.gaps.splice(0)) this.close(gap, flow);
  }

  private compare(gap: Gap, side: Side, fill: Fill): void {
    gap.fills[side].push(fill);
    for (const other of gap.fills[side === 'primary' ? 'secondary' : 'primary']) {
      if (gap.differs) return;
      const [mine, theirs] = side === 'primary' ? [fill, other] : [other, fill];
      const from = [mine.frame.seq, theirs.frame.seq].reduce(seqMax, gap.from);
      let left = seqDiff(gap.to, from);
      for (const { frame } of [mine, theirs])
        left = Math.min(left, seqDiff(frame.seq + frame.payloadBytes, from));
      const myOffset = seqDiff(from, mine.frame.seq);
      const theirOffset = seqDiff(from, theirs.frame.seq);
      for (let i = 0; i < left; i++) {
        if (byteAt(mine, myOffset + i) === byteAt(theirs, theirOffset + i)) continue;
        gap.differs = true;
        this.sink.differ(mine.frame, theirs.frame, myOffset + i, theirOffset + i);
        break;
      }
    }
  }

  private close(gap: Gap, flow: FlowRecord): void {
    const total = seqDiff(gap.to, gap.from);
    const primary = covered(gap, gap.fills.primary);
    const secondary = covered(gap, gap.fills.secondary);
    const both = covered(gap, [...gap.fills.primary, ...gap.fills.secondary]);
    const report = (bytes: number, inFile: GapReport['in']): GapReport => ({
      flow: flow.name,
      timeMs: gap.sinceMs,
      at: gap.position,
      bytes,
      in: inFile,
    });
    if (total > both) this.sink.close(report(total - both, 'neither'), null);
    if (both > secondary)
      this.sink.close(report(both - secondary, 'primary'), {
        side: 'primary',
        frame: gap.fills.primary[0].frame,
      });
    if (both > primary)
      this.sink.close(report(both - primary, 'secondary'), {
        side: 'secondary',
        frame: gap.fills.secondary[0].frame,
      });
  }
}

function byteAt({ bytes, payload }: Fill, offset: number): number {
  return bytes.bytes[payload + offset];
}

/** Returns how many bytes of the gap are in one of the frames. */
function covered({ from, to }: Gap, fills: Fill[]): number {
  let at = from;
  let bytes = 0;
  for (const { frame } of fills.toSorted((a, b) => seqDiff(a.frame.seq, b.frame.seq))) {
    const begin = seqMax(at, frame.seq);
    const frameEnd = (frame.seq + frame.payloadBytes) | 0;
    const end = seqBefore(to, frameEnd) ? to : frameEnd;
    if (seqAtOrBefore(end, begin)) continue;
    bytes += seqDiff(end, begin);
    at = end;
  }
  return bytes;
}

/** Returns true if the FIN of the segment in `view` lies in a gap of the flow. */
export function finInGap(flow: FlowRecord, view: PacketView): boolean {
  const at = (view.seq + view.payloadBytes) | 0;
  return flow.gaps.some(({ from, to, hasFin }) => !hasFin && seqAtOrBefore(from, at) && seqBefore(at, to));
}
