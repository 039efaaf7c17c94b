/** Watches what reaches a client of one connection: does its stream, or what is acknowledged of it, still grow? */

const IPV6 = 0x86dd;
const IPV6_BYTES = 40;
const STALL_MS = 1000;

export class StreamProgress {
  stalls = 0;
  longestMs = 0;
  private grewMs: number;
  /** The ends of both streams as the client knows them. */
  private known: { end: number; ack: number } | null = null;

  constructor(nowMs: number) {
    this.grewMs = nowMs;
  }

  /** A TCP segment reaches the client. */
  frame(frame: Uint8Array, nowMs: number): void {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    const isV6 = view.getUint16(12) === IPV6;
    const tcp = 14 + (isV6 ? IPV6_BYTES : (frame[14] & 15) * 4);
    const ipEnd = 14 + (isV6 ? IPV6_BYTES + view.getUint16(18) : view.getUint16(16));
    const payloadBytes = ipEnd - tcp - (frame[tcp + 12] >> 4) * 4;
    const end = (view.getInt32(tcp + 4) + payloadBytes) | 0;
    const ack = view.getInt32(tcp + 8);
    const { known } = this;
    if (known === null) this.known = { end, ack };
    else {
      const isLater = ((end - known.end) | 0) > 0;
      const acksMore = ((ack - known.ack) | 0) > 0;
      if (!isLater && !acksMore) return;
      if (isLater) known.end = end;
      if (acksMore) known.ack = ack;
    }
    this.note(nowMs);
  }

  /** Returns how long the stream has not grown. */
  standsMs(nowMs: number): number {
    return nowMs - this.grewMs;
  }

  private note(nowMs: number): void {
    const gapMs = nowMs - this.grewMs;
    if (gapMs >= STALL_MS) this.stalls++;
    this.longestMs = Math.max(this.longestMs, gapMs);
    this.grewMs = nowMs;
  }
}
