/**
 * The interface between the simulated world and a machine in it: frames, a clock, a timer, a die.
 *
 * A guest and a client host are both machines. Nothing else enters or leaves one, so a machine is a function of its input,
 * and a run can be repeated from its seed.
 */

/** What the world gives a machine. */
export type MachinePort = {
  /** Sends a frame, whose memory belongs to the world from then on. */
  send(frame: Uint8Array): void;
  /** Virtual milliseconds. */
  now(): number;
  /** Asks for `tick()` at or before that time. Asking again does not take an earlier request back. */
  wake(atMs: number): void;
  /** Returns at least 0 and less than 1. Not part of any state: two machines of equal state draw different numbers. */
  random(): number;
};

export interface Machine {
  /** The machine keeps no reference to the frame. */
  receive(frame: Uint8Array): void;
  /** An early or repeated tick does no harm; a paused machine gets its tick late. */
  tick(): void;
  /** Returns the whole state. Equal states give equal bytes. */
  save(): Uint8Array;
  /** Replaces the state, saved by a machine with the same options. Timers that are over fire at the next `tick()`. */
  load(state: Uint8Array): void;
  /** Whether it has nothing to do but to wait, so that its processors are halted. Absent: it never has. */
  readonly isIdle?: boolean;
  /** Input frames consumed so far; part of the state. */
  readonly inputs: number;
}
