/**
 * Who uses a port. A port has one user at a time: a path takes it by `FramePort.seat`, and gives it back by `end`.
 *
 * The end of a seat takes back all that its user had of the port: its handler, its callbacks, and every pause of reading
 * that it had asked for. The next user therefore gets a port that reads, and a late call by the former user does nothing.
 * When a write of the former user completes, the port notifies the next one: both share its queue.
 */
import { invariant } from '../error.ts';
import type { FrameHandler } from '../frames/frame-reader.ts';

/** The user of a port, as the port calls it. */
export type PortUser = {
  readonly handler: FrameHandler;
  /** Some of what was written has left, or never will: there may be room again (`queuedBytes`). */
  written?(): void;
  /** Frames that were to leave never will. `written` follows. */
  lost?(): void;
  /** So many frames, with so many bytes, were written and never will leave: the stream ended before the kernel took them. */
  unsent?(frames: number, bytes: number): void;
};

/** The port, as a seat calls it. */
type Seated = { pauseReading(): void; resumeReading(): void; vacate(seat: Seat): void };

export class Seat {
  private readonly port: Seated;
  private pauses = 0;
  private ended = false;

  constructor(port: Seated) {
    this.port = port;
  }

  get isEnded(): boolean {
    return this.ended;
  }

  /** Stops the reading of the port; every pause needs one resume. */
  pauseReading(): void {
    if (this.ended) return;
    this.pauses++;
    this.port.pauseReading();
  }

  resumeReading(): void {
    if (this.ended) return;
    invariant(this.pauses > 0, 'a seat resumed reading that it had not paused');
    this.pauses--;
    this.port.resumeReading();
  }

  /** Gives the port back. Ending twice is harmless. */
  end(): void {
    if (this.ended) return;
    while (this.pauses > 0) this.resumeReading();
    this.ended = true;
    this.port.vacate(this);
  }
}

/** One reason to pause the reading of a port. It remembers whether it did, so that asking again costs nothing. */
export class Valve {
  private readonly seat: Seat;
  private shut = false;

  constructor(seat: Seat) {
    this.seat = seat;
  }

  get isShut(): boolean {
    return this.shut;
  }

  /** Pauses the reading while `full`. */
  shutIf(full: boolean): void {
    if (full === this.shut) return;
    this.shut = full;
    if (full) this.seat.pauseReading();
    else this.seat.resumeReading();
  }
}
