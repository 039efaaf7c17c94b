/** What a replay knows of one flow. Sequence numbers are the PVM's, unless said otherwise. */
import { describeFlowKey, localPort } from '../flow/key.ts';
import { seqAtOrBefore, seqBefore, seqDiff } from '../flow/sequence.ts';
import type { Instant, SlabId } from '../units.ts';
import type { PacketView } from '../wire/packet.ts';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { OwnNumbers } from './own-numbers.ts';
import { RecentPayloads } from './recent-payloads.ts';
import type { Finding, Side } from './report.ts';
import type { StreamFinder } from './stream-finder.ts';

/** A PVM frame that the comparator holds, or an SVM frame that is retained until clients have all of it. */
export type StoredFrame = {
  flow: FlowRecord;
  /** Its number in the file, and its time by the file's clock and by the merged one. */
  number: number;
  fileMs: number;
  sinceMs: Instant;
  /** When it was recorded, by the merged clock: the replay may have got it later. */
  sentMs: Instant;
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
  /** Where its payload begins, from its own beginning: a frame may be moved. */
  payload: number;
  payloadBytes: number;
  /** A datagram's payload, and its number in the flow, from 1. */
  hash: number;
  ordinal: number;
  /** Payload bytes that were cut off its front, because they lie before the part that is compared. */
  trimmed: number;
  /** `filler`: stands for bytes that a recording does not have. `behind-gap`: some of its bytes are such, and not compared. */
  origin: 'recorded' | 'behind-gap' | 'filler';
  /** The frame as it was recorded, if bytes in it had to be zeroed. */
  original: Uint8Array | null;
  /** Its wait was a finding, which cost a checkpoint. */
  blamed: boolean;
  finding: Finding | null;
};

/** Describes the frame in the view, which the store has placed. */
export function storedFrame(
  frame: Pick<
    StoredFrame,
    'flow' | 'number' | 'fileMs' | 'sinceMs' | 'sentMs' | 'slab' | 'at' | 'length' | 'hash' | 'ordinal'
  >,
  view: PacketView,
): StoredFrame {
  const { flow, number, fileMs, sinceMs, sentMs, slab, at, length, hash, ordinal } = frame;
  return {
    flow,
    number,
    fileMs,
    sinceMs,
    sentMs,
    slab,
    at,
    length,
    index: -1,
    bytes: null,
    seq: view.seq,
    seqEnd: (view.seq + view.seqLength) | 0,
    ack: view.ack,
    flags: view.tcpFlags,
    payload: view.payload - at,
    payloadBytes: view.payloadBytes,
    hash,
    ordinal,
    trimmed: 0,
    origin: 'recorded',
    original: null,
    blamed: false,
    finding: null,
  };
}

/** Returns true for a segment that only acknowledges. */
export function isBareAck({ flow, flags, payloadBytes }: StoredFrame): boolean {
  return flow.tcp && payloadBytes === 0 && (flags & (TCP_SYN | TCP_FIN | TCP_RST)) === 0;
}

/** Returns true for an SVM frame that has more than an ACK which the PVM has not sent yet. */
export function isAhead({ flow, flags, seqEnd, origin }: StoredFrame): boolean {
  if (origin === 'filler') return false;
  if (!flow.tcp || flow.primaryEnd === null || (flags & (TCP_SYN | TCP_RST)) !== 0) return true;
  return seqBefore(flow.primaryEnd, seqEnd);
}

/** Returns true for an SVM segment of which the PVM has sent everything, its ACK included: nothing waits for it. */
export function isStale(frame: StoredFrame): boolean {
  const { flow, origin, flags, ack } = frame;
  if (!flow.tcp || origin === 'filler' || isAhead(frame)) return false;
  if ((flags & TCP_ACK) === 0 || flow.primaryReset) return true;
  return flow.primaryAck !== null && seqAtOrBefore(ack, flow.primaryAck);
}

/** A PVM frame whose wait was over before its counterpart came, which may still come. */
export type LateWait = { finding: Finding; seqEnd: number; ack: number; hash: number; sinceMs: number };

export type SynWait = { finding: Finding | null; reason: 'wait-primary' | 'wait-secondary' };

/** A copy of a frame as it was. */
export type Fill = StoredFrame & { bytes: Uint8Array };

export type Gap = {
  from: number;
  to: number;
  /** Whose recording lacks the bytes, as far as is known. */
  missing: Record<Side, boolean>;
  /** What each recording had at its place. */
  fills: Record<Side, Fill[]>;
  /** When it was noticed, and its place in the stream. */
  sinceMs: Instant;
  position: number;
  /** It has a finding already: the PVM's segment waited for too long before the gap was noticed. */
  reported: boolean;
  /** It has been reported, and is kept for what overlaps it. */
  closed: boolean;
  /** A filler stands for a FIN at its end. */
  hasFin: boolean;
  /** Both recordings have the bytes, and they differ: that is reported once. */
  differs: boolean;
};

/** A hash of a frame's payload, its IPv4 identification, and when it was sent. */
export type SentFrame = { hash: number; id: number; ms: number };

const LATE_WAITS_MAX = 16;
const SUMS_MAX = 8;
const NO_SUMS: number[] = [];

