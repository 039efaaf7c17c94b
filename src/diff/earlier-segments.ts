/**
 * Segments of connections whose place is searched (placement.ts): once a connection is placed, what both recordings have before
 * that is compared, too.
 *
 * Only a piece without gaps can be: it reaches from where the later one of the two recordings begins to what was sent last.
 *
 * Limits: the latest SEGMENTS_MAX segments of each VM in a connection; BYTES_MAX in all connections together, and a segment beyond
 * is not kept. What is not kept is not compared.
 */

import type { FrameBytes } from '../divergence/difference.ts';
import { seqAtOrBefore, seqBefore, seqMax } from '../flow/sequence.ts';
import { writeI32 } from '../wire/bytes.ts';
import { type PacketView, parsePacket } from '../wire/packet.ts';
import { TCP, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import type { FlowRecord } from './flow-record.ts';
import { copied, type RecordedFrame } from './recorded-frame.ts';
import type { Side } from './report.ts';

const SEGMENTS_MAX = 64;
const BYTES_MAX = 32 * 1024 * 1024;

type Earlier = { frame: RecordedFrame; seq: number; end: number };
type Earliers = Record<Side, Earlier[]>;

export class EarlierSegments {
  private readonly kept = new Map<FlowRecord, Earliers>();
  private bytes = 0;

  /** Keeps the segment in the view, which is at `at` in `bytes`. `recorded` has its number and times. */
  keep(
    side: Side,
    flow: FlowRecord,
    recorded: RecordedFrame,
    { bytes, at, length }: FrameBytes,
    view: PacketView,
  ): void {
    if (view.seqLength === 0 || (view.tcpFlags & (TCP_SYN | TCP_RST)) !== 0) return;
    if (this.bytes + length > BYTES_MAX) return;
    let earliers = this.kept.get(flow);
    if (earliers === undefined) {
      earliers = { primary: [], secondary: [] };
      this.kept.set(flow, earliers);
    }
    const frame = {
      ...recorded,
      bytes: copied(bytes, at, at + length),
      at: 0,
      length,
      originalLength: length,
    };
    earliers[side].push({ frame, seq: view.seq, end: (view.seq + view.seqLength) | 0 });
    this.bytes += length;
    if (earliers[side].length > SEGMENTS_MAX) this.bytes -= earliers[side].shift()!.frame.length;
  }

  forget(flow: FlowRecord): void {
    const earliers = this.kept.get(flow);
    if (earliers === undefined) return;
    this.kept.delete(flow);
    for (const { frame } of [...earliers.primary, ...earliers.secondary]) this.bytes -= frame.length;
  }

  /**
   * The flow was placed: moves its place back to where both recordings have all that follows, and returns what they have from
   * there on, the PVM's first, in the PVM's numbers. The view has another frame then.
   */
  take(flow: FlowRecord, view: PacketView): { side: Side; frame: RecordedFrame }[] {
    const earliers = this.kept.get(flow);
    this.forget(flow);
    const { primaryEnd, secondaryEnd, seqDelta } = flow;
    if (earliers === undefined || primaryEnd === null || secondaryEnd === null) return [];
    for (const earlier of earliers.secondary) {
      earlier.seq = (earlier.seq + (seqDelta ?? 0)) | 0;
      earlier.end = (earlier.end + (seqDelta ?? 0)) | 0;
      parsePacket(earlier.frame.bytes, 0, earlier.frame.length, view);
      writeI32(earlier.frame.bytes, view.l4 + TCP.seq, earlier.seq);
    }
    const from = seqMax<number>(
      beginOf(earliers.primary, primaryEnd),
      beginOf(earliers.secondary, secondaryEnd),
    );
    flow.fromSeq = from;
    flow.primaryNext = from;
    flow.secondaryNext = from;
    return (['primary', 'secondary'] as const).flatMap((side) =>
      earliers[side].filter(({ end }) => seqBefore(from, end)).map(({ frame }) => ({ side, frame })),
    );
  }
}

/** Returns where the piece without gaps begins that ends at `end`. */
function beginOf(segments: Earlier[], end: number): number {
  let begin = end;
  for (let i = 0; i < segments.length; i++) {
    const before = segments.find(({ seq, end: to }) => seqBefore(seq, begin) && seqAtOrBefore(begin, to));
    if (before === undefined) break;
    begin = before.seq;
  }
  return begin;
}
