/**
 * What the simulated world and a machine in it know of each other: frames, a clock, a timer, a die.
 *
 * A guest and a client are both machines. Nothing else enters or leaves one, so a machine is a function of what it was
 * given, and a run can be repeated from its seed.
 */

/** What a machine gets from the world. */
export type MachinePort = {
  /** The frame belongs to the world from now on. */
  send(frame: Uint8Array): void;
  /** Virtual milliseconds. */
  now(): number;
  /** Asks for `tick()` at or before that time. Asking again does not take an earlier request back. */
  wake(atMs: number): void;
  /** At least 0, below 1. Not part of any state: two machines of equal state go on with different numbers. */
  random(): number;
};

export interface Machine {
  /** The machine keeps nothing of the frame's memory. */
  receive(frame: Uint8Array): void;
  /** Too early or too often does no harm; late is what a paused machine sees. */
  tick(): void;
  /** The whole state. Equal states give equal bytes. */
  save(): Uint8Array;
  /** Into a machine made with the same options. Timers that are over by then fire with the next `tick()`. */
  load(state: Uint8Array): void;
  /** Input frames consumed so far; part of the state. */
  readonly inputs: number;
}
