/** Whoever takes checkpoints for `colo compare`, and what it tells of them. */
import type { EmitDropIn } from './events.ts';

export type CheckpointEvents = {
  /** The PVM has stopped; it may be for a checkpoint. */
  stood(): void;
  /** The PVM runs on. Which of the following three it is comes next; what it says until then belongs to that. */
  resumed(): void;
  /** No checkpoint was taken. */
  ranOn(): void;
  /** Both VMs are equal. */
  committed(): void;
  /** There is no secondary (yet, or any more). */
  alone(): void;
  /** The connection came or went, or the peer said what nobody understands. */
  note: EmitDropIn;
};

export interface CheckpointSource {
  start(): Promise<void>;
  /** Asks for a checkpoint; without a connection, or when it is refused, nothing happens. */
  ask(): void;
  close(): Promise<void>;
}
