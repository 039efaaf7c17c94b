/**
 * What the comparator remembers of each flow, as rows of numbers: no object per flow.
 *
 * With many flows the price of a frame is what it misses in the caches, so what a frame of an established connection
 * needs lies in one line of 64 bytes, and the rest in the next. Rows of flows that never were are never touched, and so
 * cost nothing.
 *
 * A row is read and written through a `ComparedFlow`, which stands at one row at a time: `moveTo` another, and what
 * was said of the one before must not be used any more. All numbers are int32; sequence numbers are the client's.
 */

import type { Instant } from '../units.ts';
import { FrameQueue, NONE } from './held-frames.ts';

/* The columns of a row. The queues have theirs at 0 to 3 and 16 to 19. */
const STATE = 4;
const LAST_SEEN = 5;
const VERIFIED = 6;
const RELEASED = 7;
const SVM_ACK = 8;
const RELEASED_ACK = 9;
const PENDING_ACK_INDEX = 10;
const PENDING_ACK = 11;
const CURSOR = 12;
const SVM_SYNS = 13;
const SVM_RESETS = 14;
const SVM_URGENT = 15;
const FIRST = 20;
const ISN = 21;
const SVM_ISN = 22;
const ROW_SHIFT = 5;
const SECONDARY_QUEUE = 2;

/* The bits of STATE. */
const USED = 1;
const IS_TCP = 2;
const DIVERGED = 4;
const POSITIONED = 8;
const SYN_AGREED = 16;
const SVM_ACK_KNOWN = 32;
const RELEASED_ACK_KNOWN = 64;
const FIN_RELEASED = 128;
const SVM_URGENT_KNOWN = 256;

export class ComparedFlow {
  /** PVM output that waits, and SVM output that was not released yet, each in order of arrival. */
  readonly primary: FrameQueue;
  readonly secondary: FrameQueue;
  private readonly words: Int32Array;
  private row = 0;

  /** Room for flows with ids below `flowsMax`, none of which is used; stands at that of id 0. */
  constructor(flowsMax: number) {
    this.words = new Int32Array(flowsMax << ROW_SHIFT);
    this.primary = new FrameQueue(this.words);
    this.secondary = new FrameQueue(this.words);
    this.moveTo(0);
  }

  moveTo(id: number): this {
    this.row = id << ROW_SHIFT;
    this.primary.at = this.row;
    this.secondary.at = this.row + SECONDARY_QUEUE;
    return this;
  }

  /** Begins a flow's row. */
  begin(tcp: boolean): void {
    this.words.fill(0, this.row, this.row + (1 << ROW_SHIFT));
    this.words[this.row + STATE] = tcp ? USED | IS_TCP : USED;
    this.primary.clear();
    this.secondary.clear();
    this.pendingAckIndex = NONE;
    this.cursor = NONE;
  }

  end(): void {
    this.words[this.row + STATE] = 0;
  }

  /** there is such a flow */
  get used(): boolean {
    return this.has(USED);
  }

  /** a TCP connection */
  get tcp(): boolean {
    return this.has(IS_TCP);
  }

  /** When its last frame came, ms, wrapping after 49 days: for differences (`idleMs`). */
  set lastSeenMs(nowMs: Instant) {
    this.words[this.row + LAST_SEEN] = nowMs;
  }

  idleMs(nowMs: Instant): number {
    return (nowMs - this.words[this.row + LAST_SEEN]) >>> 0;
  }

  /** a divergence was reported and no checkpoint has healed it yet */
  get diverged(): boolean {
    return this.has(DIVERGED);
  }
  set diverged(value: boolean) {
    this.put(DIVERGED, value);
  }

  /** The rest is for TCP. False until the first PVM segment has fixed where the stream is. */
  get positioned(): boolean {
    return this.has(POSITIONED);
  }
  set positioned(value: boolean) {
    this.put(POSITIONED, value);
  }

  /** what lies before is unknown: the stream was first seen here, or a commit went on behind a gap */
  get first(): number {
    return this.words[this.row + FIRST];
  }
  set first(seq: number) {
    this.words[this.row + FIRST] = seq;
  }

  /** the PVM's initial sequence number, when its SYN was seen and agreed */
  get synAgreed(): boolean {
    return this.has(SYN_AGREED);
  }
  set synAgreed(value: boolean) {
    this.put(SYN_AGREED, value);
  }
  get isn(): number {
    return this.words[this.row + ISN];
  }
  set isn(seq: number) {
    this.words[this.row + ISN] = seq;
  }

