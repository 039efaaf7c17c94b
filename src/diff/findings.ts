/** The findings of a replay: describes divergences and waits, with the bytes around them, up to `findingsMax`. */
import { seqAtOrBefore, seqDiff } from '../flow/sequence.ts';
import type { Instant } from '../units.ts';
import type { PacketView } from '../wire/packet.ts';
import { TCP_ACK } from '../wire/tcp.ts';
import { excerptOf, firstPayloadDifference, firstStreamDifference, flagsOf } from './explain.ts';
import { type FlowRecord, isBareAck, type StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';
import type { Finding, FoundFrame } from './report.ts';
import { toMicros } from './wait-histogram.ts';

/** An SVM frame that a PVM frame differs from, and where in both payloads. */
type Counterpart = { frame: StoredFrame; primaryOffset: number; secondaryOffset: number };

export class Findings {
  readonly list: Finding[] = [];
  leftOut = 0;
  private readonly store: FrameStore;
  private readonly findingsMax: number;
  /** The zero of the findings' times. */
  private readonly startMs: number;

  constructor(store: FrameStore, findingsMax: number, startMs: number) {
    this.store = store;
    this.findingsMax = findingsMax;
    this.startMs = startMs;
  }

  /** A PVM frame differs. `other`: the SVM frame that it was compared with, or null if it was with none. */
  diverged(reason: string, primary: StoredFrame, other: StoredFrame | null): void {
    const shown = other ?? nearest(primary);
    const counterpart = shown === undefined ? null : this.differenceOf(primary, shown);
    this.add(reason, primary.flow, primary, counterpart?.frame ?? null, counterpart);
  }

  /** A PVM frame waited too long. */
  primaryWaited(frame: StoredFrame): void {
    const { flow, seqEnd, ack, hash, sinceMs } = frame;
    const finding = this.add('wait-primary', flow, frame, null, null);
    if (finding !== null) flow.addLate({ finding, seqEnd, ack, hash, sinceMs });
  }

  /** The PVM did not send what the SVM had sent. */
  secondaryWaited(frame: StoredFrame): void {
    this.add('wait-secondary', frame.flow, null, frame, null);
  }

  /** Notes if the SVM frame in the view is what a PVM frame had waited for too long. */
  noteLate(flow: FlowRecord, view: PacketView, hash: number, nowMs: Instant): void {
    const end = (view.seq + view.seqLength) | 0;
    for (let i = 0; i < flow.late.length; i++) {
      const { finding, seqEnd, ack, hash: wanted, sinceMs } = flow.late[i];
      const acked = (view.tcpFlags & TCP_ACK) !== 0 && seqAtOrBefore(ack, view.ack);
      if (flow.tcp ? !(seqAtOrBefore(seqEnd, end) && acked) : hash !== wanted) continue;
      finding.cameAfterMs = toMicros(nowMs - sinceMs);
      flow.late.splice(i--, 1);
    }
  }

  private differenceOf(primary: StoredFrame, other: StoredFrame): Counterpart {
    const mine = this.store.bytesOf(primary);
    const theirs = this.store.bytesOf(other);
    if (!primary.flow.tcp) return { frame: other, ...firstPayloadDifference(mine, theirs) };
    const { primaryOffset, secondaryOffset } = firstStreamDifference(mine, theirs) ?? NOWHERE;
    return { frame: other, primaryOffset, secondaryOffset };
  }

  private add(
    reason: string,
    flow: FlowRecord,
    primary: StoredFrame | null,
    secondary: StoredFrame | null,
    offsets: { primaryOffset: number; secondaryOffset: number } | null,
  ): Finding | null {
    const earlierInFlow = flow.findings++;
    if (this.list.length >= this.findingsMax) {
      this.leftOut++;
      return null;
    }
    const { primaryOffset, secondaryOffset } = offsets ?? NOWHERE;
    const shown = (primary ?? secondary) as StoredFrame;
    const finding: Finding = {
      reason,
      flow: flow.name,
      timeMs: toMicros(shown.sinceMs - this.startMs),
      earlierInFlow,
      position: positionOf(shown, primaryOffset),
      primary: primary === null ? null : this.describe(primary, primaryOffset),
      secondary: secondary === null ? null : this.describe(secondary, secondaryOffset),
      cameAfterMs: null,
    };
    this.list.push(finding);
    return finding;
  }

  private describe(frame: StoredFrame, payloadOffset: number): FoundFrame {
    const bytes = this.store.bytesOf(frame);
    const { offset, hex } = excerptOf(bytes, payloadOffset);
    return {
      frame: frame.number,
      atMs: toMicros(frame.fileMs),
      flags: flagsOf(bytes),
      payloadOffset: offset,
      hex,
    };
  }
}

const NOWHERE = { primaryOffset: 0, secondaryOffset: 0 };

/** Returns the retained SVM frame at the place of `primary`, or else the first one, bare ACKs left out. */
function nearest({ flow, seq, seqEnd }: StoredFrame): StoredFrame | undefined {
  const candidates = [...flow.retained].filter((other) => !isBareAck(other));
  const isNear = (other: StoredFrame) => seqDiff(other.seqEnd, seq) >= 0 && seqDiff(seqEnd, other.seq) >= 0;
  return flow.tcp ? (candidates.find(isNear) ?? candidates[0]) : candidates[0];
}

function positionOf(frame: StoredFrame, offset: number): Finding['position'] {
  if (!frame.flow.tcp) return { unit: 'datagram', at: frame.ordinal };
  return { unit: 'byte', at: Math.max(0, frame.flow.placeOf(frame.seq)) + offset };
}
