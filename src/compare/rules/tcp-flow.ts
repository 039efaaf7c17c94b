/**
 * What TCP's rule tracks of a connection, in the rule's words of the flow's row. Sequence numbers are the client's.
 *
 * Where a VM's stream is, in order of sequence numbers:
 *
 *     first ......... released ......... verified
 *       |  retransmission: |  compared, not  |  one VM's word only
 *       |  leaves at once  |  yet released   |
 *
 * released <= verified: no byte leaves that the SVM has not produced. Both are equal most of the time.
 */
import {
  SEQ_WINDOW_MAX,
  seqAdd,
  seqAtOrBefore,
  seqBefore,
  seqWithinWindowBefore,
} from '../../flow/sequence.ts';
import type { FrameId, Seq } from '../../units.ts';
import { TCP_ACK, TCP_RST, TCP_SYN, WINDOW_SCALE_MAX } from '../../wire/tcp.ts';
import {
  DIVERGED,
  FLOW_RULE_BITS,
  FLOW_RULE_WORDS,
  FLOW_RULE_WORDS_FAR,
  HeldFlow,
  STATE,
} from '../held-flow.ts';
import { RULE_WORD_0, RULE_WORD_1, RULE_WORD_2, RULE_WORD_3 } from '../held-frames.ts';

/* TCP's columns of a held frame. FLAGS has the segment's own flags, and those below. */
/** of the first payload byte: after a SYN, one more than its number */
export const SEQ = RULE_WORD_0;
/** first sequence number after the segment, FIN included */
export const SEQ_END = RULE_WORD_1;
export const ACK = RULE_WORD_2;
/** of a SYN: what its options settle or bind its peer to; of a segment with BINDING: the latter (wire/tcp.ts) */
export const OPTIONS = RULE_WORD_3;
/** In FLAGS: a SYN whose connection is signed. */
export const SIGNED = 0x100;
/** In FLAGS: a segment without SYN whose options bind its peer to this VM. */
export const BINDING = 0x800;
/** In FLAGS: the window as it stands in the header, from this bit on. */
export const WINDOW_SHIFT = 12;

/* The words of the row. Nearly every frame uses those of the first line. */
const VERIFIED = FLOW_RULE_WORDS;
const RELEASED = FLOW_RULE_WORDS + 1;
const SVM_ACK = FLOW_RULE_WORDS + 2;
const RELEASED_ACK = FLOW_RULE_WORDS + 3;
const PENDING_ACK_INDEX = FLOW_RULE_WORDS + 4;
const PENDING_ACK = FLOW_RULE_WORDS + 5;
const CURSOR = FLOW_RULE_WORDS + 6;
const SVM_SYNS = FLOW_RULE_WORDS + 7;
const SVM_WINDOW = FLOW_RULE_WORDS + 8;
const RELEASED_WINDOW = FLOW_RULE_WORDS + 9;
const FIRST = FLOW_RULE_WORDS_FAR;
const ISN = FLOW_RULE_WORDS_FAR + 1;
const SVM_ISN = FLOW_RULE_WORDS_FAR + 2;
const SVM_BINDING = FLOW_RULE_WORDS_FAR + 3;
const LENT_ISN = FLOW_RULE_WORDS_FAR + 4;
const WINDOW_SCALE = FLOW_RULE_WORDS_FAR + 5;
const OWED = FLOW_RULE_WORDS_FAR + 6;
const LATEST_TIME = FLOW_RULE_WORDS_FAR + 7;
const SPECIAL_HELD = FLOW_RULE_WORDS_FAR + 8;
const SVM_RESETS = FLOW_RULE_WORDS_FAR + 9;
const SVM_URGENT = FLOW_RULE_WORDS_FAR + 10;

/* The bits of the row. */
const POSITIONED = FLOW_RULE_BITS;
const SYN_AGREED = FLOW_RULE_BITS << 1;
const SVM_ACK_KNOWN = FLOW_RULE_BITS << 2;
const RELEASED_ACK_KNOWN = FLOW_RULE_BITS << 3;
const FIN_RELEASED = FLOW_RULE_BITS << 4;
const SVM_URGENT_KNOWN = FLOW_RULE_BITS << 5;
const OUT_OF_STEP = FLOW_RULE_BITS << 6;
const LATEST_TIME_KNOWN = FLOW_RULE_BITS << 7;
const SYN_LENT = FLOW_RULE_BITS << 8;
const RESET_BY_BOTH = FLOW_RULE_BITS << 9;
const COPIED = FLOW_RULE_BITS << 10;

