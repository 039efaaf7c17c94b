/**
 * The frames that the comparator holds, as rows of numbers: no object per frame, and one cache line for each.
 *
 * A frame's id is the place of its row in `words`; what the row holds stands at `words[id + SEQ]` and so on. Each
 * frame is in one queue of its flow (`NEXT`), and in one list of its side in order of arrival (`OLDER`, `NEWER`): a
 * commit releases in that order, and the oldest one is the one that has waited longest.
 */

import { invariant } from '../error.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { FrameId, Instant, SlabId } from '../units.ts';

export const NONE = -1;
/** In place of a frame where there is none. */
export const NO_FRAME = NONE as FrameId;

/* The columns of a row. */
export const SLAB = 0;
export const AT = 1;
export const LENGTH = 2;
export const FLOW = 3;
/** first payload byte in the slab, and how many there are */
export const PAYLOAD = 4;
export const PAYLOAD_BYTES = 5;
/** TCP: of the first payload byte, behind a SYN. Of a fragment: its place in the datagram. */
export const SEQ = 6;
/** first sequence number after the frame, FIN included; first place after the fragment */
export const SEQ_END = 7;
export const ACK = 8;
/** TCP's, and those below */
export const FLAGS = 9;
/** number of an SVM frame in its epoch; where the urgent data of a PVM segment ends */
export const INDEX = 10;
export const WAITS = 11;
export const NEXT = 12;
const OLDER = 13;
const NEWER = 14;
/** the next fragment of the same datagram */
export const PIECE = 15;
/** of a SYN: what its options settle */
export const SETTLES = PIECE;
/** of the first fragment: payload bytes of the whole datagram */
export const DATAGRAM_BYTES = ACK;
const ROW_SHIFT = 4;
const ROW_WORDS = 1 << ROW_SHIFT;

/** In FLAGS: a SYN whose connection is signed. */
export const SIGNED = 0x100;
/** In FLAGS: the first fragment of a datagram that is complete. */
export const IN_PIECES = 0x200;
/** In FLAGS: an ICMP error. */
export const QUOTES = 0x400;

/* The columns of a queue: those of a frame's way through it, and what only a longer one needs. */
const HEAD = 0;
const TAIL = 1;
const FRAMES_BEHIND = 16;
const BYTES_BEHIND = 17;

/**
 * One side's frames of one flow, first in first out, as numbers in the flow's row (flow-state.ts). What is behind the
 * head is counted, so that a queue that never has more than one frame costs no counting.
 */
export class FrameQueue {
  /** where in `words` the queue is */
  at = 0;
  private readonly words: Int32Array;

  constructor(words: Int32Array) {
    this.words = words;
  }

  get head(): number {
    return this.words[this.at + HEAD];
  }
  set head(id: number) {
    this.words[this.at + HEAD] = id;
  }

  get tail(): number {
    return this.words[this.at + TAIL];
  }
  set tail(id: number) {
    this.words[this.at + TAIL] = id;
  }

  get framesBehind(): number {
    return this.words[this.at + FRAMES_BEHIND];
  }
  set framesBehind(frames: number) {
    this.words[this.at + FRAMES_BEHIND] = frames;
  }

  get bytesBehind(): number {
    return this.words[this.at + BYTES_BEHIND];
  }
  set bytesBehind(bytes: number) {
    this.words[this.at + BYTES_BEHIND] = bytes;
  }

  /** Forgets what is in the queue, whose frames are let go of elsewhere. */
  clear(): void {
    this.head = NONE;
    this.tail = NONE;
    this.framesBehind = 0;
    this.bytesBehind = 0;
  }
}

/** All frames of one side, in order of arrival. */
export type ArrivalList = { oldest: number; newest: number; frames: number; bytes: number };

export function emptyArrivalList(): ArrivalList {
  return { oldest: NONE, newest: NONE, frames: 0, bytes: 0 };
}

/** What a frame at the head of its queue waits for: the value of its `WAITS`. */
export const WAITS_FOR = { nothing: 0, bytes: 1, ack: 2 } as const;

export class HeldFrames {
  readonly words: Int32Array;
  private readonly sinceMs: Float64Array;
  private readonly slabs: SlabPool;
  private firstFree = 0;

  constructor(framesMax: number, slabs: SlabPool) {
    this.slabs = slabs;
    this.words = new Int32Array(framesMax * ROW_WORDS);
    this.sinceMs = new Float64Array(framesMax);
    for (let row = 0; row < framesMax; row++) {
      this.words[row * ROW_WORDS + NEXT] = row + 1 < framesMax ? (row + 1) * ROW_WORDS : NONE;
    }
  }

  /** Holds a frame and its slab; NONE when the rows are full. */
  add(list: ArrivalList, slab: SlabId, at: number, length: number, nowMs: Instant): number {
    const { words } = this;
    const id = this.firstFree;
    if (id === NONE) return NONE;
    this.firstFree = words[id + NEXT];
    this.slabs.ref(slab);
    this.sinceMs[id >> ROW_SHIFT] = nowMs;
    words[id + SLAB] = slab;
    words[id + AT] = at;
    words[id + LENGTH] = length;
    words[id + FLOW] = NONE;
    words[id + NEXT] = NONE;
    words[id + WAITS] = WAITS_FOR.nothing;
    words[id + OLDER] = list.newest;
    words[id + NEWER] = NONE;
    if (list.newest === NONE) list.oldest = id;
    else words[list.newest + NEWER] = id;
    list.newest = id;
    list.frames++;
    list.bytes += length;
    return id;
  }

  /** Lets go of a frame that is in no queue any more. */
  remove(list: ArrivalList, id: number): void {
    const { words } = this;
    const older = words[id + OLDER];
    const newer = words[id + NEWER];
    if (older === NONE) list.oldest = newer;
    else words[older + NEWER] = newer;
    if (newer === NONE) list.newest = older;
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

  newerThan(id: number): number {
    return this.words[id + NEWER];
  }

  /** When the frame was added. */
  since(id: number): number {
    return this.sinceMs[id >> ROW_SHIFT];
  }

  enqueue(queue: FrameQueue, id: number): void {
    if (queue.tail === NONE) queue.head = id;
    else {
      this.words[queue.tail + NEXT] = id;
      queue.framesBehind++;
      queue.bytesBehind += this.words[id + LENGTH];
    }
    queue.tail = id;
  }

  /** Takes the head off; the frame itself stays held. */
  dequeue(queue: FrameQueue): number {
    const { words } = this;
    const id = queue.head;
    invariant(id !== NONE, 'dequeue from an empty frame queue');
    queue.head = words[id + NEXT];
    if (queue.head === NONE) queue.tail = NONE;
    else {
      queue.framesBehind--;
      queue.bytesBehind -= words[queue.head + LENGTH];
    }
    words[id + NEXT] = NONE;
    return id;
  }
}
