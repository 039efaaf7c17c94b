/** Captures on demand, at most one at a time: gives the paths a tap to call while one runs. */
import type { Tap } from '../datapath/tap.ts';
import { ColoError } from '../error.ts';
import type { Clock } from '../io/clock.ts';
import type { EventSink } from '../observe/events.ts';
import { PcapngWriter } from '../observe/pcapng.ts';

const MICROS_PER_MS = 1000;

export class Capture {
  private readonly events: EventSink;
  private readonly clock: Clock;
  /** Called whenever `tap` has changed. */
  private readonly onChange: () => void;
  private writer: PcapngWriter | null = null;

  constructor(events: EventSink, clock: Clock, onChange: () => void) {
    this.events = events;
    this.clock = clock;
    this.onChange = onChange;
  }

  /** The function that the paths call with each frame; null while no capture runs. */
  get tap(): Tap | null {
    const { writer } = this;
    if (writer === null) return null;
    return (point, bytes, at, length, comment) =>
      writer.write(point, this.clock.wall() * MICROS_PER_MS, bytes, at, length, comment);
  }

  start(path: string, bytesMax: number): void {
    if (this.writer !== null) {
      throw new ColoError(
        'COLO_CAPTURE_RUNNING',
        `a capture to ${this.writer.path} is running; stop it first`,
      );
    }
    const writer = new PcapngWriter({
      path,
      bytesMax,
      onEnd: (end) => {
        if (this.writer === writer) this.set(null);
        this.events.emit('capture.ended', { path, frames: end.frames, lost: end.lost, reason: end.reason });
      },
    });
    this.set(writer);
    this.events.emit('capture.started', { path, bytesMax });
  }

  stop(): { path: string; frames: number } | null {
    const { writer } = this;
    if (writer === null) return null;
    this.set(null);
    void writer.end();
    return { path: writer.path, frames: writer.frames };
  }

  private set(writer: PcapngWriter | null): void {
    this.writer = writer;
    this.onChange();
  }
}
