/**
 * The frames that the comparator holds, as columns of numbers: no object per frame.
 *
 * Each frame is in one queue of its flow (`next`), and in one list of its side in order of arrival
 * (`older`/`newer`): a commit releases in that order, and the oldest one is the one that has waited longest.
 */

import { invariant } from '../error.ts';
import type { SlabPool } from '../frames/slabs.ts';

export const NONE = -1;

/** One side's frames of one flow, first in first out. */
export type FrameQueue = { head: number; tail: number };

export function emptyQueue(): FrameQueue {
  return { head: NONE, tail: NONE };
}

/** All frames of one side, in order of arrival. */
export type ArrivalList = { oldest: number; newest: number; frames: number; bytes: number };

export function emptyArrivalList(): ArrivalList {
  return { oldest: NONE, newest: NONE, frames: 0, bytes: 0 };
}

/** What a frame at the head of its queue waits for. */
export const WAITS_FOR = { nothing: 0, bytes: 1, ack: 2 } as const;

export class HeldFrames {
  readonly slab: Int32Array;
  readonly at: Int32Array;
  readonly length: Int32Array;
  readonly flow: Int32Array;
  /** first payload byte in the slab, and how many there are */
  readonly payload: Int32Array;
  readonly payloadBytes: Int32Array;
  readonly seq: Int32Array;
  /** first sequence number after the frame, FIN included */
  readonly seqEnd: Int32Array;
  readonly ack: Int32Array;
  readonly flags: Uint8Array;
  /** number of an SVM frame in its epoch */
  readonly index: Int32Array;
  readonly sinceMs: Float64Array;
  readonly waitsFor: Uint8Array;
  readonly next: Int32Array;
  private readonly older: Int32Array;
  private readonly newer: Int32Array;
  private readonly slabs: SlabPool;
  private firstFree = 0;

  constructor(framesMax: number, slabs: SlabPool) {
    this.slabs = slabs;
    this.slab = new Int32Array(framesMax);
    this.at = new Int32Array(framesMax);
    this.length = new Int32Array(framesMax);
    this.flow = new Int32Array(framesMax);
    this.payload = new Int32Array(framesMax);
    this.payloadBytes = new Int32Array(framesMax);
    this.seq = new Int32Array(framesMax);
    this.seqEnd = new Int32Array(framesMax);
    this.ack = new Int32Array(framesMax);
    this.flags = new Uint8Array(framesMax);
    this.index = new Int32Array(framesMax);
    this.sinceMs = new Float64Array(framesMax);
    this.waitsFor = new Uint8Array(framesMax);
    this.next = new Int32Array(framesMax);
    this.older = new Int32Array(framesMax);
    this.newer = new Int32Array(framesMax);
    for (let id = 0; id < framesMax; id++) this.next[id] = id + 1 < framesMax ? id + 1 : NONE;
  }

  /** Holds a frame and its slab; NONE when the columns are full. */
  add(list: ArrivalList, slab: number, at: number, length: number, nowMs: number): number {
    const id = this.firstFree;
    if (id === NONE) return NONE;
    this.firstFree = this.next[id];
    this.slabs.retain(slab);
    this.slab[id] = slab;
    this.at[id] = at;
    this.length[id] = length;
    this.sinceMs[id] = nowMs;
    this.flow[id] = NONE;
    this.next[id] = NONE;
    this.waitsFor[id] = WAITS_FOR.nothing;
    this.older[id] = list.newest;
    this.newer[id] = NONE;
    if (list.newest === NONE) list.oldest = id;
    else this.newer[list.newest] = id;
    list.newest = id;
    list.frames++;
    list.bytes += length;
    return id;
  }

  /** Lets go of a frame that is in no queue any more. */
  remove(list: ArrivalList, id: number): void {
    const { older, newer } = this;
    if (older[id] === NONE) list.oldest = newer[id];
    else newer[older[id]] = newer[id];
    if (newer[id] === NONE) list.newest = older[id];
    else older[newer[id]] = older[id];
    list.frames--;
    list.bytes -= this.length[id];
    this.slabs.release(this.slab[id]);
    this.next[id] = this.firstFree;
    this.firstFree = id;
  }

  newerThan(id: number): number {
    return this.newer[id];
  }

  enqueue(queue: FrameQueue, id: number): void {
    if (queue.tail === NONE) queue.head = id;
    else this.next[queue.tail] = id;
    queue.tail = id;
  }

  /** Takes the head off; the frame itself stays held. */
  dequeue(queue: FrameQueue): number {
    const id = queue.head;
    invariant(id !== NONE, 'dequeue from an empty frame queue');
    queue.head = this.next[id];
    if (queue.head === NONE) queue.tail = NONE;
    this.next[id] = NONE;
    return id;
  }
}
