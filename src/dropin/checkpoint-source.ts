/** What takes the checkpoints for `colo compare`, and what it notifies of. */
import type { EmitDropIn } from './events.ts';

export type CheckpointEvents = {
  /** The PVM has stopped, maybe for a checkpoint. */
  stopped(): void;
  /** The PVM runs again. One of the next three calls follows; until then its frames may belong to either epoch. */
  resumed(): void;
  /** No checkpoint was taken. Also called, without effect, after the other two. */
  unchanged(): void;
  /** The VMs are equal. */
  committed(): void;
  /** There is no secondary (yet, or any more). */
  alone(): void;
  /** There is a secondary. Which output both VMs have sent before is not known: only a checkpoint makes them equal. */
  primary(): void;
  /** The source is not there, or does not reply: whether there is a secondary is not known. */
  unknown(): void;
  /** COLO ended by an error. The secondary may run, and may be promoted. */
  broken(): void;
  note: EmitDropIn;
};

export interface CheckpointSource {
  start(): Promise<void>;
  /** Asks for a checkpoint. Does nothing without a connection; a refusal is only noted. */
  ask(): void;
  close(): Promise<void>;
}
