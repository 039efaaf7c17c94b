/**
 * What a port has written and the kernel has not taken yet: the pieces of memory, oldest first, each of them whole frames.
 *
 * It answers where a stream stands when it ends: how many frames the peer will never get, and which bytes are missing of
 * the one that the kernel has taken in part. Limits: those of what may wait for the socket (limits.ts).
 */
import { invariant } from '../error.ts';
import { readU32 } from '../wire/bytes.ts';

/** Fewer pieces are not worth moving. */
const COMPACT_MIN = 1024;

/** What the peer does not get if the stream ends now. */
export type Unsent = {
  /** Frames of which the kernel has taken no byte. */
  readonly frames: number;
  readonly bytes: number;
  /** The frame that the kernel has taken in part, and what is missing of it; null at a frame boundary. */
  readonly cut: { readonly bytes: number; readonly rest: Uint8Array } | null;
};

export class InFlight {
  private readonly prefixBytes: number;
  private pieces: Uint8Array[] = [];
  private head = 0;
  /** Bytes of the pieces that were taken whole, and reported so. */
  private doneBytes = 0;

  constructor(prefixBytes: number) {
    this.prefixBytes = prefixBytes;
  }

  get isEmpty(): boolean {
    return this.head === this.pieces.length;
  }

  /** Whether nothing was ever written. */
  get isUnused(): boolean {
    return this.isEmpty && this.doneBytes === 0;
  }

  push(piece: Uint8Array): void {
    this.pieces.push(piece);
  }

  /** The oldest piece was taken. */
  done(): void {
    invariant(!this.isEmpty, 'the kernel took a piece that was not written');
    this.doneBytes += this.pieces[this.head].length;
    this.head++;
    if (this.head < COMPACT_MIN || 2 * this.head < this.pieces.length) return;
    this.pieces = this.pieces.slice(this.head);
    this.head = 0;
  }

  /** The kernel has taken `acceptedBytes` since the first piece; less than is known to be done counts as that. */
  unsent(acceptedBytes: number): Unsent {
    const takenBytes = Math.max(acceptedBytes, this.doneBytes);
    let frames = 0;
    let bytes = 0;
    let cut: Unsent['cut'] = null;
    let at = this.doneBytes;
    for (let i = this.head; i < this.pieces.length; i++) {
      const piece = this.pieces[i];
      for (let from = 0; from < piece.length; ) {
        const length = readU32(piece, from);
        const to = from + this.prefixBytes + length;
        if (at + from >= takenBytes) {
          frames++;
          bytes += length;
        } else if (at + to > takenBytes) cut = { bytes: length, rest: piece.subarray(takenBytes - at, to) };
        from = to;
      }
      at += piece.length;
    }
    return { frames, bytes, cut };
  }
}
