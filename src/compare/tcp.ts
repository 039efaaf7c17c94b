/**
 * Comparing TCP, by byte stream.
 *
 * Goal: a PVM segment leaves when the SVM has produced the same bytes at the same place of the stream, whatever
 * the segmentation on either side; when its ACK is covered (ack-rule.ts); and when SYN, FIN, RST and urgent data agree.
 *
 * Tracked per flow, in the client's sequence space: `verified` (both VMs have produced the same up to here),
 * `released` (the client may have seen it), `first` (what lies before is unknown), `svmAck`. FIN takes one sequence
 * number behind the last byte and is compared like one; data on a SYN is compared like any other. SVM frames stay
 * queued until the client has their bytes from the PVM.
 *
 * Tolerated, because a TCP receiver cannot tell or does not care: segmentation, overlap, retransmission, pushes,
 * windows, options (SACK is advice, RFC 2018 section 8), timestamps, IP ids, and the SVM being ahead. Not tolerated:
 * other bytes at one place, a FIN or data where the other has the contrary, one SYN with ACK against one without or
 * with options that settle something else (as SYN cookies do, which a flood makes one VM use before the other), urgent
 * data that ends elsewhere.
 *
 * Trusted: that a VM's TCP repeats what it said. Bytes that have left are not kept, so a retransmission of them is
 * not compared again.
 *
 * PVM frames of one flow leave in order. A frame whose place in the stream cannot be reached waits, and a wait
 * that grows too long ends in a checkpoint, as does everything that this file does not understand.
 *
 * Limits: a search among the SVM's queued frames gives up after SCAN_MAX; the frame then waits. SYNs and RSTs are
 * counted, so that nothing is searched for that is not there.
 */
import {
  SEQ_WINDOW_MAX,
  seqAdd,
  seqAtOrBefore,
  seqBefore,
  seqDiff,
  seqMax,
  seqWithinWindowBefore,
} from '../flow/sequence.ts';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, TCP_URG } from '../wire/tcp.ts';
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
  SETTLES,
  SIGNED,
  WAITS,
  WAITS_FOR,
} from './held-frames.ts';
import { VERDICT, type Verdict } from './verdict.ts';

/** More frames than a VM sends out of order; in order, the first look finds the frame. */
const SCAN_MAX = 64;

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
  const { words } = comparator.frames;
  const flags = words[id + FLAGS];
  if ((flags & TCP_RST) !== 0)
    return flow.svmResets === 0 ? waitFor(comparator, id, WAITS_FOR.bytes) : VERDICT.match;
  if ((flags & TCP_SYN) !== 0) {
    const agreed = judgeSyn(comparator, flow, id);
    if (agreed !== VERDICT.match) return agreed;
  } else if (!flow.positioned) positionAt(flow, words[id + SEQ]);
  else if (words[id + SEQ] !== flow.verified && isUnknown(flow, words[id + SEQ], words[id + SEQ_END]))
    return waitFor(comparator, id, WAITS_FOR.bytes);

  const verdict = verify(comparator, flow, id);
  if (verdict !== VERDICT.match) return verdict;
  if ((flags & TCP_URG) !== 0 || flow.svmUrgentKnown) {
    const agreed = judgeUrgent(comparator, flow, id);
    if (agreed !== VERDICT.match) return agreed;
  }
  if ((flags & TCP_ACK) !== 0 && !ackMayLeave(flow, words[id + ACK]))
    return waitFor(comparator, id, WAITS_FOR.ack);
  return VERDICT.match;
}

function waitFor(comparator: Comparator, id: number, what: number): Verdict {
  comparator.frames.words[id + WAITS] = what;
  return VERDICT.wait;
}

