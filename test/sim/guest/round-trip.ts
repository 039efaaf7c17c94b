/** The retransmission timeout, from measured round trips (RFC 6298). */
import type { Archive } from './state.ts';
import type { TcpOptions } from './tcp-options.ts';

const INITIAL_MS = 1000;

export class RoundTrip {
  rtoMs = INITIAL_MS;
  private smoothedMs = 0;
  private varianceMs = 0;

  archive(a: Archive): void {
    this.smoothedMs = a.number(this.smoothedMs);
    this.varianceMs = a.number(this.varianceMs);
    this.rtoMs = a.number(this.rtoMs);
  }

  measure(ms: number): void {
    if (this.smoothedMs === 0) {
      this.smoothedMs = Math.max(ms, 0.001);
      this.varianceMs = ms / 2;
    } else {
      this.varianceMs += (Math.abs(this.smoothedMs - ms) - this.varianceMs) / 4;
      this.smoothedMs += (ms - this.smoothedMs) / 8;
    }
  }

  /** New data was acknowledged: the timeout is computed from the measurements again. */
  reset({ rtoMsMin, rtoMsMax }: TcpOptions): void {
    const ms = this.smoothedMs === 0 ? INITIAL_MS : this.smoothedMs + Math.max(4 * this.varianceMs, 1);
    this.rtoMs = Math.min(Math.max(ms, rtoMsMin), rtoMsMax);
  }

  backOff({ rtoMsMax }: TcpOptions): void {
    this.rtoMs = Math.min(2 * this.rtoMs, rtoMsMax);
  }
}
