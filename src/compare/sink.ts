/** What the comparator does, and what its owner asks of it. */
import type { FrameId, SlabId } from '../units.ts';
import type { Lesson } from './lesson.ts';
import type { DivergenceReason, ReleaseCause } from './verdict.ts';

export type ComparatorSink = {
  /** A PVM frame may leave. Its slab is referenced until this call returns. */
  release(slab: SlabId, at: number, length: number, cause: ReleaseCause): void;
  /** A PVM frame that will not leave: what it says left with another one, or will. */
  absorb(slab: SlabId, at: number, length: number): void;
  /** A PVM frame that chooses a value, before it is released: the secondary maps its VM's own value to it. */
  teach(lesson: Lesson, slab: SlabId, at: number, length: number): void;
  /** The client has what the SVM frame of this index carries: the secondary need not retain it. */
  confirm(index: number): void;
  /**
   * The VMs diverge in a flow, for the first time since the last commit. `primary` is the held PVM frame (in
   * `Comparator.frames`), `secondary` the SVM frame that it differs from, or NO_FRAME where no one frame does.
   */
  diverged(key: Int32Array, reason: DivergenceReason, primary: FrameId, secondary: FrameId): void;
};

/** `ranMs`: since the last checkpoint, for rules that delay the next one; absent where there are none. */
export type WaitLimits = {
  dataMs: number;
  ackMs: number;
  owedMs: number;
  secondaryMs: number;
  ranMs?: number;
};
export type Overdue = 'wait-primary' | 'wait-secondary' | null;
export type Pressure =
  | 'limit-frames'
  | 'limit-bytes'
  | 'limit-flows'
  | 'limit-share'
  | 'limit-fragments'
  | null;
/** Why a checkpoint is due whatever output waits: a limit is near, or an operator asks for one. */
export type Urgent = Pressure | 'requested';
