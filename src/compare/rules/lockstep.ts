/**
 * The lock-step lane of TCP's rule: two VMs that send the same bytes in the same segments, as they do nearly always.
 *
 * It takes data segments of an established connection that pair off one to one, and does in one step what tcp.ts does in
 * several: it decides nothing that tcp.ts would not decide alike. A segment that it does not take goes the general way, and
 * finds the flow as it was, except that the SVM's ACK has been recorded, as it would be there. A segment that finds its
 * counterpart here is not held: it is compared where it lies.
 *
 * A segment of each VM may be held or not, which makes three ways of one rule:
 *
 *     PVM segment   SVM segment   entry
 *     arrives       held          takePrimary
 *     held          arrives       takeSecondary
 *     arrives       arrives       takePair
 *
 * All three ask the same: is this the next byte of both streams (`isReleasedUpTo`), are the bytes the same, may the ACK leave
 * (ack-rule.ts)? And all three end alike (`advanceTo`, the release, `settleAck`). Most pairs acknowledge nothing new (`isTold`): then
 * there is no ACK to note, to release or to settle.
 *
 * The caller positions the flow and hands it in: V8 then knows that it is one object, and reads its row number once.
 *
 * Segments that the VMs cut differently have a lane of their own (cut-lane.ts). A comparator can be made without both; a test plays
 * the same traffic with them and without.
 */
import { seqAdd, seqAtOrBefore } from '../../flow/sequence.ts';
import type { FrameId, Seq, SlabId } from '../../units.ts';
import type { PacketView } from '../../wire/packet.ts';
import type { TwinView } from '../../wire/quick-tcp.ts';
import { TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, TCP_URG } from '../../wire/tcp.ts';
import { ackMayLeave, noteSvmAck } from '../ack-rule.ts';
import {
  AT,
  FLAGS,
  INDEX,
  LENGTH,
  NEXT,
  NO_FRAME,
  PAYLOAD_BYTES,
  SLAB,
  WAITS,
  WAITS_FOR,
} from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { isStamped, USUAL_OPTIONS_BYTES } from './binding.ts';
import { releaseAck, settleAck } from './tcp-acks.ts';
import type { TcpExit } from './tcp-exit.ts';
import { ACK, BINDING, type HeldTcpFlow, SEQ, SEQ_END, WINDOW_SHIFT } from './tcp-flow.ts';

/** Of a held segment's FLAGS: only TCP_ACK is set if it is plain data, as `isPlainData` says. */
export const PLAIN_DATA_MASK = TCP_SYN | TCP_FIN | TCP_RST | TCP_URG | TCP_ACK | BINDING;
const STAMPED_HEADER_BYTES = TCP.headerBytesMin + USUAL_OPTIONS_BYTES;

/**
 * Whether a lane took a segment. `more`: the other side's next segment has no bytes after those that are released now, so it may be
 * done with, too. `short`: not yet, the SVM's segments end before it does (cut-lane.ts).
 */
export const TAKEN = { no: 0, yes: 1, more: 2, short: 3 } as const;
export type Taken = (typeof TAKEN)[keyof typeof TAKEN];

/**
 * Returns true for a segment that has data and an ACK, and nothing else that would have to be compared: no option but timestamps
 * (binding.ts). `bytes` has the segment.
 */
export function isPlainData(packet: PacketView, bytes: Uint8Array): boolean {
  if (packet.payloadBytes <= 0 || (packet.tcpFlags & PLAIN_DATA_MASK) !== TCP_ACK) return false;
  const headerBytes = packet.payload - packet.l4;
  return (
    headerBytes === TCP.headerBytesMin || (headerBytes === STAMPED_HEADER_BYTES && isStamped(bytes, packet))
  );
}

export class LockstepLane {
  private readonly holding: Holding;
  private readonly exit: TcpExit;

  constructor(holding: Holding, exit: TcpExit) {
    this.holding = holding;
    this.exit = exit;
  }

  /** A PVM segment, where none of its flow is held. Unless it is not taken, it is released. */
  takePrimary(flow: HeldTcpFlow, packet: PacketView, slab: SlabId, at: number, length: number): Taken {
    const { holding } = this;
    const other = flow.secondary.head;
    if (other === NO_FRAME || !isPlainData(packet, holding.slabs.buffer(slab))) return TAKEN.no;
    if (!this.isCounterpart(flow, packet, slab, other)) return TAKEN.no;
    const ack = packet.ack as Seq;
    if (!ackMayLeave(flow, ack)) return TAKEN.no;
    flow.advanceTo(seqAdd(packet.seq as Seq, packet.payloadBytes));
    if (packet.tcpWindow <= flow.svmWindow) releaseAck(holding, flow, ack, packet.tcpWindow);
    else this.exit.tell(slab, at, length, ack, packet.tcpWindow);
    holding.releaseUnheld(slab, at, length);
    const { words } = holding.frames;
    const index = words[other + INDEX];
    const svmAck = words[other + ACK] as Seq;
    if (flow.cursor === other) flow.cursor = NO_FRAME;
    holding.dropHead(flow.secondary);
    settleAck(holding, flow, index, svmAck);
    const next = flow.secondary.head;
    // An SVM retransmission that was queued after the segment has nothing that the client lacks.
    const more = next !== NO_FRAME && seqAtOrBefore(words[next + SEQ_END] as Seq, flow.released);
    return more ? TAKEN.more : TAKEN.yes;
  }