export class FlowRecord {
  /** From 1. */
  readonly number: number;
  readonly key: Int32Array;
  readonly tcp: boolean;
  readonly held = new Set<StoredFrame>();
  readonly retained = new Set<StoredFrame>();
  /** The VM has sent a frame of it. */
  counted = false;
  findings = 0;
  divergences = 0;
  /** The latest datagram or RST of each VM, to recognise one that was captured twice. */
  primaryLast: SentFrame | null = null;
  secondaryLast: SentFrame | null = null;
  /**
   * It is known which frames of the two recordings belong together. TCP: from the SYN, or from where the same bytes were
   * found (`fromSeq`). Datagrams: the flow began within both recordings, or a datagram of one was found in the other.
   */
  placed = false;
  /** Not compared: a frame was cut, or it could not be placed. */
  leftOut = false;
  readonly late: LateWait[] = [];

  /* TCP. */
  /** Number of connections that each VM has begun with a SYN, and its latest SYN's number in its own recording. */
  primarySyns = 0;
  secondarySyns = 0;
  primaryIsn: number | null = null;
  secondaryIsn: number | null = null;
  /** The number of the client's latest SYN in each recording: one that both have begins within both. */
  primaryClientSyn: number | null = null;
  secondaryClientSyn: number | null = null;
  /** The wait of a SYN was over, and cost a checkpoint: the other VM's SYN may be missing in its recording. */
  synWait: SynWait | null = null;
  /** The connection whose SYNs, or one of them, lie before the part that is compared. */
  skippedSyns = 0;
  /** The SVM's numbers are the PVM's since a checkpoint in the recordings; null while neither is known. */
  countsAlike: boolean | null = null;
  /** What the SVM has sent in its own numbers since it is known how it counts. */
  readonly secondaryOwn = new OwnNumbers();
  /** What is added to the SVM's numbers, if the flow was placed by its bytes; null if its SYNs tell. */
  seqDelta: number | null = null;
  finder: StreamFinder | null = null;
  /** The first number that is compared of a flow that was placed in its middle. */
  fromSeq: number | null = null;
  /** The end of what each VM has sent. The SVM's is in its own numbers while the flow is not placed. */
  primaryEnd: number | null = null;
  secondaryEnd: number | null = null;
  /** What each VM has acknowledged: the PVM at most, the SVM last. */
  primaryAck: number | null = null;
  secondaryAck: number | null = null;
  /** Where the next bytes of each recording begin; null while that is not known. */
  primaryNext: number | null = null;
  secondaryNext: number | null = null;
  /** Payload bytes of the SVM's SYN, and the connection of which the SVM sent more before the PVM's SYN was known. */
  secondarySynBytes = 0;
  untrackedSyns = 0;
  /** The SVM's last ACK from before the compared part was handed to the comparator. */
  ackHanded = false;
  /** The PVM has reset the connection; and the number of its RSTs that left at a checkpoint, so that the SVM's come late. */
  primaryReset = false;
  resetsOwed = 0;
  /** Sums of the PVM's latest segments, and whether two were the same: a stream that repeats itself. */
  private sums: number[] = NO_SUMS;
  repeats = false;
  readonly gaps: Gap[] = [];

  /* Datagrams. */
  primaryDatagrams = 0;
  secondaryDatagrams = 0;
  /** A hash of the client's first datagram in each recording, if it came before any of the VM's. */
  primaryFirstInput: number | null = null;
  secondaryFirstInput: number | null = null;
  /** PVM datagrams that left without a counterpart: the SVM may send them later. */
  readonly awaitedFromSecondary = new RecentPayloads();
  /** SVM datagrams that were given up: the PVM may send them later. */
  readonly awaitedFromPrimary = new RecentPayloads();
  /** The same PVM datagrams as frames, oldest first. */
  readonly unmatched: StoredFrame[] = [];

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

  /** Both VMs' SYNs of the latest connection are known. */
  get synsKnown(): boolean {
    const { primaryIsn, secondaryIsn, primarySyns, secondarySyns } = this;
    return primaryIsn !== null && secondaryIsn !== null && primarySyns === secondarySyns;
  }

  /** The VM's port. */
  get localPort(): number {
    return localPort(this.key);
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

  /** Notes the sum of a PVM segment's first bytes. */
  noteSum(sum: number): void {
    if (this.repeats) return;
    if (this.sums === NO_SUMS) this.sums = [];
    this.repeats = this.sums.includes(sum);
    this.sums.push(sum);
    if (this.sums.length > SUMS_MAX) this.sums.shift();
  }

  /** Returns 0 while it is not known where the stream begins. */
  placeOf(seq: number): number {
    if (!this.positioned) return 0;
    return this.knownAt + seqDiff(seq, this.knownSeq);
  }

  forgetLate(finding: Finding): void {
    const at = this.late.findIndex((late) => late.finding === finding);
    if (at >= 0) this.late.splice(at, 1);
  }

  addLate(wait: LateWait): void {
    this.late.push(wait);
    if (this.late.length > LATE_WAITS_MAX) this.late.shift();
  }
}

export function oldest(frames: Set<StoredFrame>): StoredFrame | undefined {
  return frames.values().next().value;
}
