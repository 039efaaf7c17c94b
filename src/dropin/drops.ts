/**
 * Frames that were dropped at one place because there was no room for them, and the events about it.
 *
 * A flood drops thousands of frames in a second. One event begins a spell of drops, and one ends it with the number of frames:
 * when none was dropped for SPELL_QUIET_MS, or when the place closes.
 */
import type { Timers } from '../io/clock.ts';
import type { EmitDropIn } from './events.ts';

export type DropEvents = {
  /** A spell of drops begins at `place`. */
  dropping(place: string): void;
  /** It is over; `frames` were dropped in it. */
  dropped(place: string, frames: number): void;
};

/** Emits both as events of the process. */
export function dropEvents(emit: EmitDropIn): DropEvents {
  return {
    dropping: (place) => emit('frames.dropping', { place }),
    dropped: (place, frames) => emit('frames.dropped', { place, frames }),
  };
}

const SPELL_QUIET_MS = 1000;

export class Drops {
  /** since the start */
  frames = 0;
  private readonly place: string;
  private readonly timers: Pick<Timers, 'after'>;
  private readonly events: DropEvents;
  /** `frames` when the present spell began; null between two spells */
  private spellFrom: number | null = null;
  private framesAtCheck = 0;
  private cancelCheck = (): void => {};

  constructor(place: string, timers: Pick<Timers, 'after'>, events: DropEvents) {
    this.place = place;
    this.timers = timers;
    this.events = events;
  }

  /** Counts one dropped frame. */
  add(): void {
    this.frames++;
    if (this.spellFrom === null) this.begin();
  }

  /** Ends the present spell, if there is one. */
  close(): void {
    if (this.spellFrom !== null) this.end(this.spellFrom);
  }

  private begin(): void {
    this.spellFrom = this.frames - 1;
    this.events.dropping(this.place);
    this.checkLater();
  }

  private checkLater(): void {
    this.framesAtCheck = this.frames;
    this.cancelCheck = this.timers.after(SPELL_QUIET_MS, () => {
      if (this.frames > this.framesAtCheck) this.checkLater();
      else this.close();
    });
  }

  private end(from: number): void {
    this.cancelCheck();
    this.spellFrom = null;
    this.events.dropped(this.place, this.frames - from);
  }
}
