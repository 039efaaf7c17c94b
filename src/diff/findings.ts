/** The findings of a replay: describes divergences, waits and gaps, with the bytes around them, up to `findingsMax`. */
import type { Difference } from '../divergence/difference.ts';
import type { Explained } from '../divergence/explained.ts';
import { seqAtOrBefore, seqBefore, seqDiff } from '../flow/sequence.ts';
import { TCP_ACK, TCP_SYN } from '../wire/tcp.ts';
import { excerptOf, firstPayloadDifference, firstStreamDifference, flagsOf } from './explain.ts';
import { type FlowRecord, isBareAck, type StoredFrame, type SynWait } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';
import type { InOne } from './gaps.ts';
import type { Finding, FoundFrame, GapReport } from './report.ts';
import { toMicros } from './wait-histogram.ts';

/** How two frames differ, as a finding shows it. */
export type Differing = Explained & { reason: string };

/** An SVM frame that a PVM frame differs from, and where in both payloads. */
type Counterpart = Difference & { frame: StoredFrame };

export class Findings {
  readonly list: Finding[] = [];
  readonly gaps: GapReport[] = [];
  /** All findings, and those of them that are not in the list. */
  total = 0;
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

  sort(): void {
    this.list.sort((a, b) => a.timeMs - b.timeMs);
    this.gaps.sort((a, b) => a.timeMs - b.timeMs);
  }

  /** What is found from now on is only counted. */
  get isFull(): boolean {
    return this.list.length >= this.findingsMax;
  }

  /** A PVM frame differs. `other`: the SVM frame that it was compared with, or null if it was with none. */
  diverged(differing: Differing, primary: StoredFrame, other: StoredFrame | null): void {
    const shown = other ?? nearest(primary);
    const counterpart = shown === undefined ? null : this.differenceOf(primary, shown);
    const finding = this.add(
      differing.reason,
      primary.flow,
      primary,
      counterpart?.frame ?? null,
      counterpart,
    );
    classify(finding, differing);
  }

  /** A PVM frame waited too long. */
  primaryWaited(frame: StoredFrame): void {
    const { flow, seqEnd, ack, hash, sinceMs } = frame;
    const finding = this.add('wait-primary', flow, frame, null, null);
    frame.blamed = true;
    frame.finding = finding;
    if (flow.tcp && (frame.flags & TCP_SYN) !== 0) flow.synWait = { finding, reason: 'wait-primary' };
    if (finding !== null) flow.addLate({ finding, seqEnd, ack, hash, sinceMs });
  }

  /** The PVM did not send what the SVM had sent. */
  secondaryWaited(frame: StoredFrame): void {
    const { flow, flags } = frame;
    const finding = this.add('wait-secondary', flow, null, frame, null);
    if (flow.tcp && (flags & TCP_SYN) !== 0) flow.synWait = { finding, reason: 'wait-secondary' };
  }

  /** A PVM datagram that waited too long differs from one of the SVM: its finding, if it has one, becomes that of a divergence. */
  differed(differing: Differing, primary: StoredFrame, other: StoredFrame): void {
    const { finding, flow } = primary;
    if (!primary.blamed) {
      this.diverged(differing, primary, other);
      return;
    }
    if (finding === null) return;
    const { primaryOffset, secondaryOffset } = this.differenceOf(primary, other);
    finding.reason = differing.reason;
    classify(finding, differing);
    finding.primary = this.describe(primary, primaryOffset);
    finding.secondary = this.describe(other, secondaryOffset);
    flow.forgetLate(finding);
  }

  /**
   * The SVM had sent what PVM segments waited for, from `from` to `to`, but its recording lacks it: their findings become those
   * of a gap. Returns how many did.
   */
  excuse(flow: FlowRecord, from: number, to: number): number {
    let excused = 0;
    for (let i = 0; i < flow.late.length; i++) {
      const { finding, seqEnd } = flow.late[i];
      if (!seqBefore(from, seqEnd) || !seqAtOrBefore(seqEnd, to)) continue;
      finding.reason = 'gap-in-secondary';
      flow.late.splice(i--, 1);
      excused++;
    }
    return excused;
  }

  /**
   * A VM goes on with a connection whose SYN its recording lacks: if the other VM's waited for it, that is a gap. Returns the
   * reason of the checkpoint that was taken for it, or null.
   */
  excuseSyn(flow: FlowRecord): SynWait['reason'] | null {
    const { synWait } = flow;
    if (synWait === null) return null;
    const { finding, reason } = synWait;
    if (finding !== null) {
      finding.reason = reason === 'wait-primary' ? 'gap-in-secondary' : 'gap-in-primary';
      flow.forgetLate(finding);
    }
    flow.synWait = null;
    return reason;
  }

  /** A segment differs in bytes that came behind a gap. */
  differedInGap(
    differing: Differing,
    primary: StoredFrame,
    secondary: StoredFrame,
    primaryOffset: number,
    secondaryOffset: number,
  ): void {
    const counterpart = { primaryOffset, secondaryOffset };
    classify(this.add(differing.reason, primary.flow, primary, secondary, counterpart), differing);
  }

