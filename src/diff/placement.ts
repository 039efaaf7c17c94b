/**
 * The flows of a replay, and from which place on a TCP connection is compared.
 *
 * A connection whose SYNs both recordings have is compared from there. One that began before a recording, or whose SYN a
 * recording lost, is compared once the same bytes are found in both (stream-finder.ts): from where both recordings have all that
 * follows (earlier-segments.ts). If its SYNs are known although they are not compared, or if the SVM's recording is in
 * the PVM's numbers, its place is known as soon as both VMs have sent a segment.
 *
 * A reset by which a VM refuses a connection that it does not know needs no place.
 *
 * A connection that cannot be placed, or that has a frame that was cut, is left out until its next SYN.
 */
import { FLOW_KEY_WORDS, writeInputKey, writeOutputKey } from '../flow/key.ts';
import { seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import { FlowTable } from '../flow/table.ts';
import { PACKET, type PacketView } from '../wire/packet.ts';
import { TCP_ACK, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { FlowRecord } from './flow-record.ts';
import type { Side } from './report.ts';
import { StreamFinder } from './stream-finder.ts';

/** Larger than usual windows: numbers farther apart have nothing to do with each other. */
export const NEAR_SEQ = 1 << 23;

/**
 * What to do with a segment. `abandon`: a recording lacks the connection's SYN, so what is held of it cannot be compared before
 * the connection is placed; nor can the segment itself.
 */
export type Place = 'compare' | 'leave-out' | 'abandon';

export class Placement {
  private readonly counts = { flows: 0, flowsLeftOut: 0, flowsSearched: 0 };
  private readonly view: PacketView;
  private readonly translating: boolean;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  private readonly table: FlowTable;
  private flows: FlowRecord[] = [];
  private created = 0;

  private readonly onForget: (flow: FlowRecord) => void;

  /**
   * All methods are about the frame in `view`. `translating`: the SVM's recording is in its own numbers. `onForget` is called
   * with each flow that is forgotten because the table is full.
   */
  constructor(options: {
    view: PacketView;
    flowsMax: number;
    hashSeed: number;
    translating: boolean;
    onForget: (flow: FlowRecord) => void;
  }) {
    const { view, flowsMax, hashSeed, translating } = options;
    this.onForget = options.onForget;
    this.view = view;
    this.translating = translating;
    this.table = new FlowTable(flowsMax, hashSeed);
  }

  /** Number of flows, and of those that were not compared, or not to their end. */
  get flowCounts(): { flows: number; flowsLeftOut: number } {
    const { flows, flowsLeftOut, flowsSearched } = this.counts;
    return { flows, flowsLeftOut: flowsLeftOut + flowsSearched };
  }

  /** The flows that have not been forgotten. */
  get known(): readonly FlowRecord[] {
    return this.flows;
  }

  /** Returns the flow of a VM's frame. */
  flowOf(bytes: Uint8Array): FlowRecord {
    writeOutputKey(bytes, this.view, this.key);
    const flow = this.find();
    if (!flow.counted) this.counts.flows++;
    flow.counted = true;
    return flow;
  }

  /** Returns the flow of a client's frame. */
  flowOfInput(bytes: Uint8Array): FlowRecord {
    writeInputKey(bytes, this.view, this.key);
    return this.find();
  }

  /** Notes a client's segment, if it begins a connection. */
  noteClientSyn(side: Side, bytes: Uint8Array): void {
    const { tcpFlags, seq } = this.view;
    if ((tcpFlags & (TCP_SYN | TCP_ACK)) !== TCP_SYN) return;
    const flow = this.flowOfInput(bytes);
    if (side === 'primary') flow.primaryClientSyn = seq;
    else flow.secondaryClientSyn = seq;
  }

  /** Notes a PVM segment. */
  placePrimary(flow: FlowRecord, bytes: Uint8Array): Place {
    const { view } = this;
    const end = (view.seq + view.seqLength) | 0;
    const isSyn = (view.tcpFlags & TCP_SYN) !== 0;
    if ((view.tcpFlags & TCP_ACK) !== 0)
      flow.primaryAck =
        isSyn || flow.primaryAck === null ? view.ack : seqMax<number>(flow.primaryAck, view.ack);
    if (isSyn) {
      const isNew = this.noteSyn(flow, 'primary', view.seq);
      const lacksOther = flow.secondarySyns < flow.primarySyns && this.isGoingOn(flow, flow.secondaryAck);
      if (isNew && lacksOther) this.lackSyn(flow, 'secondary');
      else if (isNew) this.beginAtSyn(flow, 'primary');
      if (isNew) flow.primaryEnd = end;
      return flow.placed && !flow.leftOut ? 'compare' : 'leave-out';
    }
    if (this.isRefusal(flow, flow.primarySyns < flow.secondarySyns)) return 'compare';
    const first = flow.primaryEnd === null;
    flow.pass(view.seq);
    flow.primaryEnd = flow.primaryEnd === null ? end : seqMax(flow.primaryEnd, end);
    if (flow.leftOut) return 'leave-out';
    if (flow.placed) {
      if (!first || flow.secondarySyns <= flow.primarySyns) return this.fromPlaceOn(flow, end);
      // The SVM's SYN is there, but the PVM's is not.
      this.lackSyn(flow, 'primary');
      return 'abandon';
    }
    this.search(flow, 'primary', bytes);
    return 'leave-out';
  }

  /** Notes an SVM segment, which is in the PVM's numbers if they are known. `recordedSeq` is its own number. */
  placeSecondary(flow: FlowRecord, bytes: Uint8Array, recordedSeq: number): Place {
    const { view } = this;
    const end = (view.seq + view.seqLength) | 0;
    if ((view.tcpFlags & TCP_ACK) !== 0) flow.secondaryAck = view.ack;
    if ((view.tcpFlags & TCP_SYN) !== 0) {
      const isNew = this.noteSyn(flow, 'secondary', recordedSeq);
      const lacksOther = flow.primarySyns < flow.secondarySyns && this.isGoingOn(flow, flow.primaryAck);
      if (isNew && lacksOther) this.lackSyn(flow, 'primary');
      else if (isNew) this.beginAtSyn(flow, 'secondary');
      return flow.placed && !flow.leftOut ? 'compare' : 'leave-out';
    }
    if (this.isRefusal(flow, flow.secondarySyns < flow.primarySyns)) return 'compare';
    const first = flow.secondaryEnd === null;
    flow.secondaryEnd = flow.secondaryEnd === null ? end : seqMax(flow.secondaryEnd, end);
    if (flow.leftOut) return 'leave-out';
    if (flow.placed) {
      if (!first || flow.primarySyns <= flow.secondarySyns) return this.fromPlaceOn(flow, end);
      this.lackSyn(flow, 'secondary');
      return 'abandon';
    }
    this.search(flow, 'secondary', bytes);
    return 'leave-out';
  }

  /** Notes a SYN from before the part that is compared. */
  skipSyn(flow: FlowRecord, side: Side): void {
    this.noteSyn(flow, side, this.view.seq);
    flow.skippedSyns = Math.max(flow.primarySyns, flow.secondarySyns);
  }

  /** The recordings do not have enough of the flow to compare it from its SYN. */
  unplace(flow: FlowRecord): void {
    flow.placed = false;
    flow.secondaryEnd = null;
    flow.primaryNext = null;
    flow.secondaryNext = null;
    flow.fromSeq = null;
    flow.seqDelta = null;
    flow.secondaryOwn.begin(null);
    flow.ackHanded = false;
  }

  leaveOut(flow: FlowRecord): void {
    if (flow.leftOut) return;
    this.endSearch(flow);
    flow.leftOut = true;
    this.counts.flowsLeftOut++;
  }

  private find(): FlowRecord {
    let id = this.table.find(this.key);
    if (id >= 0) return this.flows[id];
    if (this.table.size === this.table.flowsMax) {
      // Stored frames have their own reference. A connection that continues is one that is first seen in its middle.
      for (const flow of this.flows) this.onForget(flow);
      this.table.clear();
      this.flows = [];
    }
    id = this.table.insert(this.key);
    const flow = new FlowRecord(++this.created, this.key, this.view.kind === PACKET.tcp);
    this.flows[id] = flow;
    return flow;
  }

  /** Returns true if the SYN begins a connection, and is not repeated. */
  private noteSyn(flow: FlowRecord, side: Side, isn: number): boolean {
    if (isn === (side === 'primary' ? flow.primaryIsn : flow.secondaryIsn)) return false;
    flow.synWait = null;
    if (side === 'primary') {
      flow.primarySyns = Math.max(flow.primarySyns + 1, flow.secondarySyns);
      flow.primaryIsn = isn;
      if (flow.secondarySyns < flow.primarySyns) flow.secondaryIsn = null;
      return true;
    }
    flow.secondarySyns = Math.max(flow.secondarySyns + 1, flow.primarySyns);
    flow.secondaryIsn = isn;
    return true;
  }

  /**
   * Returns true if the connection that the SYN in the view begins is being searched: the other VM, which has acknowledged as much of
   * the client's stream, has sent segments of it, and its recording lacks the SYN.
   */
  private isGoingOn({ placed }: FlowRecord, acked: number | null): boolean {
    const { ack, tcpFlags } = this.view;
    if (placed || acked === null || (tcpFlags & TCP_ACK) === 0) return false;
    const bytes = seqDiff(acked, ack);
    return bytes >= 0 && bytes < NEAR_SEQ;
  }

  /** The side's recording lacks the SYN of the latest connection, but has what follows it. */
  private lackSyn(flow: FlowRecord, side: Side): void {
    if (side === 'primary') {
      flow.primarySyns = flow.secondarySyns;
      flow.primaryIsn = null;
    } else {
      flow.secondarySyns = flow.primarySyns;
      flow.secondaryIsn = null;
    }
    this.unplace(flow);
  }

  private beginAtSyn(flow: FlowRecord, side: Side): void {
    this.endSearch(flow);
    // The other VM's SYN was skipped: the connection is placed in its middle.
    if (flow.skippedSyns === Math.max(flow.primarySyns, flow.secondarySyns)) {
      if (flow.primarySyns === flow.secondarySyns) this.unplace(flow);
      return;
    }
    if (flow.leftOut) this.counts.flowsLeftOut--;
    flow.leftOut = false;
    flow.placed = true;
    flow.fromSeq = null;
    flow.seqDelta = null;
    flow.ackHanded = false;
    if (side === 'secondary') return;
    const { view } = this;
    flow.begin((view.seq + 1) | 0);
    flow.primaryNext = (view.seq + view.seqLength) | 0;
    flow.secondaryNext = null;
  }

  /**
   * Returns true if the segment in the view is the reset of a VM that knows no such connection, which has none of the VM's
   * numbers (RFC 9293 section 3.10.7.1): it is compared without a place. `isBehind`: only the other VM has begun the latest one.
   */
  private isRefusal({ placed, leftOut }: FlowRecord, isBehind: boolean): boolean {
    const { tcpFlags, seq } = this.view;
    if ((tcpFlags & TCP_RST) === 0 || leftOut || (placed && !isBehind)) return false;
    return (tcpFlags & TCP_ACK) === 0 || seq === 0;
  }

  /** The counterpart of a segment before the flow's place is not known. */
  private fromPlaceOn(flow: FlowRecord, end: number): Place {
    const { fromSeq } = flow;
    const { seq } = this.view;
    if (fromSeq === null) return 'compare';
    if (seqDiff(seq, fromSeq) > NEAR_SEQ) flow.fromSeq = null;
    else if (seqBefore(seq, fromSeq) && seqAtOrBefore(end, fromSeq)) return 'leave-out';
    return 'compare';
  }

  private search(flow: FlowRecord, side: Side, bytes: Uint8Array): void {
    const { view } = this;
    if (!this.translating || flow.synsKnown) {
      this.placeInMiddle(flow, 0);
      return;
    }
    if (flow.finder === null) {
      flow.finder = new StreamFinder();
      this.counts.flowsSearched++;
    }
    const { seq, ack, payload, payloadBytes } = view;
    const distance = flow.finder.add(side, { seq, ack, bytes, at: payload, length: payloadBytes });
    if (distance !== null) {
      flow.seqDelta = distance;
      flow.secondaryOwn.begin(flow.secondaryEnd);
      this.placeInMiddle(flow, distance);
    } else if (flow.finder.isHopeless) this.leaveOut(flow);
  }

  private placeInMiddle(flow: FlowRecord, distance: number): void {
    const { primaryEnd, secondaryEnd } = flow;
    if (primaryEnd === null || secondaryEnd === null) return;
    const end = (secondaryEnd + distance) | 0;
    if (Math.abs(seqDiff(primaryEnd, end)) > NEAR_SEQ) {
      this.leaveOut(flow);
      return;
    }
    this.endSearch(flow);
    flow.placed = true;
    flow.secondaryEnd = end;
    flow.fromSeq = seqMax(primaryEnd, end);
    flow.primaryNext = flow.fromSeq;
    flow.secondaryNext = flow.fromSeq;
  }

  private endSearch(flow: FlowRecord): void {
    if (flow.finder !== null) this.counts.flowsSearched--;
    flow.finder = null;
  }
}