function judgeSyn(comparator: Comparator, flow: ComparedFlow, id: number): Verdict {
  const { words } = comparator.frames;
  const isn = seqAdd(words[id + SEQ], -1);
  if (flow.synAgreed && isn === flow.isn) return VERDICT.match;
  if ((words[id + FLAGS] & SIGNED) !== 0) return comparator.diverged(flow, 'diverged-signed', id);
  if (flow.svmSyns === 0) return waitFor(comparator, id, WAITS_FOR.bytes);
  // A new connection. Whatever the SVM said before its own SYN belongs to an older one on the same ports.
  dropToSyn(comparator, flow);
  if (comparator.taught && !dropToSynWithSeq(comparator, flow, words[id + SEQ]))
    return waitFor(comparator, id, WAITS_FOR.bytes);
  const syn = flow.secondary.head;
  const contrary = ((words[syn + FLAGS] ^ words[id + FLAGS]) & TCP_ACK) !== 0;
  if (contrary || words[syn + SETTLES] !== words[id + SETTLES])
    return comparator.diverged(flow, 'diverged-flags', id, syn);
  const svmIsn = seqAdd(words[syn + SEQ], -1);
  const svmAck = words[syn + ACK];
  beginConnection(flow, isn);
  flow.svmIsn = svmIsn;
  if ((words[syn + FLAGS] & TCP_ACK) !== 0) noteSvmAck(flow, svmAck);
  if (words[syn + SEQ] === words[syn + SEQ_END]) dropHead(comparator, flow);
  else becomeData(comparator, flow, syn);
  adoptQueue(comparator, flow);
  return VERDICT.match;
}

/** The SVM has said a SYN: it comes to the head of what it said. */
function dropToSyn(comparator: Comparator, flow: ComparedFlow): void {
  const { words } = comparator.frames;
  while (!isSyn(words[flow.secondary.head + FLAGS])) dropHead(comparator, flow);
}

/**
 * The same with the SVM's last SYN, or an earlier one with that number. An SVM's SYN that left before the PVM's was known
 * is said again in the PVM's number, so the later one counts. Only a secondary that knows the number, as a SYN with it
 * proves, could go on with what the client is told.
 */
function dropToSynWithSeq(comparator: Comparator, flow: ComparedFlow, seq: number): boolean {
  const { words } = comparator.frames;
  while (words[flow.secondary.head + SEQ] !== seq) {
    if (flow.svmSyns === 1) return false;
    dropHead(comparator, flow);
    dropToSyn(comparator, flow);
  }
  return true;
}

/** A SYN with data, which is agreed: what is left of it is data, at its place in the client's sequence space. */
function becomeData(comparator: Comparator, flow: ComparedFlow, syn: number): void {
  const { words } = comparator.frames;
  const bytes = seqDiff(words[syn + SEQ_END], words[syn + SEQ]);
  words[syn + FLAGS] &= ~TCP_SYN;
  words[syn + SEQ] = seqAdd(flow.isn, 1);
  words[syn + SEQ_END] = seqAdd(words[syn + SEQ], bytes);
  flow.svmSyns--;
}

/** What the SVM said behind its SYN belongs to the connection that begins now: its ACKs and RSTs count. */
function adoptQueue(comparator: Comparator, flow: ComparedFlow): void {
  const { words } = comparator.frames;
  while (flow.secondary.head !== NONE) {
    const head = flow.secondary.head;
    if (!isSyn(words[head + FLAGS]) || !isRepeated(flow, seqAdd(words[head + SEQ], -1))) break;
    if ((words[head + FLAGS] & TCP_ACK) !== 0) noteSvmAck(flow, words[head + ACK]);
    dropHead(comparator, flow);
  }
  flow.svmResets = 0;
  for (let id = flow.secondary.head; id !== NONE && !isSyn(words[id + FLAGS]); id = words[id + NEXT]) {
    comparator.visits++;
    if ((words[id + FLAGS] & TCP_RST) !== 0) flow.svmResets++;
    else if ((words[id + FLAGS] & TCP_ACK) !== 0) noteSvmAck(flow, words[id + ACK]);
  }
}

function isSyn(flags: number): boolean {
  return (flags & (TCP_SYN | TCP_RST)) === TCP_SYN;
}

