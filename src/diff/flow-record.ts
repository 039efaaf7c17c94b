/** What a replay remembers of one flow. Sequence numbers are the primary VM's. */
import { describeFlowKey } from '../flow/key.ts';
import { seqBefore, seqDiff } from '../flow/sequence.ts';
import type { SlabId } from '../units.ts';
import { TCP_FIN, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { RecentPayloads } from './recent-payloads.ts';
import type { Finding } from './report.ts';

/** A frame that the comparator has, or (the secondary's) that clients have not heard all of. */
export type HeldFrame = {
  flow: FlowRecord;
  number: number;
  /** by the clock of its own file, and by the one that both are merged by */
  fileMs: number;
  sinceMs: number;
  slab: SlabId;
  at: number;
  length: number;
  /** the secondary's: its number for the comparator; and its bytes when it has left its slab */
  index: number;
  bytes: Uint8Array | null;
  /** TCP: what a counterpart has to reach; others: hash of the payload, and which datagram it is */
  seq: number;
  seqEnd: number;
  ack: number;
  flags: number;
  payloadBytes: number;
  hash: number;
  ordinal: number;
};

/** A segment that says nothing but how far the other end has been heard. */
export function isBareAck({ flow, flags, payloadBytes }: HeldFrame): boolean {
  return flow.tcp && payloadBytes === 0 && (flags & (TCP_SYN | TCP_FIN | TCP_RST)) === 0;
}

/** Does a frame of the secondary's say anything that the primary VM has not said, other than an ACK? */
export function isAhead({ flow, flags, seqEnd }: HeldFrame): boolean {
  if (!flow.tcp || flow.primaryEnd === null || (flags & (TCP_SYN | TCP_RST)) !== 0) return true;
  return seqBefore(flow.primaryEnd, seqEnd);
}

/** A frame whose wait was overdue, and that may yet find its counterpart. */
export type LateWait = { finding: Finding; seqEnd: number; ack: number; hash: number; sinceMs: number };

const LATE_WAITS_MAX = 16;

export class FlowRecord {
  /** from 1 */
  readonly number: number;
  readonly key: Int32Array;
  readonly tcp: boolean;
  readonly primaryHeld = new Set<HeldFrame>();
  readonly secondaryKept = new Set<HeldFrame>();
  findings = 0;
  divergences = 0;
  /** TCP: compared from its SYN on, or since both VMs were seen to count alike */
  placed = false;
  /** a SYN lies before the part that is compared */
  synSkipped = false;
  /** the secondary's numbers are the primary's; null as long as nothing has shown it */
  countsAlike: boolean | null = null;
  /** a frame was cut, or the VMs' numbers are too far apart */
  leftOut = false;
  /** first sequence number that neither VM had passed when the flow was placed in its middle */
  fromSeq: number | null = null;
  /** how far each VM has come */
  primaryEnd: number | null = null;
  secondaryEnd: number | null = null;
  primaryDatagrams = 0;
  secondaryDatagrams = 0;
  /** the primary's that left without a counterpart; the secondary's that nobody took */
  readonly owed = new RecentPayloads();
  readonly spare = new RecentPayloads();
  readonly late: LateWait[] = [];
  /** a sequence number and its place in the stream */
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

  /** The primary VM has said `seq`. */
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

export function oldest(frames: Set<HeldFrame>): HeldFrame | undefined {
  return frames.values().next().value;
}