  /** An SVM segment, where none of its flow is queued. Unless it is not taken, its PVM counterpart is released. */
  takeSecondary(flow: HeldTcpFlow, packet: PacketView, slab: SlabId, index: number): Taken {
    const { holding } = this;
    const other = flow.primary.head;
    if (other === NO_FRAME || !isPlainData(packet, holding.slabs.buffer(slab))) return TAKEN.no;
    if (!this.isCounterpart(flow, packet, slab, other)) return TAKEN.no;
    const { words } = holding.frames;
    const ack = words[other + ACK] as Seq;
    const svmAck = packet.ack as Seq;
    // As on the general way: the SVM's ACK counts even where the pair has to wait for a later one.
    noteSvmAck(flow, svmAck, packet.tcpWindow);
    if (!ackMayLeave(flow, ack)) return TAKEN.no;
    const window = words[other + FLAGS] >>> WINDOW_SHIFT;
    flow.advanceTo(seqAdd(packet.seq as Seq, packet.payloadBytes));
    if (window <= flow.svmWindow) releaseAck(holding, flow, ack, window);
    else this.exit.tell(words[other + SLAB] as SlabId, words[other + AT], words[other + LENGTH], ack, window);
    const next = words[other + NEXT] as FrameId;
    holding.releaseHead(flow.primary);
    settleAck(holding, flow, index, svmAck);
    if (next === NO_FRAME) return TAKEN.yes;
    // A bare ACK or a retransmission needs no bytes. New data does, and the SVM has sent no more.
    if (seqAtOrBefore(words[next + SEQ_END] as Seq, flow.verified)) return TAKEN.more;
    words[next + WAITS] = WAITS_FOR.bytes;
    return TAKEN.yes;
  }

  /** A segment of each VM, none of whose flow is held or queued. Returns true if the PVM's is released. */
  takePair(
    flow: HeldTcpFlow,
    primary: TwinView,
    slab: SlabId,
    at: number,
    length: number,
    secondary: PacketView,
    svmSlab: SlabId,
    svmIndex: number,
  ): boolean {
    const { holding } = this;
    const { seq, payload, payloadBytes } = secondary;
    if (!flow.isReleasedUpTo(seq as Seq) || primary.seq !== seq || primary.payloadBytes !== payloadBytes)
      return false;
    if (!holding.slabs.same(slab, primary.payload, svmSlab, payload, payloadBytes)) return false;
    const svmAck = secondary.ack as Seq;
    if (
      primary.ack === svmAck &&
      primary.tcpWindow === secondary.tcpWindow &&
      flow.isTold(svmAck, secondary.tcpWindow)
    ) {
      flow.advanceTo(seqAdd(seq as Seq, payloadBytes));
      holding.releaseUnheld(slab, at, length);
      holding.sink.confirm(svmIndex);
      return true;
    }
    noteSvmAck(flow, svmAck, secondary.tcpWindow);
    if (!ackMayLeave(flow, primary.ack as Seq)) return false;
    flow.advanceTo(seqAdd(seq as Seq, payloadBytes));
    if (primary.tcpWindow <= flow.svmWindow) releaseAck(holding, flow, primary.ack as Seq, primary.tcpWindow);
    else this.exit.tell(slab, at, length, primary.ack as Seq, primary.tcpWindow);
    holding.releaseUnheld(slab, at, length);
    settleAck(holding, flow, svmIndex, svmAck);
    return true;
  }

  /** Returns true if the held plain segment `other` has the same place and bytes, and that place is the next of both streams. */
  private isCounterpart(flow: HeldTcpFlow, packet: PacketView, slab: SlabId, other: FrameId): boolean {
    const { holding } = this;
    const { words } = holding.frames;
    return (
      flow.isReleasedUpTo(packet.seq as Seq) &&
      words[other + SEQ] === packet.seq &&
      words[other + PAYLOAD_BYTES] === packet.payloadBytes &&
      (words[other + FLAGS] & PLAIN_DATA_MASK) === TCP_ACK &&
      holding.sameAsHeld(other, slab, packet.payload, packet.payloadBytes)
    );
  }
}