  /** the SVM's own, as it came over the link: tells its SYN's repetition from a new connection */
  get svmIsn(): number {
    return this.words[this.row + SVM_ISN];
  }
  set svmIsn(seq: number) {
    this.words[this.row + SVM_ISN] = seq;
  }

  /** PVM and SVM have produced the same bytes up to here */
  get verified(): number {
    return this.words[this.row + VERIFIED];
  }
  set verified(seq: number) {
    this.words[this.row + VERIFIED] = seq;
  }

  /** the client may have seen bytes up to here */
  get released(): number {
    return this.words[this.row + RELEASED];
  }
  set released(seq: number) {
    this.words[this.row + RELEASED] = seq;
  }

  /** the SVM has acknowledged the client's data up to here (rule 1) */
  get svmAckKnown(): boolean {
    return this.has(SVM_ACK_KNOWN);
  }
  set svmAckKnown(value: boolean) {
    this.put(SVM_ACK_KNOWN, value);
  }
  get svmAck(): number {
    return this.words[this.row + SVM_ACK];
  }
  set svmAck(ack: number) {
    this.words[this.row + SVM_ACK] = ack;
  }

  get releasedAckKnown(): boolean {
    return this.has(RELEASED_ACK_KNOWN);
  }
  set releasedAckKnown(value: boolean) {
    this.put(RELEASED_ACK_KNOWN, value);
  }
  get releasedAck(): number {
    return this.words[this.row + RELEASED_ACK];
  }
  set releasedAck(ack: number) {
    this.words[this.row + RELEASED_ACK] = ack;
  }

  /** the SVM frame with the latest ACK that no released frame has said yet: its index, or NONE */
  get pendingAckIndex(): number {
    return this.words[this.row + PENDING_ACK_INDEX];
  }
  set pendingAckIndex(index: number) {
    this.words[this.row + PENDING_ACK_INDEX] = index;
  }
  get pendingAck(): number {
    return this.words[this.row + PENDING_ACK];
  }
  set pendingAck(ack: number) {
    this.words[this.row + PENDING_ACK] = ack;
  }

  /** the client has the VM's FIN */
  get finReleased(): boolean {
    return this.has(FIN_RELEASED);
  }
  set finReleased(value: boolean) {
    this.put(FIN_RELEASED, value);
  }

  /** where the SVM's urgent data ends */
  get svmUrgentKnown(): boolean {
    return this.has(SVM_URGENT_KNOWN);
  }
  set svmUrgentKnown(value: boolean) {
    this.put(SVM_URGENT_KNOWN, value);
  }
  get svmUrgent(): number {
    return this.words[this.row + SVM_URGENT];
  }
  set svmUrgent(seq: number) {
    this.words[this.row + SVM_URGENT] = seq;
  }

  /** SYNs among the SVM's queued frames, and RSTs before the first of them */
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

  /** the queued SVM frame that the last bytes were found in, or NONE */
  get cursor(): number {
    return this.words[this.row + CURSOR];
  }
  set cursor(id: number) {
    this.words[this.row + CURSOR] = id;
  }

  /** Nothing is held: forgetting the flow makes it one that is first seen in its middle. */
  get empty(): boolean {
    return this.primary.head === NONE && this.secondary.head === NONE;
  }

  /** The client has all that both VMs have said, `seq` comes next, and nothing is urgent. */
  isReleasedUpTo(seq: number): boolean {
    const { words, row } = this;
    if ((words[row + STATE] & (POSITIONED | DIVERGED | SVM_URGENT_KNOWN)) !== POSITIONED) return false;
    return words[row + VERIFIED] === seq && words[row + RELEASED] === seq;
  }

  /** An RST has ended it, or it has not begun. */
  get closed(): boolean {
    return (this.words[this.row + STATE] & (IS_TCP | POSITIONED)) === IS_TCP;
  }

  /** Nothing would be missed: datagrams, a connection that has ended or ends, one that is only half open. */
  get expendable(): boolean {
    if (!this.tcp || !this.positioned || this.finReleased) return true;
    return this.synAgreed && this.released === ((this.isn + 1) | 0);
  }

  private has(bit: number): boolean {
    return (this.words[this.row + STATE] & bit) !== 0;
  }

  private put(bit: number, value: boolean): void {
    const at = this.row + STATE;
    if (value) this.words[at] |= bit;
    else this.words[at] &= ~bit;
  }
}