const ACKS_KNOWN = SVM_ACK_KNOWN | RELEASED_ACK_KNOWN;
const USUAL_MASK = POSITIONED | DIVERGED | SVM_URGENT_KNOWN | OUT_OF_STEP;

/** In place of the index of an SVM frame where there is none. */
export const NO_INDEX = -1;

export class HeldTcpFlow extends HeldFlow {
  /** False until the first PVM segment has fixed where the stream is, and again after an RST. */
  get positioned(): boolean {
    return this.has(POSITIONED);
  }
  set positioned(value: boolean) {
    this.put(POSITIONED, value);
  }

  /** The stream before it is unknown, unless `copied`: it was first seen here, or a commit released a segment after a gap. */
  get first(): Seq {
    return this.words[this.row + FIRST] as Seq;
  }
  set first(seq: Seq) {
    this.words[this.row + FIRST] = seq;
  }

  /** A checkpoint has copied the connection after it was first seen, in its middle: both VMs have the same bytes before that place. */
  get copied(): boolean {
    return this.has(COPIED);
  }
  set copied(value: boolean) {
    this.put(COPIED, value);
  }

  /** Both VMs have produced the same bytes up to here. */
  get verified(): Seq {
    return this.words[this.row + VERIFIED] as Seq;
  }
  set verified(seq: Seq) {
    this.words[this.row + VERIFIED] = seq;
  }

  /** The client may have received bytes up to here. */
  get released(): Seq {
    return this.words[this.row + RELEASED] as Seq;
  }
  set released(seq: Seq) {
    this.words[this.row + RELEASED] = seq;
  }

  /** True if the SYNs of both VMs were seen and match; `isn` is then the PVM's initial sequence number. */
  get synAgreed(): boolean {
    return this.has(SYN_AGREED);
  }
  set synAgreed(value: boolean) {
    this.put(SYN_AGREED, value);
  }
  get isn(): Seq {
    return this.words[this.row + ISN] as Seq;
  }
  set isn(seq: Seq) {
    this.words[this.row + ISN] = seq;
  }

  /** The SVM's initial sequence number as it came over the link: tells a repeated SYN from that of a new connection. */
  get svmIsn(): Seq {
    return this.words[this.row + SVM_ISN] as Seq;
  }
  set svmIsn(seq: Seq) {
    this.words[this.row + SVM_ISN] = seq;
  }

  /** The SVM has acknowledged the client's data up to `svmAck` (ack-rule.ts). */
  get svmAckKnown(): boolean {
    return this.has(SVM_ACK_KNOWN);
  }
  set svmAckKnown(value: boolean) {
    this.put(SVM_ACK_KNOWN, value);
  }
  get svmAck(): Seq {
    return this.words[this.row + SVM_ACK] as Seq;
  }
  set svmAck(ack: Seq) {
    this.words[this.row + SVM_ACK] = ack;
  }

  /** What the latest of those ACKs said of the SVM's window, as it stands in the header. */
  get svmWindow(): number {
    return this.words[this.row + SVM_WINDOW];
  }
  set svmWindow(window: number) {
    this.words[this.row + SVM_WINDOW] = window;
  }
  /** By how many bits windows are shifted, which is the same for both VMs; where it is not known, the most that it can be. */
  get windowScale(): number {
    return this.words[this.row + WINDOW_SCALE];
  }
  set windowScale(shift: number) {
    this.words[this.row + WINDOW_SCALE] = shift;
  }

  /** The latest ACK that a released PVM segment carried, and the window with it. */
  get releasedAckKnown(): boolean {
    return this.has(RELEASED_ACK_KNOWN);
  }
  set releasedAckKnown(value: boolean) {
    this.put(RELEASED_ACK_KNOWN, value);
  }
  get releasedAck(): Seq {
    return this.words[this.row + RELEASED_ACK] as Seq;
  }
  set releasedAck(ack: Seq) {
    this.words[this.row + RELEASED_ACK] = ack;
  }

  get releasedWindow(): number {
    return this.words[this.row + RELEASED_WINDOW];
  }
  set releasedWindow(window: number) {
    this.words[this.row + RELEASED_WINDOW] = window;
  }

  /** The row of the ACK that the client is owed (owed-acks.ts), or NONE. */
  get owed(): number {
    return this.words[this.row + OWED];
  }
  set owed(row: number) {
    this.words[this.row + OWED] = row;
  }

