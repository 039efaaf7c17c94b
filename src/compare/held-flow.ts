/**
 * What the comparator knows of each flow, as rows of numbers: no object per flow.
 *
 * With many flows the price of a frame is its cache misses, so all that a frame of an established connection needs lies in
 * one line of 64 bytes, and the rest in the next. Rows of flows that never existed are never touched and cost nothing.
 *
 * A row is read and written through a `HeldFlow`, which is positioned at one row at a time: after `moveTo` another row, all
 * that was read of the one before is void. A rule that tracks more of a flow than its queues extends the class and uses the
 * rule's words and bits (rules/tcp-flow.ts). Several of them may share the words: the holding has one, and so has such a rule.
 */

import type { FlowId, Instant } from '../units.ts';
import { RULES_MAX, type RuleNumber } from './classes.ts';
import { FrameQueue, NO_FRAME } from './held-frames.ts';

/* The columns of a row. The queues have theirs at 0 to 3 and 16 to 19. */
const SECONDARY_QUEUE = 2;
export const STATE = 4;
const LAST_SEEN = 5;
/** Words 6 to 15 belong to the rule: in the line that each frame touches. */
export const FLOW_RULE_WORDS = 6;
/** So do words 20 to 31, in the other line. */
export const FLOW_RULE_WORDS_FAR = 20;
const ROW_SHIFT = 5;

/* STATE: three bits of the holding's own, the rule's number, and from FLOW_RULE_BITS on the rule's own bits. */
const USED = 1;
export const DIVERGED = 2;
const AWAITED = 4;
const RULE_SHIFT = 3;
const RULE_MASK = RULES_MAX - 1;
export const FLOW_RULE_BITS = 1 << 7;
/** The number of the operator's rule that covers the flow (operator-rules.ts) is in the highest bits. */
const OPERATOR_RULE_SHIFT = 24;

/** Returns zeroed rows for flows with ids below `flowsMax`. */
export function flowWords(flowsMax: number): Int32Array {
  return new Int32Array(flowsMax << ROW_SHIFT);
}

export class HeldFlow {
  /** held PVM output, in the order in which it leaves: that of arrival, or a stream's (rules/tcp-held.ts) */
  readonly primary: FrameQueue;
  /** SVM output without a counterpart, in order of arrival */
  readonly secondary: FrameQueue;
  protected readonly words: Int32Array;
  protected row = 0;

  /** Positioned at the flow of id 0. */
  constructor(words: Int32Array) {
    this.words = words;
    this.primary = new FrameQueue(words);
    this.secondary = new FrameQueue(words);
    this.moveTo(0 as FlowId);
  }

  get id(): FlowId {
    return (this.row >> ROW_SHIFT) as FlowId;
  }

  moveTo(id: FlowId): this {
    this.row = id << ROW_SHIFT;
    this.primary.at = this.row;
    this.secondary.at = this.row + SECONDARY_QUEUE;
    return this;
  }

  /** Begins a flow's row; its rule then sets those of its words that do not begin as 0. */
  begin(rule: RuleNumber): void {
    this.words.fill(0, this.row, this.row + (1 << ROW_SHIFT));
    this.words[this.row + STATE] = USED | (rule << RULE_SHIFT);
    this.primary.clear();
    this.secondary.clear();
  }

  end(): void {
    this.words[this.row + STATE] = 0;
  }

  /** True if the row is that of a flow. */
  get isUsed(): boolean {
    return this.has(USED);
  }

  get rule(): RuleNumber {
    return ((this.words[this.row + STATE] >>> RULE_SHIFT) & RULE_MASK) as RuleNumber;
  }

  /** Which rule of the operator covers the flow; NO_OPERATOR_RULE if none does. */
  get operatorRule(): number {
    return this.words[this.row + STATE] >>> OPERATOR_RULE_SHIFT;
  }
  set operatorRule(number: number) {
    const at = this.row + STATE;
    this.words[at] = (this.words[at] & ((1 << OPERATOR_RULE_SHIFT) - 1)) | (number << OPERATOR_RULE_SHIFT);
  }

  /** Arrival time of the last frame, ms modulo 2^32. For differences. */
  set lastSeenMs(nowMs: Instant) {
    this.words[this.row + LAST_SEEN] = nowMs;
  }

  get lastSeenMs(): number {
    return this.words[this.row + LAST_SEEN];
  }

  idleMs(nowMs: Instant): number {
    return (nowMs - this.words[this.row + LAST_SEEN]) >>> 0;
  }

  /** A divergence was reported, and no commit has healed it yet: nothing of the flow is released. */
  get diverged(): boolean {
    return this.has(DIVERGED);
  }
  set diverged(value: boolean) {
    this.put(DIVERGED, value);
  }

  /** Its input waits for the SVM (datapath/catch-up.ts), by this flow's id: it is not forgotten. */
  get awaited(): boolean {
    return this.has(AWAITED);
  }
  set awaited(value: boolean) {
    this.put(AWAITED, value);
  }

  /** No frame of it is held: if the flow is forgotten and continues, it is one first seen in its middle. */
  get isEmpty(): boolean {
    return this.primary.head === NO_FRAME && this.secondary.head === NO_FRAME;
  }

  /** If the table needs room, it may be forgotten. */
  get mayBeForgotten(): boolean {
    return this.isEmpty && !this.awaited;
  }

  protected has(bit: number): boolean {
    return (this.words[this.row + STATE] & bit) !== 0;
  }

  protected put(bit: number, value: boolean): void {
    const at = this.row + STATE;
    if (value) this.words[at] |= bit;
    else this.words[at] &= ~bit;
  }
}
