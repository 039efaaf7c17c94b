/**
 * The flows of a replay, and from which place on a TCP connection is compared.
 *
 * A connection whose SYN was seen is compared from there. One that began before is compared if the VMs' sequence numbers
 * are within NEAR_SEQ of each other, as they are after a real checkpoint: from the first number on that neither had
 * passed. If they are farther apart, it is left out. A connection with a frame that was cut is left out, too, until its
 * next SYN.
 */
import { FLOW_KEY_WORDS, writeOutputKey } from '../flow/key.ts';
import { seqAtOrBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import { FlowTable } from '../flow/table.ts';
import { PACKET, type PacketView } from '../wire/packet.ts';
import { TCP_SYN } from '../wire/tcp.ts';
import { FlowRecord } from './flow-record.ts';

/** Larger than usual windows: numbers farther apart have nothing to do with each other. */
const NEAR_SEQ = 1 << 23;

export class Placement {
  readonly counts = { flows: 0, flowsLeftOut: 0 };
  private readonly view: PacketView;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  private readonly table: FlowTable;
  private flows: FlowRecord[] = [];

  /** All methods are about the frame in `view`. */
  constructor(view: PacketView, flowsMax: number, hashSeed: number) {
    this.view = view;
    this.table = new FlowTable(flowsMax, hashSeed);
  }

  flowOf(bytes: Uint8Array): FlowRecord {
    writeOutputKey(bytes, this.view, this.key);
    let id = this.table.find(this.key);
    if (id >= 0) return this.flows[id];
    if (this.table.size === this.table.flowsMax) {
      // Stored frames have their own reference. A connection that continues is one that is first seen in its middle.
      this.table.clear();
      this.flows = [];
    }
    id = this.table.insert(this.key);
    this.counts.flows++;
    const flow = new FlowRecord(this.counts.flows, this.key, this.view.kind === PACKET.tcp);
    this.flows[id] = flow;
    return flow;
  }

  /** Notes a PVM segment. Returns true if it can be compared. */
  placePrimary(flow: FlowRecord): boolean {
    const { view } = this;
    const end = (view.seq + view.seqLength) | 0;
    if ((view.tcpFlags & TCP_SYN) !== 0) {
      if (!this.placeAtSyn(flow)) return false;
      flow.begin((view.seq + 1) | 0);
      flow.primaryEnd = end;
      return true;
    }
    flow.pass(view.seq);
    flow.primaryEnd = flow.primaryEnd === null ? end : seqMax(flow.primaryEnd, end);
    if (flow.placed) return !this.isBeforePlace(flow, end);
    this.placeInMiddle(flow);
    return false;
  }

  /** Notes an SVM segment. Returns true if it can be compared. */
  placeSecondary(flow: FlowRecord): boolean {
    const { view } = this;
    const end = (view.seq + view.seqLength) | 0;
    if ((view.tcpFlags & TCP_SYN) !== 0) return this.placeAtSyn(flow);
    if (flow.placed) return !this.isBeforePlace(flow, end);
    flow.secondaryEnd = flow.secondaryEnd === null ? end : seqMax(flow.secondaryEnd, end);
    this.placeInMiddle(flow);
    return false;
  }

  leaveOut(flow: FlowRecord): void {
    if (flow.leftOut) return;
    flow.leftOut = true;
    this.counts.flowsLeftOut++;
  }

  /** Returns false if a SYN before the compared part began the connection: this one repeats it, or is its counterpart. */
  private placeAtSyn(flow: FlowRecord): boolean {
    if (flow.synSkipped && !flow.placed) return false;
    if (flow.leftOut) this.takeIn(flow);
    flow.placed = true;
    flow.fromSeq = null;
    return true;
  }

  /** The counterpart of a segment before the flow's place is not known. */
  private isBeforePlace(flow: FlowRecord, end: number): boolean {
    return flow.fromSeq !== null && this.view.seqLength > 0 && seqAtOrBefore(end, flow.fromSeq);
  }

  private placeInMiddle(flow: FlowRecord): void {
    const { primaryEnd, secondaryEnd } = flow;
    if (primaryEnd === null || secondaryEnd === null || flow.leftOut) return;
    if (Math.abs(seqDiff(primaryEnd, secondaryEnd)) > NEAR_SEQ) {
      this.leaveOut(flow);
      return;
    }
    flow.placed = true;
    flow.fromSeq = seqMax(primaryEnd, secondaryEnd);
  }

  /** A new connection on the ports of one that was left out. */
  private takeIn(flow: FlowRecord): void {
    flow.leftOut = false;
    flow.synSkipped = false;
    this.counts.flowsLeftOut--;
  }
}