  /**
   * The client is owed an ACK, or a segment left ahead of others that are held. Meanwhile `latestTime` is the latest time (TSval)
   * that has left: a client drops a segment with an earlier one (PAWS, RFC 7323 section 5).
   */
  get outOfStep(): boolean {
    return this.has(OUT_OF_STEP);
  }
  set outOfStep(value: boolean) {
    this.put(OUT_OF_STEP, value);
  }
  get latestTimeKnown(): boolean {
    return this.has(LATEST_TIME_KNOWN);
  }
  set latestTimeKnown(value: boolean) {
    this.put(LATEST_TIME_KNOWN, value);
  }
  get latestTime(): number {
    return this.words[this.row + LATEST_TIME];
  }
  set latestTime(time: number) {
    this.words[this.row + LATEST_TIME] = time;
  }

  /** How many held PVM segments are SYNs, RSTs or urgent: no segment may leave ahead of them. */
  get specialHeld(): number {
    return this.words[this.row + SPECIAL_HELD];
  }
  set specialHeld(count: number) {
    this.words[this.row + SPECIAL_HELD] = count;
  }

  /** Index of the SVM frame that carries the latest ACK which no released frame carries yet, or NO_INDEX. */
  get pendingAckIndex(): number {
    return this.words[this.row + PENDING_ACK_INDEX];
  }
  set pendingAckIndex(index: number) {
    this.words[this.row + PENDING_ACK_INDEX] = index;
  }
  get pendingAck(): Seq {
    return this.words[this.row + PENDING_ACK] as Seq;
  }
  set pendingAck(ack: Seq) {
    this.words[this.row + PENDING_ACK] = ack;
  }

  /** The client has the VM's FIN. */
  get finReleased(): boolean {
    return this.has(FIN_RELEASED);
  }
  set finReleased(value: boolean) {
    this.put(FIN_RELEASED, value);
  }

  /**
   * The client was told by both VMs that the connection is gone, and neither has sent anything but RSTs since: a further RST tells it
   * nothing new (`repeatsReset` in tcp-judge.ts). Never together with `positioned`.
   */
  get resetByBoth(): boolean {
    return this.has(RESET_BY_BOTH);
  }
  set resetByBoth(value: boolean) {
    this.put(RESET_BY_BOTH, value);
  }

  /** Both VMs have sent bytes or a FIN in it. One that is only half open may go on after an RST (RFC 9293 section 3.5.2, group 2). */
  get isPastOpening(): boolean {
    if (!this.positioned) return false;
    return this.released !== ((this.first + (this.synAgreed ? 1 : 0)) | 0);
  }

  /** Where the SVM's urgent data ends. */
  get svmUrgentKnown(): boolean {
    return this.has(SVM_URGENT_KNOWN);
  }
  set svmUrgentKnown(value: boolean) {
    this.put(SVM_URGENT_KNOWN, value);
  }
  get svmUrgent(): Seq {
    return this.words[this.row + SVM_URGENT] as Seq;
  }
  set svmUrgent(seq: Seq) {
    this.words[this.row + SVM_URGENT] = seq;
  }

  /** What the SVM's latest segment without sequence numbers binds the client to (binding.ts), or 0. */
  get svmBinding(): number {
    return this.words[this.row + SVM_BINDING];
  }
  set svmBinding(digest: number) {
    this.words[this.row + SVM_BINDING] = digest;
  }

  /** The SVM has sent a segment without sequence numbers; `digest` is 0 if it binds the client to nothing. */
  noteSvmBinding(digest: number): void {
    if (digest !== 0) this.svmBinding = digest;
  }

  /** The SVM's latest SYN here is the counterpart of a PVM SYN in another flow (openings.ts). */
  get synLent(): boolean {
    return this.has(SYN_LENT);
  }

  lend(isn: Seq): void {
    this.put(SYN_LENT, true);
    this.words[this.row + LENT_ISN] = isn;
  }

  /** The two VMs are equal: the SVM repeats no SYN of its own. */
  endLending(): void {
    this.put(SYN_LENT, false);
  }

  /** Returns true if a SYN with this number is the one that is lent. */
  isLent(isn: Seq): boolean {
    return this.synLent && this.words[this.row + LENT_ISN] === isn;
  }

