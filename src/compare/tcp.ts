/**
 * Comparing TCP, by byte stream.
 *
 * Goal: a PVM segment leaves when the SVM has produced the same bytes at the same place of the stream, whatever
 * the segmentation on either side; when its ACK is covered (ack-rule.ts); and when SYN, FIN and RST agree.
 *
 * Tracked per flow, in the client's sequence space: `verified` (both VMs have produced the same up to here),
 * `released` (the client may have seen it), `svmAck`. FIN takes one sequence number behind the last byte and is
 * compared like one. SVM frames stay queued until the client has their bytes from the PVM.
 *
 * Tolerated, because a TCP receiver cannot tell or does not care: segmentation, overlap, retransmission, pushes,
 * windows, options, timestamps, IP ids, and the SVM being ahead. Not tolerated: other bytes at one place, a FIN or
 * data where the other has the contrary, one SYN with ACK against one without.
 *
 * PVM frames of one flow leave in order. A frame whose place in the stream cannot be reached waits, and a wait
 * that grows too long ends in a checkpoint, as does everything that this file does not understand.
 */
import { seqAdd, seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import { TCP_ACK, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { ackMayLeave, noteSvmAck } from './ack-rule.ts';
import type { Comparator } from './comparator.ts';
import type { ComparedFlow } from './flow-state.ts';
import {
  ACK,
  FLAGS,
  INDEX,
  NEXT,
  NONE,
  PAYLOAD_BYTES,
  SEQ,
  SEQ_END,
  WAITS,
  WAITS_FOR,
} from './held-frames.ts';
import { VERDICT, type Verdict } from './verdict.ts';

/** A PVM segment was queued or the SVM has moved: release what may leave now. */
export function advanceTcp(comparator: Comparator, flow: ComparedFlow): void {
  while (flow.primary.head !== NONE && !flow.diverged) {
    const id = flow.primary.head;
    const verdict = judge(comparator, flow, id);
    if (verdict !== VERDICT.match) return;
    noteReleased(comparator, flow, id);
    comparator.releaseHead(flow, 'match');
  }
}

function judge(comparator: Comparator, flow: ComparedFlow, id: number): Verdict {
  const { frames } = comparator;
  const flags = frames.words[id + FLAGS];
  if ((flags & TCP_RST) !== 0)
    return firstReset(comparator, flow) === NONE ? waitFor(comparator, id, WAITS_FOR.bytes) : VERDICT.match;
  if ((flags & TCP_SYN) !== 0) return judgeSyn(comparator, flow, id);

  if (!flow.positioned) positionAt(flow, frames.words[id + SEQ]);
  const verdict = verify(comparator, flow, id);
  if (verdict !== VERDICT.match) return verdict;
  if ((flags & TCP_ACK) !== 0 && !ackMayLeave(flow, frames.words[id + ACK]))
    return waitFor(comparator, id, WAITS_FOR.ack);
  return VERDICT.match;
}

function waitFor(comparator: Comparator, id: number, what: number): Verdict {
  comparator.frames.words[id + WAITS] = what;
  return VERDICT.wait;
}

function judgeSyn(comparator: Comparator, flow: ComparedFlow, id: number): Verdict {
  const { frames } = comparator;
  const flags = frames.words[id + FLAGS];
  if (!(flow.synAgreed && frames.words[id + SEQ] === flow.isn)) {
    // A new connection. Whatever the SVM said before its own SYN belongs to an older one on the same ports.
    let syn = flow.secondary.head;
    while (syn !== NONE && (frames.words[syn + FLAGS] & TCP_SYN) === 0) syn = frames.words[syn + NEXT];
    if (syn === NONE) return waitFor(comparator, id, WAITS_FOR.bytes);
    const contrary = ((frames.words[syn + FLAGS] ^ flags) & TCP_ACK) !== 0;
    const carriesData = frames.words[id + PAYLOAD_BYTES] > 0 || frames.words[syn + PAYLOAD_BYTES] > 0;
    if (contrary || carriesData) return comparator.diverged(flow, id, 'diverged-flags');
    const svmIsn = frames.words[syn + SEQ];
    const svmAck = frames.words[syn + ACK];
    dropThrough(comparator, flow, syn);
    beginConnection(flow, frames.words[id + SEQ]);
    flow.svmIsn = svmIsn;
    if ((flags & TCP_ACK) !== 0) noteSvmAck(flow, svmAck);
  }
  if ((flags & TCP_ACK) !== 0 && !ackMayLeave(flow, frames.words[id + ACK]))
    return waitFor(comparator, id, WAITS_FOR.ack);
  return VERDICT.match;
}

function beginConnection(flow: ComparedFlow, isn: number): void {
  flow.synAgreed = true;
  flow.isn = isn;
  flow.svmAckKnown = false;
  flow.releasedAckKnown = false;
  positionAt(flow, seqAdd(isn, 1));
}

function forgetConnection(flow: ComparedFlow): void {
  flow.synAgreed = false;
  flow.positioned = false;
  flow.svmAckKnown = false;
  flow.releasedAckKnown = false;
}

export function noteReleasedAck(flow: ComparedFlow, ack: number): void {
  flow.releasedAck = flow.releasedAckKnown ? seqMax(flow.releasedAck, ack) : ack;
  flow.releasedAckKnown = true;
}

function positionAt(flow: ComparedFlow, seq: number): void {
  flow.positioned = true;
  flow.verified = seq;
  flow.released = seq;
}

/** Moves `verified` through the PVM segment `id` as far as the SVM's segments reach. */
function verify(comparator: Comparator, flow: ComparedFlow, id: number): Verdict {
  const { frames } = comparator;
  const end = frames.words[id + SEQ_END];
  while (seqBefore(flow.verified, end)) {
    if (seqBefore(flow.verified, frames.words[id + SEQ])) return waitFor(comparator, id, WAITS_FOR.bytes);
    const other = covering(comparator, flow, flow.verified);
    if (other === NONE) return waitFor(comparator, id, WAITS_FOR.bytes);
    const skip = seqDiff(flow.verified, frames.words[id + SEQ]);
    const otherSkip = seqDiff(flow.verified, frames.words[other + SEQ]);
    const left = frames.words[id + PAYLOAD_BYTES] - skip;
    const otherLeft = frames.words[other + PAYLOAD_BYTES] - otherSkip;
    if (left === 0 || otherLeft === 0) {
      // One side's FIN is here. Both must have it at the same place.
      if (left !== 0 || otherLeft !== 0) return comparator.diverged(flow, id, 'diverged-flags');
      flow.verified = seqAdd(flow.verified, 1);
      continue;
    }
    const bytes = Math.min(left, otherLeft);
    const same = comparator.samePayload(id, skip, other, otherSkip, bytes);
    if (!same) return comparator.diverged(flow, id, 'diverged-bytes');
    flow.verified = seqAdd(flow.verified, bytes);
  }
  return VERDICT.match;
}

/** The first SVM segment that has the sequence number `seq`. */
function covering(comparator: Comparator, flow: ComparedFlow, seq: number): number {
  const { frames } = comparator;
  for (let id = flow.secondary.head; id !== NONE; id = frames.words[id + NEXT]) {
    if ((frames.words[id + FLAGS] & TCP_SYN) !== 0) return NONE;
    if (seqAtOrBefore(frames.words[id + SEQ], seq) && seqBefore(seq, frames.words[id + SEQ_END])) return id;
  }
  return NONE;
}

/** The SVM's first RST that no SYN comes before, or NONE. */
function firstReset(comparator: Comparator, flow: ComparedFlow): number {
  const { frames } = comparator;
  for (let id = flow.secondary.head; id !== NONE; id = frames.words[id + NEXT]) {
    if ((frames.words[id + FLAGS] & TCP_RST) !== 0) return id;
    if ((frames.words[id + FLAGS] & TCP_SYN) !== 0) return NONE;
  }
  return NONE;
}

/** Drops SVM frames up to `last`, which is one of them. */
function dropThrough(comparator: Comparator, flow: ComparedFlow, last: number): void {
  for (let dropped = NONE; dropped !== last; ) {
    dropped = flow.secondary.head;
    comparator.dropSecondaryHead(flow);
  }
}

/** A PVM frame leaves: what does the client know now? */
export function noteReleased(comparator: Comparator, flow: ComparedFlow, id: number): void {
  const { frames } = comparator;
  const flags = frames.words[id + FLAGS];
  if ((flags & TCP_RST) !== 0) {
    forgetConnection(flow);
    // Both sides may say several, one for each segment that came too late: they pair off one to one.
    dropThrough(comparator, flow, firstReset(comparator, flow));
    settlePendingAck(comparator, flow, true);
    return;
  }
  if ((flags & TCP_SYN) === 0 && flow.positioned)
    flow.released = seqMax(flow.released, frames.words[id + SEQ_END]);
  if ((flags & TCP_ACK) !== 0) {
    noteReleasedAck(flow, frames.words[id + ACK]);
    settlePendingAck(comparator, flow, seqAtOrBefore(flow.pendingAck, flow.releasedAck));
  }
  dropReleased(comparator, flow);
}

/** At a commit a held frame leaves without a counterpart: PVM and SVM are equal behind it. */
export function noteCommitted(
  flow: ComparedFlow,
  flags: number,
  seq: number,
  seqEnd: number,
  ack: number,
): void {
  if ((flags & TCP_RST) !== 0) {
    forgetConnection(flow);
    return;
  }
  if ((flags & TCP_SYN) !== 0) {
    if (!(flow.synAgreed && flow.isn === seq)) beginConnection(flow, seq);
    flow.svmIsn = seq;
  } else {
    if (!flow.positioned) positionAt(flow, seq);
    flow.verified = seqMax(flow.verified, seqEnd);
    flow.released = seqMax(flow.released, seqEnd);
  }
  if ((flags & TCP_ACK) !== 0) noteReleasedAck(flow, ack);
}

/**
 * A checkpoint has made the SVM a copy of the PVM: of what it acknowledged by itself, only what the PVM has said
 * too is still true.
 */
export function noteCopied(flow: ComparedFlow): void {
  flow.pendingAckIndex = NONE;
  flow.svmIsn = flow.isn;
  flow.svmAckKnown = flow.releasedAckKnown;
  flow.svmAck = flow.releasedAck;
}

/** An SVM segment has arrived. Returns true when it has to be queued. */
export function acceptSecondaryTcp(
  comparator: Comparator,
  flow: ComparedFlow,
  index: number,
  flags: number,
  seq: number,
  seqEnd: number,
  ack: number,
): boolean {
  if ((flags & TCP_RST) !== 0) return true;
  if ((flags & TCP_SYN) !== 0) {
    const repeated = flow.synAgreed && (seq === flow.svmIsn || seq === flow.isn);
    if (repeated) comparator.confirm(index);
    return !repeated;
  }
  if ((flags & TCP_ACK) !== 0) noteSvmAck(flow, ack);
  if (seq === seqEnd) {
    acceptPureAck(comparator, flow, index, ack);
    return false;
  }
  if (flow.positioned && seqAtOrBefore(seqEnd, flow.released)) {
    settleBytes(comparator, flow, index, flags, ack);
    return false;
  }
  return true;
}

/** Of ACKs only the latest is worth keeping: it says all that the ones before it said. */
function acceptPureAck(comparator: Comparator, flow: ComparedFlow, index: number, ack: number): void {
  if (flow.releasedAckKnown && seqAtOrBefore(ack, flow.releasedAck)) {
    comparator.confirm(index);
    return;
  }
  settlePendingAck(comparator, flow, true);
  flow.pendingAckIndex = index;
  flow.pendingAck = ack;
}

export function settlePendingAck(comparator: Comparator, flow: ComparedFlow, settled: boolean): void {
  if (!settled || flow.pendingAckIndex === NONE) return;
  comparator.confirm(flow.pendingAckIndex);
  flow.pendingAckIndex = NONE;
}

/** SVM frames whose every byte the client has from the PVM need no keeping, but for what their ACK says. */
function dropReleased(comparator: Comparator, flow: ComparedFlow): void {
  const { frames } = comparator;
  while (flow.secondary.head !== NONE) {
    const id = flow.secondary.head;
    if ((frames.words[id + FLAGS] & (TCP_SYN | TCP_RST)) !== 0) return;
    if (!seqAtOrBefore(frames.words[id + SEQ_END], flow.released)) return;
    const index = frames.words[id + INDEX];
    const flags = frames.words[id + FLAGS];
    const ack = frames.words[id + ACK];
    comparator.forgetSecondaryHead(flow);
    settleBytes(comparator, flow, index, flags, ack);
  }
}

/** The client has an SVM segment's bytes. Has it heard its ACK, too? */
export function settleBytes(
  comparator: Comparator,
  flow: ComparedFlow,
  index: number,
  flags: number,
  ack: number,
): void {
  if ((flags & TCP_ACK) !== 0) acceptPureAck(comparator, flow, index, ack);
  else comparator.confirm(index);
}