/** Is this the SYN of the SVM that began the connection? */
function isRepeated(flow: ComparedFlow, isn: number): boolean {
  return flow.synAgreed && (isn === flow.svmIsn || isn === flow.isn);
}

function beginConnection(flow: ComparedFlow, isn: number): void {
  forgetConnection(flow);
  flow.synAgreed = true;
  flow.isn = isn;
  positionAt(flow, seqAdd(isn, 1));
}

function forgetConnection(flow: ComparedFlow): void {
  flow.synAgreed = false;
  flow.positioned = false;
  flow.svmAckKnown = false;
  flow.releasedAckKnown = false;
  flow.finReleased = false;
  flow.svmUrgentKnown = false;
}

export function noteReleasedAck(flow: ComparedFlow, ack: number): void {
  flow.releasedAck = flow.releasedAckKnown ? seqMax(flow.releasedAck, ack) : ack;
  flow.releasedAckKnown = true;
}

function positionAt(flow: ComparedFlow, seq: number): void {
  flow.positioned = true;
  flow.first = seq;
  flow.verified = seq;
  flow.released = seq;
}

/**
 * Does a segment repeat bytes that were never seen to leave, or that no window reaches back to? Then it is no
 * retransmission for sure, and the numbers cannot tell which side of the circle it is on.
 */
function isUnknown(flow: ComparedFlow, seq: number, seqEnd: number): boolean {
  if (seq === seqEnd) return false;
  if (!seqWithinWindowBefore(flow.first, flow.released)) flow.first = seqAdd(flow.released, -SEQ_WINDOW_MAX);
  return seqBefore(seq, flow.first);
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
      if (left !== 0 || otherLeft !== 0) return comparator.diverged(flow, 'diverged-flags', id, other);
      flow.verified = seqAdd(flow.verified, 1);
      continue;
    }
    const bytes = Math.min(left, otherLeft);
    const same = comparator.samePayload(id, skip, other, otherSkip, bytes);
    if (!same) return comparator.diverged(flow, 'diverged-bytes', id, other);
    flow.verified = seqAdd(flow.verified, bytes);
  }
  return VERDICT.match;
}

/** An SVM segment that has the sequence number `seq`: most often the one that had the last, or the next. */
function covering(comparator: Comparator, flow: ComparedFlow, seq: number): number {
  if (flow.secondary.head === NONE) return NONE;
  let found = NONE;
  if (flow.cursor !== NONE) found = findFrom(comparator, flow.cursor, seq);
  if (found === NONE) found = findFrom(comparator, flow.secondary.head, seq);
  if (found !== NONE) flow.cursor = found;
  return found;
}

function findFrom(comparator: Comparator, from: number, seq: number): number {
  const { words } = comparator.frames;
  for (let id = from, seen = 0; id !== NONE && seen < SCAN_MAX; id = words[id + NEXT], seen++) {
    comparator.visits++;
    if (isSyn(words[id + FLAGS])) return NONE;
    if ((words[id + FLAGS] & TCP_RST) !== 0) continue;
    if (seqAtOrBefore(words[id + SEQ], seq) && seqBefore(seq, words[id + SEQ_END])) return id;
  }
  return NONE;
}

/** Urgent data that the client does not have yet has to end at the same place in both VMs. */
function judgeUrgent(comparator: Comparator, flow: ComparedFlow, id: number): Verdict {
  const { words } = comparator.frames;
  if ((words[id + FLAGS] & TCP_URG) !== 0) {
    const urgent = words[id + INDEX];
    if (seqAtOrBefore(urgent, flow.released)) return VERDICT.match;
    if (flow.svmUrgentKnown && flow.svmUrgent === urgent) return VERDICT.match;
    return waitFor(comparator, id, WAITS_FOR.bytes);
  }
  const urgent = flow.svmUrgent;
  const within = seqBefore(words[id + SEQ], urgent) && seqAtOrBefore(urgent, words[id + SEQ_END]);
  if (within && seqBefore(flow.released, urgent)) return comparator.diverged(flow, 'diverged-flags', id);
  return VERDICT.match;
}

