/**
 * The frames that the comparator holds, as rows of numbers: no object per frame, and one cache line for each.
 *
 * A frame's id is the offset of its row in `words`: the row's columns are at `words[id + SLAB]` and so on. Each frame is in
 * one queue of its flow (`NEXT`), and in the list of its side in order of arrival (`OLDER`, `NEWER`): a commit releases in
 * that order, and the oldest frame is the one that has waited longest.
 *
 * A row has sixteen words and all are in use. Words 6 to 9 and 15 belong to the rule of the frame's flow (rules/): each rule
 * names them for itself, and so does the reassembly of fragments.
 */

import { invariant } from '../error.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { FlowId, FrameId, Instant, SlabId } from '../units.ts';

/** In place of a frame where there is none. */
export const NO_FRAME = -1 as FrameId;
/** In place of a flow where there is none. */
export const NO_FLOW = -1 as FlowId;

/* The columns of a row. */
export const SLAB = 0;
/** offset of the frame in its slab */
export const AT = 1;
export const LENGTH = 2;
export const FLOW = 3;
/** first payload byte in the slab, and how many there are */
export const PAYLOAD = 4;
export const PAYLOAD_BYTES = 5;
/* The rule's own words; a rule that has no use for one leaves what is there. */
export const RULE_WORD_0 = 6;
export const RULE_WORD_1 = 7;
export const RULE_WORD_2 = 8;
export const FLAGS = 9;
/** Of an SVM frame: its number in the epoch. Of a PVM frame, which has none, this is one more word of the rule. */
export const INDEX = 10;
/** one of WAITS_FOR */
export const WAITS = 11;
export const NEXT = 12;
const OLDER = 13;
const NEWER = 14;
export const RULE_WORD_3 = 15;

/** Frames examined for one of another flow. */
const OTHER_SCAN_MAX = 64;

const ROW_SHIFT = 4;
const ROW_WORDS = 1 << ROW_SHIFT;

/* The columns of a queue: the first two are on the way of every frame, the others are used by longer queues only. */
const HEAD = 0;
const TAIL = 1;
const FRAMES_AFTER_HEAD = 16;
const BYTES_AFTER_HEAD = 17;

/**
 * One side's frames of one flow, first in first out, as numbers in the flow's row (held-flow.ts). Only the frames after
 * the head are counted, so a queue that never has more than one frame costs no counting.
 */
export class FrameQueue {
  /** where in `words` the queue is */
  at = 0;
  private readonly words: Int32Array;

  constructor(words: Int32Array) {
    this.words = words;
  }

  get head(): FrameId {
    return this.words[this.at + HEAD] as FrameId;
  }
  set head(id: FrameId) {
    this.words[this.at + HEAD] = id;
  }

  get tail(): FrameId {
    return this.words[this.at + TAIL] as FrameId;
  }
  set tail(id: FrameId) {
    this.words[this.at + TAIL] = id;
  }

  get framesAfterHead(): number {
    return this.words[this.at + FRAMES_AFTER_HEAD];
  }
  set framesAfterHead(frames: number) {
    this.words[this.at + FRAMES_AFTER_HEAD] = frames;
  }

  get bytesAfterHead(): number {
    return this.words[this.at + BYTES_AFTER_HEAD];
  }
  set bytesAfterHead(bytes: number) {
    this.words[this.at + BYTES_AFTER_HEAD] = bytes;
  }

  /** Empties the queue; its frames are removed elsewhere. */
  clear(): void {
    this.head = NO_FRAME;
    this.tail = NO_FRAME;
    this.framesAfterHead = 0;
    this.bytesAfterHead = 0;
  }
}

/** All frames of one side, in order of arrival. */
export type ArrivalList = { oldest: FrameId; newest: FrameId; frames: number; bytes: number };

export function emptyArrivalList(): ArrivalList {
  return { oldest: NO_FRAME, newest: NO_FRAME, frames: 0, bytes: 0 };
}

/** What a frame at the head of its queue waits for: the value of its `WAITS`. */
export const WAITS_FOR = { nothing: 0, bytes: 1, ack: 2 } as const;
export type WaitsFor = (typeof WAITS_FOR)[keyof typeof WAITS_FOR];

/** The held frames of both VMs. */
export type HeldOfBoth = {
  readonly frames: HeldFrames;
  readonly primary: ArrivalList;
  readonly secondary: ArrivalList;
};

export class HeldFrames {
  readonly words: Int32Array;
  private readonly sinceMs: Float64Array;
  private readonly slabs: SlabPool;
  private firstFree: number = 0;