  /** Too much is held: a checkpoint is due, whatever the VMs send. */
  pressed(reason: string, primary: StoredFrame | undefined, secondary: StoredFrame | undefined): void {
    const shown = primary ?? secondary;
    if (shown !== undefined) this.add(reason, shown.flow, primary ?? null, secondary ?? null, null);
  }

  /** The recordings end before it is known whether the SVM would have sent the same: the oldest held frame of each flow. */
  heldAtEnd(frames: Iterable<StoredFrame>): void {
    const flows = new Set<FlowRecord>();
    for (const frame of frames) {
      if (frame.origin === 'filler' || flows.has(frame.flow)) continue;
      flows.add(frame.flow);
      if (!frame.flow.leftOut) this.addHeld(frame);
    }
  }

  /** Shows what the SVM did send, if anything. */
  private addHeld(frame: StoredFrame): void {
    const other = nearest(frame);
    const counterpart = other === undefined ? null : this.differenceOf(frame, other);
    this.add('held', frame.flow, frame, other ?? null, counterpart);
  }

  /** A gap is over. */
  gap(gap: GapReport, only: InOne | null): void {
    const timeMs = toMicros(gap.timeMs - this.startMs);
    if (this.gaps.length < this.findingsMax) this.gaps.push({ ...gap, timeMs });
    if (only === null) return;
    const { side, frame, offset } = only;
    const offsets = { primaryOffset: offset, secondaryOffset: offset };
    if (side === 'primary') this.add('gap-in-secondary', frame.flow, frame, null, offsets);
    else this.add('gap-in-primary', frame.flow, null, frame, offsets);
  }

  /** Notes if an SVM segment is what a PVM segment had waited for too long. */
  noteLate(segment: StoredFrame): void {
    const { flow } = segment;
    for (let i = 0; i < flow.late.length; i++) {
      const { finding, seqEnd, ack, sinceMs } = flow.late[i];
      const acked = (segment.flags & TCP_ACK) !== 0 && seqAtOrBefore(ack, segment.ack);
      if (!seqAtOrBefore(seqEnd, segment.seqEnd) || !acked) continue;
      finding.cameAfterMs = toMicros(segment.sinceMs - sinceMs);
      flow.late.splice(i--, 1);
    }
  }

  /** The same for a datagram. */
  noteLateDatagram({ flow, hash, sinceMs }: StoredFrame): void {
    const at = flow.late.findIndex((late) => late.hash === hash);
    if (at < 0) return;
    flow.late[at].finding.cameAfterMs = toMicros(sinceMs - flow.late[at].sinceMs);
    flow.late.splice(at, 1);
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
    offsets: Difference | null,
  ): Finding | null {
    this.total++;
    const earlierInFlow = flow.findings++;
    if (this.isFull) {
      this.leftOut++;
      return null;
    }
    const { primaryOffset, secondaryOffset } = offsets ?? NOWHERE;
    const shown = (primary ?? secondary) as StoredFrame;
    const finding: Finding = {
      reason,
      class: null,
      why: null,
      flow: flow.name,
      timeMs: toMicros(shown.sentMs - this.startMs),
      earlierInFlow,
      position: positionOf(shown, primary === null ? secondaryOffset : primaryOffset),
      primary: primary === null ? null : this.describe(primary, primaryOffset),
      secondary: secondary === null ? null : this.describe(secondary, secondaryOffset),
      cameAfterMs: null,
    };
    this.list.push(finding);
    return finding;
  }

  private describe(frame: StoredFrame, payloadOffset: number): FoundFrame {
    const { original, length } = frame;
    const bytes = original === null ? this.store.bytesOf(frame) : { bytes: original, at: 0, length };
    const { offset, hex } = excerptOf(bytes, payloadOffset);
    return {
      frame: frame.number,
      atMs: toMicros(frame.fileMs),
      flags: flagsOf(bytes),
      payloadOffset: offset + frame.trimmed,
      hex,
    };
  }
}

function classify(finding: Finding | null, { class: one, why }: Explained): void {
  if (finding === null) return;
  finding.class = one;
  finding.why = why;
}

const NOWHERE: Difference = { primaryOffset: 0, secondaryOffset: 0 };

/** Returns the retained SVM frame at the place of `primary`, or else the first one, bare ACKs left out. */
function nearest({ flow, seq, seqEnd }: StoredFrame): StoredFrame | undefined {
  const candidates = [...flow.retained].filter((other) => !isBareAck(other) && other.origin !== 'filler');
  const isNear = (other: StoredFrame) => seqDiff(other.seqEnd, seq) >= 0 && seqDiff(seqEnd, other.seq) >= 0;
  return flow.tcp ? (candidates.find(isNear) ?? candidates[0]) : candidates[0];
}

function positionOf(frame: StoredFrame, offset: number): Finding['position'] {
  if (!frame.flow.tcp) return { unit: 'datagram', at: frame.ordinal };
  return { unit: 'byte', at: Math.max(0, frame.flow.placeOf(frame.seq)) + offset };
}
