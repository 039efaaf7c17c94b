/**
 * The lock-step lane: two VMs that say the same bytes in the same segments, which is what they do nearly always.
 *
 * It takes data segments of an established connection that pair off one to one, and does in one go what tcp.ts does
 * in several: nothing is decided here that would not be decided there. What it does not take (returns false) goes
 * the general way, and finds the flow as it was, but for the SVM's ACK, which counts there too.
 *
 * A segment that finds its counterpart here is not held: it is compared where it lies.
 */
import { seqAdd, seqAtOrBefore } from '../flow/sequence.ts';
import type { SlabId } from '../units.ts';
import type { PacketView } from '../wire/packet.ts';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, TCP_URG } from '../wire/tcp.ts';
import { ackMayLeave, noteSvmAck } from './ack-rule.ts';
import type { Comparator } from './comparator.ts';
import type { ComparedFlow } from './flow-state.ts';
import { ACK, FLAGS, INDEX, NEXT, NONE, PAYLOAD_BYTES, SEQ, SEQ_END } from './held-frames.ts';
import { advanceTcp, noteReleasedAck, settleBytes, settlePendingAck } from './tcp.ts';

const SPECIAL = TCP_SYN | TCP_FIN | TCP_RST | TCP_URG;

/** The PVM's segment in `view`, which nothing of its flow waits before. True when it has left. */
export function pairWithSecondary(
  comparator: Comparator,
  flow: ComparedFlow,
  view: PacketView,
  slab: SlabId,
  at: number,
  length: number,
): boolean {
  const other = flow.secondary.head;
  if (other === NONE || !isPlainData(view)) return false;
  if (!isCounterpart(comparator, flow, view, slab, other)) return false;
  if (!ackMayLeave(flow, view.ack)) return false;
  advanceTo(comparator, flow, seqAdd(view.seq, view.payloadBytes), view.ack);
  comparator.releaseUnheld(slab, at, length);
  const { words } = comparator.frames;
  const index = words[other + INDEX];
  const ack = words[other + ACK];
  comparator.forgetSecondaryHead(flow);
  settleBytes(comparator, flow, index, TCP_ACK, ack);
  return true;
}

/** The SVM's segment in `view`, which nothing of its flow is queued before. True when its counterpart has left. */
export function pairWithPrimary(
  comparator: Comparator,
  flow: ComparedFlow,
  view: PacketView,
  slab: SlabId,
  index: number,
): boolean {
  const other = flow.primary.head;
  if (other === NONE || !isPlainData(view)) return false;
  if (!isCounterpart(comparator, flow, view, slab, other)) return false;
  const { words } = comparator.frames;
  const ack = words[other + ACK];
  // As on the general way: the SVM's word counts even where the pair has to wait for more of it.
  noteSvmAck(flow, view.ack);
  if (!ackMayLeave(flow, ack)) return false;
  advanceTo(comparator, flow, seqAdd(view.seq, view.payloadBytes), ack);
  const next = words[other + NEXT];
  comparator.releaseHead(flow, 'match');
  settleBytes(comparator, flow, index, TCP_ACK, view.ack);
  // A bare ACK or a retransmission behind it needs no bytes. New data does, and the SVM has said no more.
  if (next !== NONE && seqAtOrBefore(words[next + SEQ_END], flow.verified)) advanceTcp(comparator, flow);
  return true;
}

/** A segment of each VM, both unheld, in a flow of which nothing is held. True when the PVM's has left. */
export function pairUnheld(
  comparator: Comparator,
  flow: ComparedFlow,
  primary: PacketView,
  slab: SlabId,
  at: number,
  length: number,
  secondary: PacketView,
  secondarySlab: SlabId,
): boolean {
  const { seq, payload, payloadBytes } = secondary;
  if (!flow.isReleasedUpTo(seq) || primary.seq !== seq || primary.payloadBytes !== payloadBytes) return false;
  if (!comparator.sameUnheld(slab, primary.payload, secondarySlab, payload, payloadBytes)) return false;
  noteSvmAck(flow, secondary.ack);
  if (!ackMayLeave(flow, primary.ack)) return false;
  advanceTo(comparator, flow, seqAdd(seq, payloadBytes), primary.ack);
  comparator.releaseUnheld(slab, at, length);
  settleBytes(comparator, flow, 0, TCP_ACK, secondary.ack);
  return true;
}

export function isPlainData(view: PacketView): boolean {
  return view.payloadBytes > 0 && (view.tcpFlags & (SPECIAL | TCP_ACK)) === TCP_ACK;
}

function isCounterpart(
  comparator: Comparator,
  flow: ComparedFlow,
  view: PacketView,
  slab: SlabId,
  other: number,
): boolean {
  const { words } = comparator.frames;
  return (
    flow.isReleasedUpTo(view.seq) &&
    words[other + SEQ] === view.seq &&
    words[other + PAYLOAD_BYTES] === view.payloadBytes &&
    (words[other + FLAGS] & (SPECIAL | TCP_ACK)) === TCP_ACK &&
    comparator.sameAsHeld(other, slab, view.payload, view.payloadBytes)
  );
}

/** Both VMs have said the bytes up to `end`, and the client gets them now, with this ACK. */
function advanceTo(comparator: Comparator, flow: ComparedFlow, end: number, ack: number): void {
  flow.verified = end;
  flow.released = end;
  noteReleasedAck(flow, ack);
  settlePendingAck(comparator, flow, seqAtOrBefore(flow.pendingAck, flow.releasedAck));
}
