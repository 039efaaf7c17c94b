/**
 * How far the SVM has sent its stream in its own numbers without a jump: a real checkpoint in the recordings makes them jump, so
 * what goes on, at once or out of order, is counted as what came before.
 *
 * Limits: LATER_MAX segments beyond the end are remembered, in case what is missing before them comes out of order.
 */
import { seqBefore } from '../flow/sequence.ts';

const LATER_MAX = 8;

type Piece = { from: number; to: number };
const NONE: Piece[] = [];

export class OwnNumbers {
  /** The end of what is known; null while nothing is. */
  private end: number | null = null;
  /* Most flows need none. */
  private later: Piece[] = NONE;

  /** It is known how the SVM counts up to `end`. */
  begin(end: number | null): void {
    this.end = end;
    this.later = NONE;
  }

  /** Takes the bytes from `from` to `to`. Returns true if they go on where the SVM's last ones ended. */
  goesOn(from: number, to: number): boolean {
    if (this.end === null) return false;
    if (from !== this.end) {
      if (seqBefore(this.end, from)) this.keep({ from, to });
      return false;
    }
    this.end = to;
    for (;;) {
      const next = this.later.findIndex((piece) => piece.from === this.end);
      if (next < 0) return true;
      [{ to: this.end }] = this.later.splice(next, 1);
    }
  }

  private keep(piece: Piece): void {
    if (this.later === NONE) this.later = [];
    this.later.push(piece);
    if (this.later.length > LATER_MAX) this.later.shift();
  }
}