  constructor(framesMax: number, slabs: SlabPool) {
    this.slabs = slabs;
    this.words = new Int32Array(framesMax * ROW_WORDS);
    this.sinceMs = new Float64Array(framesMax);
    for (let row = 0; row < framesMax; row++) {
      this.words[row * ROW_WORDS + NEXT] = row + 1 < framesMax ? (row + 1) * ROW_WORDS : NO_FRAME;
    }
  }

  /** Adds a frame and refs its slab; returns NO_FRAME when all rows are in use. */
  add(list: ArrivalList, slab: SlabId, at: number, length: number, nowMs: Instant): FrameId {
    const { words } = this;
    const id = this.firstFree as FrameId;
    if (id === NO_FRAME) return NO_FRAME;
    this.firstFree = words[id + NEXT];
    this.slabs.ref(slab);
    this.sinceMs[id >> ROW_SHIFT] = nowMs;
    words[id + SLAB] = slab;
    words[id + AT] = at;
    words[id + LENGTH] = length;
    words[id + FLOW] = NO_FLOW;
    words[id + NEXT] = NO_FRAME;
    words[id + WAITS] = WAITS_FOR.nothing;
    words[id + OLDER] = list.newest;
    words[id + NEWER] = NO_FRAME;
    if (list.newest === NO_FRAME) list.oldest = id;
    else words[list.newest + NEWER] = id;
    list.newest = id;
    list.frames++;
    list.bytes += length;
    return id;
  }

  /** Removes a frame that is in no queue any more, and unrefs its slab. */
  remove(list: ArrivalList, id: FrameId): void {
    const { words } = this;
    const older = words[id + OLDER] as FrameId;
    const newer = words[id + NEWER] as FrameId;
    if (older === NO_FRAME) list.oldest = newer;
    else words[older + NEWER] = newer;
    if (newer === NO_FRAME) list.newest = older;
    else words[newer + OLDER] = older;
    list.frames--;
    list.bytes -= words[id + LENGTH];
    this.slabs.unref(words[id + SLAB] as SlabId);
    words[id + NEXT] = this.firstFree;
    this.firstFree = id;
  }

  /** Returns the slab that a held frame lies in. */
  slabOf(id: FrameId): SlabId {
    return this.words[id + SLAB] as SlabId;
  }

  /** Returns the offset of a held frame in its slab. */
  offsetOf(id: FrameId): number {
    return this.words[id + AT];
  }

  /** Returns the index that a held SVM frame came with. */
  indexOf(id: FrameId): number {
    return this.words[id + INDEX];
  }

  olderThan(id: FrameId): FrameId {
    return this.words[id + OLDER] as FrameId;
  }

  newerThan(id: FrameId): FrameId {
    return this.words[id + NEWER] as FrameId;
  }

  /** Returns whether one of the oldest frames of a list belongs to another flow than `flow`. */
  hasOther(list: ArrivalList, flow: FlowId): boolean {
    let id = list.oldest;
    for (let seen = 0; id !== NO_FRAME && seen < OTHER_SCAN_MAX; seen++, id = this.newerThan(id))
      if (this.words[id + FLOW] !== flow) return true;
    return false;
  }

  flowOf(id: FrameId): FlowId {
    return this.words[id + FLOW] as FlowId;
  }

  /** Returns when the frame was added. */
  since(id: FrameId): number {
    return this.sinceMs[id >> ROW_SHIFT];
  }

  enqueue(queue: FrameQueue, id: FrameId): void {
    if (queue.tail === NO_FRAME) queue.head = id;
    else {
      this.words[queue.tail + NEXT] = id;
      queue.framesAfterHead++;
      queue.bytesAfterHead += this.words[id + LENGTH];
    }
    queue.tail = id;
  }

  /** Enqueues a frame after `previous`, which is in the queue and not its tail, or before its head if that is NO_FRAME. */
  enqueueAfter(queue: FrameQueue, previous: FrameId, id: FrameId): void {
    const { words } = this;
    queue.framesAfterHead++;
    if (previous === NO_FRAME) {
      queue.bytesAfterHead += words[queue.head + LENGTH];
      words[id + NEXT] = queue.head;
      queue.head = id;
      return;
    }
    queue.bytesAfterHead += words[id + LENGTH];
    words[id + NEXT] = words[previous + NEXT];
    words[previous + NEXT] = id;
  }

  /** Takes the head off its queue; the frame itself stays held. */
  dequeue(queue: FrameQueue): FrameId {
    const { words } = this;
    const id = queue.head;
    invariant(id !== NO_FRAME, 'dequeue from an empty frame queue');
    queue.head = words[id + NEXT] as FrameId;
    if (queue.head === NO_FRAME) queue.tail = NO_FRAME;
    else {
      queue.framesAfterHead--;
      queue.bytesAfterHead -= words[queue.head + LENGTH];
    }
    words[id + NEXT] = NO_FRAME;
    return id;
  }
}
