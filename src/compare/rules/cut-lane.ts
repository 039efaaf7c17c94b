/**
 * The lane for segments that do not pair off one to one: two VMs that send the same bytes in order and cut them differently.
 *
 * It takes a plain PVM segment (`isPlainData`), the next of its stream, if the SVM's plain segments have all of it, each from
 * where the one before ended: first those that are queued, then those that were read and not handed in (turn.ts). As in the
 * lock-step lane (lockstep.ts) it decides nothing that tcp.ts would not decide alike, and a segment that it does not take goes the
 * general way and finds the flow as it was, except that ACKs of the SVM have been recorded.
 *
 *     PVM segment   SVM segments        entry
 *     arrives       queued              takePrimary
 *     read          queued, then read   takeRead
 *     held          queued, then read   takeHeld
 *
 * Of the SVM's read segments those that end within the PVM's, or with it, are done with and were never held. The last one may
 * reach beyond: it stays where it was read, and the next PVM segment begins within it.
 *
 * Limits: no more than READ_SEGMENTS_MAX read segments make up one of the PVM. A segment that is not taken is compared again on
 * the general way, once; one whose SVM segments end before it does, once in a turn.
 */
import { ofOneFlow } from '../../flow/key.ts';
import { seqAdd, seqAtOrBefore, seqDiff } from '../../flow/sequence.ts';
import type { Framing } from '../../frames/frame-reader.ts';
import type { FrameId, Seq, SlabId } from '../../units.ts';
import { PACKET, PacketView } from '../../wire/packet.ts';
import { TCP_ACK } from '../../wire/tcp.ts';
import { noteSvmAck } from '../ack-rule.ts';
import { FrameParser } from '../frame-parser.ts';
import {
  AT,
  FLAGS,
  LENGTH,
  NEXT,
  NO_FRAME,
  PAYLOAD,
  PAYLOAD_BYTES,
  SLAB,
  WAITS,
  WAITS_FOR,
} from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import type { ReadFrames } from '../read-frames.ts';
import { isPlainData, PLAIN_DATA_MASK, TAKEN, type Taken } from './lockstep.ts';
import { settleAck } from './tcp-acks.ts';
import type { TcpExit } from './tcp-exit.ts';
import { ACK, type HeldTcpFlow, SEQ, SEQ_END, WINDOW_SHIFT } from './tcp-flow.ts';
import type { TcpQueue } from './tcp-queue.ts';

const READ_SEGMENTS_MAX = 64;

export class CutLane {
  private readonly holding: Holding;
  private readonly exit: TcpExit;
  private readonly queue: TcpQueue;
  private readonly parser: FrameParser;
  /** of the read SVM segments, one after the other */
  private readonly view = new PacketView();
  /* The PVM's segment. */
  private slab = 0 as SlabId;
  private at = 0;
  private length = 0;
  private seq = 0 as Seq;
  private payload = 0;
  private payloadBytes = 0;
  /** how many of its first bytes the SVM's segments have, as far as they were compared */
  private sameBytes = 0;
  /* The SVM's read segments that have bytes of it: how many, how many of them end within it or with it, ACK and window of each. */
  private readSegments = 0;
  private doneSegments = 0;
  private readonly acks = new Int32Array(READ_SEGMENTS_MAX);
  private readonly windows = new Int32Array(READ_SEGMENTS_MAX);

  constructor(holding: Holding, exit: TcpExit, queue: TcpQueue, framing: Framing) {
    this.holding = holding;
    this.exit = exit;
    this.queue = queue;
    this.parser = new FrameParser(holding.slabs, framing);
  }

  /** A PVM segment, where none of its flow is held. Returns true if it is released. */
  takePrimary(flow: HeldTcpFlow, packet: PacketView, slab: SlabId, at: number, length: number): boolean {
    const { holding } = this;
    if (flow.secondary.head === NO_FRAME || !isPlainData(packet, holding.slabs.buffer(slab))) return false;
    this.begin(packet, slab, at, length);
    this.readSegments = 0;
    if (!this.compareQueued(flow) || this.sameBytes < this.payloadBytes) return false;
    if (!this.advance(flow, packet.ack as Seq, packet.tcpWindow)) return false;
    holding.releaseUnheld(slab, at, length);
    this.queue.dropReleased();
    return true;
  }

  /**
   * A plain PVM segment, where none of its flow is held; `first` is the first of the SVM's read ones, which is plain, too. On `yes` it
   * is released, and `read.next` moved past the SVM segments that are done with. `short`: the SVM's read ones end before it does.
   */
  takeRead(
    flow: HeldTcpFlow,
    packet: PacketView,
    slab: SlabId,
    at: number,
    length: number,
    first: PacketView,
    read: ReadFrames,
  ): Taken {
    this.begin(packet, slab, at, length);
    const taken = this.compareRead(flow, first, read);
    if (taken !== TAKEN.yes) return taken;
    if (!this.advance(flow, packet.ack as Seq, packet.tcpWindow)) return TAKEN.no;
    this.holding.releaseUnheld(slab, at, length);
    this.settle(flow, read);
    return TAKEN.yes;
  }