/** The SVM's urgent data ends at `urgent`. */
export function noteSvmUrgent(flow: ComparedFlow, urgent: number): void {
  flow.svmUrgent = urgent;
  flow.svmUrgentKnown = true;
}

/** The client has all that the SVM's oldest frame said, or need never hear it. */
function dropHead(comparator: Comparator, flow: ComparedFlow): void {
  const flags = comparator.frames.words[flow.secondary.head + FLAGS];
  if ((flags & TCP_RST) !== 0) {
    if (flow.svmResets > 0) flow.svmResets--;
  } else if ((flags & TCP_SYN) !== 0) flow.svmSyns--;
  comparator.dropSecondaryHead(flow);
}

/** A PVM frame leaves: what does the client know now? */
export function noteReleased(comparator: Comparator, flow: ComparedFlow, id: number): void {
  const { frames } = comparator;
  const flags = frames.words[id + FLAGS];
  if ((flags & TCP_RST) !== 0) {
    forgetConnection(flow);
    // Both sides may say several, one for each segment that came too late: they pair off one to one.
    while ((frames.words[flow.secondary.head + FLAGS] & TCP_RST) === 0) dropHead(comparator, flow);
    dropHead(comparator, flow);
    settlePendingAck(comparator, flow, true);
    return;
  }
  flow.released = seqMax(flow.released, frames.words[id + SEQ_END]);
  if ((flags & TCP_FIN) !== 0) flow.finReleased = true;
  if ((flags & TCP_ACK) !== 0) {
    noteReleasedAck(flow, frames.words[id + ACK]);
    settlePendingAck(comparator, flow, seqAtOrBefore(flow.pendingAck, flow.releasedAck));
  }
  dropReleased(comparator, flow);
}

/** A frame leaves without a counterpart, at a commit or alone: PVM and SVM are equal behind it. `seq` as in SEQ. */
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
    const isn = seqAdd(seq, -1);
    if (!(flow.synAgreed && flow.isn === isn)) beginConnection(flow, isn);
    flow.svmIsn = isn;
  } else if (!flow.positioned) positionAt(flow, seq);
  // Behind a gap, or before all that was seen: no more than this segment is known.
  else if (seqBefore(flow.released, seq) || isUnknown(flow, seq, seqEnd)) flow.first = seq;
  flow.verified = seqMax(flow.verified, seqEnd);
  flow.released = seqMax(flow.released, seqEnd);
  if ((flags & TCP_FIN) !== 0) flow.finReleased = true;
  if ((flags & TCP_ACK) !== 0) noteReleasedAck(flow, ack);
}

/**
 * A checkpoint has made the SVM a copy of the PVM, and its frames are forgotten: of what it acknowledged by itself,
 * only what the PVM has said too is still true.
 */
export function noteCopied(flow: ComparedFlow): void {
  flow.pendingAckIndex = NONE;
  flow.svmIsn = flow.isn;
  flow.svmAckKnown = flow.releasedAckKnown;
  flow.svmAck = flow.releasedAck;
  flow.svmUrgentKnown = false;
  flow.svmSyns = 0;
  flow.svmResets = 0;
  flow.cursor = NONE;
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
    if (!isRepeated(flow, seq) || flow.svmSyns > 0) return true;
    // In a simultaneous open the SYN is repeated with an ACK.
    if ((flags & TCP_ACK) !== 0) noteSvmAck(flow, ack);
    settleBytes(comparator, flow, index, flags, ack);
    return false;
  }
  // Behind a SYN that the PVM has not said yet, it says nothing of the connection that still is.
  if (flow.svmSyns > 0) return true;
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

/** An SVM segment was queued. */
export function noteQueued(flow: ComparedFlow, flags: number): void {
  if ((flags & TCP_RST) !== 0) {
    if (flow.svmSyns === 0) flow.svmResets++;
  } else if ((flags & TCP_SYN) !== 0) flow.svmSyns++;
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