  /** How many SYNs are among the SVM's queued frames, and how many RSTs before the first of them. */
  get svmSyns(): number {
    return this.words[this.row + SVM_SYNS];
  }
  set svmSyns(count: number) {
    this.words[this.row + SVM_SYNS] = count;
  }
  get svmResets(): number {
    return this.words[this.row + SVM_RESETS];
  }
  set svmResets(count: number) {
    this.words[this.row + SVM_RESETS] = count;
  }

  /** The queued SVM frame in which the last bytes were found, or NO_FRAME. */
  get cursor(): FrameId {
    return this.words[this.row + CURSOR] as FrameId;
  }
  set cursor(id: FrameId) {
    this.words[this.row + CURSOR] = id;
  }

  /** True if the client has all that both VMs have sent, `seq` comes next, and nothing is urgent, out of step or diverged. */
  isReleasedUpTo(seq: Seq): boolean {
    const { words, row } = this;
    if ((words[row + STATE] & USUAL_MASK) !== POSITIONED) return false;
    return words[row + VERIFIED] === seq && words[row + RELEASED] === seq;
  }

  /** True if the client has all before `seq`, nothing from `end` on was compared, and nothing is urgent, out of step or diverged. */
  isReleasedFrom(seq: Seq, end: Seq): boolean {
    const { words, row } = this;
    if ((words[row + STATE] & USUAL_MASK) !== POSITIONED || words[row + RELEASED] !== seq) return false;
    return seqAtOrBefore(words[row + VERIFIED] as Seq, end);
  }

  /** Returns true if this ACK and window are the latest of the SVM, and the client has been told them. */
  isTold(ack: Seq, window: number): boolean {
    const { words, row } = this;
    return (
      (words[row + STATE] & ACKS_KNOWN) === ACKS_KNOWN &&
      words[row + SVM_ACK] === ack &&
      words[row + RELEASED_ACK] === ack &&
      words[row + SVM_WINDOW] === window &&
      words[row + RELEASED_WINDOW] === window
    );
  }

  /** Both VMs have sent the bytes up to `end`, and the client gets them. */
  advanceTo(end: Seq): void {
    this.words[this.row + VERIFIED] = end;
    this.words[this.row + RELEASED] = end;
  }

  /**
   * Returns true if the client has all that a segment of the PVM carries, its ACK included: it may leave whatever the SVM has
   * sent, and shows nothing of the SVM. Arguments as in the held frame's columns.
   */
  clientHas(flags: number, seq: number, seqEnd: number, ack: number): boolean {
    if (!this.positioned || (flags & TCP_RST) !== 0) return false;
    if ((flags & TCP_SYN) !== 0 && !(this.synAgreed && this.isn === ((seq - 1) | 0))) return false;
    if (!seqAtOrBefore(seqEnd as Seq, this.released)) return false;
    if ((flags & TCP_ACK) === 0) return true;
    return this.releasedAckKnown && seqAtOrBefore(ack as Seq, this.releasedAck);
  }

  /** A connection, or what is known of one, begins at `seq`. */
  positionAt(seq: Seq): void {
    this.positioned = true;
    this.resetByBoth = false;
    this.copied = false;
    this.first = seq;
    this.verified = seq;
    this.released = seq;
  }

  /**
   * Returns true if nothing is known of the stream at `seq`. Moves `first` along, to at most a window before `released`: the order of
   * numbers further apart is unknown.
   */
  isBeforeKnown(seq: Seq): boolean {
    const farthest = seqAdd(this.released, -SEQ_WINDOW_MAX);
    if (this.copied) return seqBefore(seq, farthest);
    if (!seqWithinWindowBefore(this.first, this.released)) this.first = farthest;
    return seqBefore(seq, this.first);
  }

  /**
   * Returns true if all that is known of the connection is a bare ACK that may have been a keep-alive, which has the number before the
   * next one (RFC 9293 section 3.8.4).
   */
  beganWithKeepAliveBefore(seq: Seq): boolean {
    const { first } = this;
    if (seq !== ((first + 1) | 0) || this.synAgreed) return false;
    return this.released === first && this.verified === first;
  }

  /** Forgets the connection; the queues and the counts of what is in them stay. */
  forgetConnection(): void {
    this.synAgreed = false;
    this.positioned = false;
    this.svmAckKnown = false;
    this.releasedAckKnown = false;
    this.finReleased = false;
    this.svmUrgentKnown = false;
    this.svmBinding = 0;
    this.windowScale = WINDOW_SCALE_MAX;
    this.outOfStep = false;
    this.latestTimeKnown = false;
  }
}