  /** The same for the PVM segment that is held at the head of its flow. `more`: the next one needs no bytes that the SVM has yet to send. */
  takeHeld(flow: HeldTcpFlow, first: PacketView, read: ReadFrames): Taken {
    const { holding } = this;
    const { words } = holding.frames;
    const id = flow.primary.head;
    if ((words[id + FLAGS] & PLAIN_DATA_MASK) !== TCP_ACK || words[id + WAITS] === WAITS_FOR.ack)
      return TAKEN.no;
    // It is tried with each SVM segment: with more of them queued, its beginning would be compared each time.
    if (flow.secondary.head !== flow.secondary.tail) return TAKEN.no;
    this.slab = words[id + SLAB] as SlabId;
    this.at = words[id + AT];
    this.length = words[id + LENGTH];
    this.seq = words[id + SEQ] as Seq;
    this.payload = words[id + PAYLOAD];
    this.payloadBytes = words[id + PAYLOAD_BYTES];
    const taken = this.compareRead(flow, first, read);
    if (taken !== TAKEN.yes) return taken;
    if (!this.advance(flow, words[id + ACK] as Seq, words[id + FLAGS] >>> WINDOW_SHIFT)) return TAKEN.no;
    const next = words[id + NEXT] as FrameId;
    holding.releaseHead(flow.primary);
    this.settle(flow, read);
    if (next === NO_FRAME) return TAKEN.yes;
    if (seqAtOrBefore(words[next + SEQ_END] as Seq, flow.verified)) return TAKEN.more;
    words[next + WAITS] = WAITS_FOR.bytes;
    return TAKEN.yes;
  }

  private begin(packet: PacketView, slab: SlabId, at: number, length: number): void {
    this.slab = slab;
    this.at = at;
    this.length = length;
    this.seq = packet.seq as Seq;
    this.payload = packet.payload;
    this.payloadBytes = packet.payloadBytes;
  }

  /** Compares with the SVM's queued segments. Returns false if one of them is not plain, not in order, or different. */
  private compareQueued(flow: HeldTcpFlow): boolean {
    this.sameBytes = 0;
    if (!flow.isReleasedFrom(this.seq, seqAdd(this.seq, this.payloadBytes))) return false;
    const { words } = this.holding.frames;
    let id = flow.secondary.head;
    while (id !== NO_FRAME && this.sameBytes < this.payloadBytes) {
      if ((words[id + FLAGS] & PLAIN_DATA_MASK) !== TCP_ACK) return false;
      const slab = words[id + SLAB] as SlabId;
      if (!this.hasNext(words[id + SEQ] as Seq, slab, words[id + PAYLOAD], words[id + PAYLOAD_BYTES]))
        return false;
      this.queue.visits++;
      id = words[id + NEXT] as FrameId;
    }
    return true;
  }

  /** Compares with the SVM's queued segments, and then with those that were read. */
  private compareRead(flow: HeldTcpFlow, first: PacketView, read: ReadFrames): Taken {
    this.readSegments = 0;
    this.doneSegments = 0;
    if (!this.compareQueued(flow)) return TAKEN.no;
    const { slabs } = this.holding;
    const firstBytes = slabs.buffer(read.slabOf(read.next));
    let view = first;
    for (let row = read.next; this.sameBytes < this.payloadBytes; row = read.after(row)) {
      if (row === read.end) return TAKEN.short;
      const slab = read.slabOf(row);
      if (row !== read.next) {
        view = this.view;
        const bytes = slabs.buffer(slab);
        const kind = this.parser.parse(slab, read.offsetOf(row), read.lengthOf(row), view);
        if (kind !== PACKET.tcp || !isPlainData(view, bytes)) return TAKEN.no;
        if (!ofOneFlow(firstBytes, first, bytes, view)) return TAKEN.no;
      }
      if (this.readSegments === READ_SEGMENTS_MAX) return TAKEN.no;
      if (!this.hasNext(view.seq as Seq, slab, view.payload, view.payloadBytes)) return TAKEN.no;
      this.acks[this.readSegments] = view.ack;
      this.windows[this.readSegments++] = view.tcpWindow;
      if (seqDiff(view.seq as Seq, this.seq) + view.payloadBytes <= this.payloadBytes) this.doneSegments++;
    }
    return TAKEN.yes;
  }

  /** Returns true if an SVM segment has the PVM's next bytes: as many as both have. */
  private hasNext(seq: Seq, slab: SlabId, payload: number, payloadBytes: number): boolean {
    const { sameBytes } = this;
    const skip = seqDiff(this.seq, seq) + sameBytes;
    const bytes = Math.min(this.payloadBytes - sameBytes, payloadBytes - skip);
    if (skip < 0 || bytes <= 0) return false;
    if (!this.holding.slabs.same(this.slab, this.payload + sameBytes, slab, payload + skip, bytes))
      return false;
    this.sameBytes = sameBytes + bytes;
    return true;
  }

  /** The SVM has sent all of the PVM's segment: records its ACKs. If the PVM's may leave, records what the client has now. */
  private advance(flow: HeldTcpFlow, ack: Seq, window: number): boolean {
    for (let i = 0; i < this.readSegments; i++) noteSvmAck(flow, this.acks[i] as Seq, this.windows[i]);
    if (!this.exit.mayLeave(this.slab, this.at, this.length, ack)) return false;
    flow.advanceTo(seqAdd(this.seq, this.payloadBytes));
    this.exit.tell(this.slab, this.at, this.length, ack, window);
    return true;
  }

  /** Drops and confirms the SVM segments of which the client has all. */
  private settle(flow: HeldTcpFlow, read: ReadFrames): void {
    this.queue.dropReleased();
    for (let i = 0; i < this.doneSegments; i++) {
      settleAck(this.holding, flow, read.indexOf(read.next), this.acks[i] as Seq);
      read.toNext();
    }
    if (this.readSegments > this.doneSegments) read.isBegun = true;
  }
}
