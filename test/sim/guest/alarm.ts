/** Keeps a machine to one pending request for a tick. Otherwise each tick would ask for another, without end. */
import type { MachinePort } from './machine.ts';

export class Alarm {
  private readonly port: MachinePort;
  private askedAt = Number.POSITIVE_INFINITY;

  constructor(port: MachinePort) {
    this.port = port;
  }

  /** The machine's next event is at that time. */
  set(atMs: number): void {
    if (atMs >= this.askedAt) return;
    this.askedAt = atMs;
    this.port.wake(atMs);
  }

  /** To be called at each tick: a request whose time has come is used up. */
  ring(): void {
    if (this.port.now() >= this.askedAt) this.askedAt = Number.POSITIVE_INFINITY;
  }

  /** Forgets the request: the machine was loaded with another state. */
  reset(): void {
    this.askedAt = Number.POSITIVE_INFINITY;
  }
}
