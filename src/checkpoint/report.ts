/** The reasons for checkpoints, and the reports of each one and of a first copy, as events, status and metrics show them. */
import type { DivergenceClass } from '../divergence/explained.ts';

export const CHECKPOINT_REASONS = [
  'initial',
  'diverged-bytes',
  'diverged-flags',
  'diverged-length',
  'diverged-signed',
  'diverged-fragments',
  'wait-primary',
  'wait-secondary',
  'limit-frames',
  'limit-bytes',
  'limit-flows',
  'limit-share',
  'limit-fragments',
  'interval',
  'requested',
] as const;
export type CheckpointReason = (typeof CHECKPOINT_REASONS)[number];

/** What a checkpoint is taken for. One flow is the reason of `diverged-...`, the first of its epoch, and of `wait-...`. */
export type CheckpointCause = {
  reason: CheckpointReason;
  /** of a divergence */
  class?: DivergenceClass;
  /** absent where no one flow is the reason, or it is not known */
  flow?: string;
  service?: string;
};

/** One committed checkpoint; times in milliseconds, `atMs` is Unix time. */
export type CheckpointReport = CheckpointCause & {
  epoch: number;
  /** from the decision until the gate was open again */
  totalMs: number;
  /** from the closed gate until both VMs had read their input */
  drainMs: number;
  /** the PVM was stopped (STOP to RESUME, as the relay sees it) */
  pauseMs: number;
  /** how many of the two VMs had not read all of their input in time; absent from an exact checkpoint */
  inexact?: number;
  /** bytes of VM state that crossed the link */
  stateBytes: number;
  /** primary frames that the commit released without a counterpart */
  releasedFrames: number;
  /** primary frames that matched in the epoch that the commit ended */
  matchedFrames: number;
  atMs: number;
};

/** A first copy, at the end of which the VM stops twice: for the last of its memory, and for the first checkpoint. */
export type FirstCopyReport = {
  /** from the decision until the first checkpoint was complete */
  tookMs: number;
  /** how often the VM was stopped, for how long in all, and the longest time at once (STOP to RESUME of QEMU) */
  pauses: number;
  pausedMs: number;
  longestPauseMs: number;
  /** from the stop for the last of its memory until both VMs received input again: a client may have waited for so long */
  standMs: number;
  atMs: number;
};
