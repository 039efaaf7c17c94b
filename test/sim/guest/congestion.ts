/** The congestion window: slow start, congestion avoidance, fast retransmit and recovery (RFC 5681, 6582). */
import type { Archive } from './state.ts';

const DUPLICATES_FOR_LOSS = 3;

export class Congestion {
  window = 0;
  private threshold = 0x7fffffff;
  private duplicates = 0;
  private recovering = false;
  /** Recovery ends when the peer acknowledges this sequence number. */
  private recoverSeq = 0;

  archive(a: Archive): void {
    this.window = a.number(this.window);
    this.threshold = a.number(this.threshold);
    this.duplicates = a.number(this.duplicates);
    this.recovering = a.flag(this.recovering);
    this.recoverSeq = a.number(this.recoverSeq);
  }

  begin(mss: number, segments: number): void {
    this.window = segments * mss;
  }

  /** `ackedBytes` more were acknowledged, up to `una`. Returns true if the next segment is to be retransmitted. */
  acked(ackedBytes: number, una: number, mss: number): boolean {
    this.duplicates = 0;
    if (this.recovering && ((una - this.recoverSeq) | 0) < 0) return true;
    if (this.recovering) this.window = this.threshold;
    else if (this.window < this.threshold) this.window += Math.min(ackedBytes, mss);
    else this.window += Math.max(1, Math.floor((mss * mss) / this.window));
    this.recovering = false;
    return false;
  }

  /** A duplicate ACK came while `outstandingBytes` up to `max` were sent. Returns true if a segment counts as lost. */
  duplicate(outstandingBytes: number, max: number, mss: number): boolean {
    this.duplicates += 1;
    if (this.recovering) {
      this.window += mss;
      return false;
    }
    if (this.duplicates !== DUPLICATES_FOR_LOSS) return false;
    this.recovering = true;
    this.recoverSeq = max;
    this.threshold = Math.max(outstandingBytes / 2, 2 * mss);
    this.window = this.threshold + 3 * mss;
    return true;
  }

  timeout(outstandingBytes: number, mss: number): void {
    this.threshold = Math.max(outstandingBytes / 2, 2 * mss);
    this.window = mss;
    this.recovering = false;
    this.duplicates = 0;
  }
}
