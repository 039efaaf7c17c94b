/** A machine's one request for a tick. Without it each tick would ask for another, and they would never die out. */
import type { MachinePort } from './machine.ts';

export class Alarm {
  private readonly port: MachinePort;
  private askedAt = Number.POSITIVE_INFINITY;

  constructor(port: MachinePort) {
    this.port = port;
  }

  /** The next thing happens at that time. */
  set(atMs: number): void {
    if (atMs >= this.askedAt) return;
    this.askedAt = atMs;
    this.port.wake(atMs);
  }

  /** At each tick: a request whose time has come is used up. */
  ring(): void {
    if (this.port.now() >= this.askedAt) this.askedAt = Number.POSITIVE_INFINITY;
  }

  /** Requests of another life do not count. */
  reset(): void {
    this.askedAt = Number.POSITIVE_INFINITY;
  }
}
