/** What a replay knows of one flow. Sequence numbers are the PVM's. */
import { describeFlowKey } from '../flow/key.ts';
import { seqBefore, seqDiff } from '../flow/sequence.ts';
import type { Instant, SlabId } from '../units.ts';
import { TCP_FIN, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { RecentPayloads } from './recent-payloads.ts';
import type { Finding } from './report.ts';

/** A PVM frame that the comparator holds, or an SVM frame that is retained until clients have all of it. */
export type StoredFrame = {
  flow: FlowRecord;
  /** Its number in the file, and its time by the file's clock and by the merged one. */
  number: number;
  fileMs: number;
  sinceMs: Instant;
  slab: SlabId;
  at: number;
  length: number;
  /** An SVM frame's number for the comparator, and its bytes if it was copied out of its slab. */
  index: number;
  bytes: Uint8Array | null;
  /** TCP: what a counterpart has to reach. */
  seq: number;
  seqEnd: number;
  ack: number;
  flags: number;
  payloadBytes: number;
  /** A datagram's payload, and its number in the flow, from 1. */
  hash: number;
  ordinal: number;
};

/** Returns true for a segment that only acknowledges. */
export function isBareAck({ flow, flags, payloadBytes }: StoredFrame): boolean {
  return flow.tcp && payloadBytes === 0 && (flags & (TCP_SYN | TCP_FIN | TCP_RST)) === 0;
}

/** Returns true for an SVM frame that has more than an ACK which the PVM has not sent yet. */
export function isAhead({ flow, flags, seqEnd }: StoredFrame): boolean {
  if (!flow.tcp || flow.primaryEnd === null || (flags & (TCP_SYN | TCP_RST)) !== 0) return true;
  return seqBefore(flow.primaryEnd, seqEnd);
}

/** A PVM frame whose wait was over before its counterpart came, which may still come. */
export type LateWait = { finding: Finding; seqEnd: number; ack: number; hash: number; sinceMs: number };

const LATE_WAITS_MAX = 16;

export class FlowRecord {
  /** From 1. */
  readonly number: number;
  readonly key: Int32Array;
  readonly tcp: boolean;
  readonly held = new Set<StoredFrame>();
  readonly retained = new Set<StoredFrame>();
  findings = 0;
  divergences = 0;
  /** TCP: compared from its SYN on, or since both VMs were seen to count alike. */
  placed = false;
  /** A SYN lies before the part that is compared. */
  synSkipped = false;
  /** The SVM's numbers are the PVM's; null while neither is known. */
  countsAlike: boolean | null = null;
  /** Not compared: a frame was cut, or the VMs' numbers are too far apart. */
  leftOut = false;
  /** The first sequence number that neither VM had passed when the flow was placed in its middle. */
  fromSeq: number | null = null;
  /** The end of what each VM has sent. */
  primaryEnd: number | null = null;
  secondaryEnd: number | null = null;
  primaryDatagrams = 0;
  secondaryDatagrams = 0;
  /** PVM datagrams that left without a counterpart: the SVM may send them later. */
  readonly awaitedFromSecondary = new RecentPayloads();
  /** SVM datagrams that were given up: the PVM may send them later. */
  readonly awaitedFromPrimary = new RecentPayloads();
  readonly late: LateWait[] = [];
  /** A sequence number and its place in the stream. */
  private knownSeq = 0;
  private knownAt = 0;
  private positioned = false;

  constructor(number: number, key: Int32Array, tcp: boolean) {
    this.number = number;
    this.key = key.slice();
    this.tcp = tcp;
  }

  get name(): string {
    return describeFlowKey(this.key);
  }

  /** The stream begins at `seq`. */
  begin(seq: number): void {
    this.knownSeq = seq;
    this.knownAt = 0;
    this.positioned = true;
  }

  /** The PVM has sent `seq`. */
  pass(seq: number): void {
    if (!this.positioned) this.begin(seq);
    if (!seqBefore(this.knownSeq, seq)) return;
    this.knownAt += seqDiff(seq, this.knownSeq);
    this.knownSeq = seq;
  }

  placeOf(seq: number): number {
    return this.knownAt + seqDiff(seq, this.knownSeq);
  }

  addLate(wait: LateWait): void {
    this.late.push(wait);
    if (this.late.length > LATE_WAITS_MAX) this.late.shift();
  }
}

export function oldest(frames: Set<StoredFrame>): StoredFrame | undefined {
  return frames.values().next().value;
}
