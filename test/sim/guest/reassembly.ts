/** Data that arrived before the data that precedes it, and the SACK blocks that report it (RFC 2018). */
import type { ByteQueue } from './byte-queue.ts';
import type { Archive } from './state.ts';

type Piece = { seq: number; bytes: Uint8Array };

/** A piece that comes while this many are stored is dropped. */
const PIECES_MAX = 64;
/** Three blocks, two edges each. */
const EDGES_MAX = 6;
const EMPTY = new Uint8Array(0);

export class Reassembly {
  /** In the order of their sequence numbers; they may overlap. */
  private pieces: Piece[] = [];
  private latestSeq = 0;

  get isEmpty(): boolean {
    return this.pieces.length === 0;
  }

  archive(a: Archive): void {
    this.pieces = a.list(this.pieces, (piece) => ({
      seq: a.number(piece?.seq ?? 0),
      bytes: a.bytes(piece?.bytes ?? EMPTY),
    }));
    this.latestSeq = a.number(this.latestSeq);
  }

  add(seq: number, bytes: Uint8Array): void {
    const { pieces } = this;
    this.latestSeq = seq;
    let i = 0;
    while (i < pieces.length && ((pieces[i].seq - seq) | 0) <= 0) {
      if (((seq + bytes.length - pieces[i].seq - pieces[i].bytes.length) | 0) <= 0) return;
      i += 1;
    }
    if (pieces.length < PIECES_MAX) pieces.splice(i, 0, { seq, bytes });
  }

  /** Moves what continues the stream at `seq` to `input`, which may hold `bytesMax`. Returns the stream's new end. */
  moveTo(input: ByteQueue, seq: number, bytesMax: number): number {
    let end = seq;
    let used = 0;
    for (const piece of this.pieces) {
      const skip = (end - piece.seq) | 0;
      if (skip < 0) break;
      used += 1;
      if (skip >= piece.bytes.length) continue;
      // A copy may have less room than the VM whose state it has.
      const length = Math.min(piece.bytes.length - skip, Math.max(bytesMax - input.length, 0));
      input.push(piece.bytes, skip, length);
      end = (end + length) | 0;
    }
    this.pieces.splice(0, used);
    return end;
  }

  /** Returns the edges of up to three blocks, the one with the latest piece first (RFC 2018 section 4). */
  sackBlocks(): number[] {
    const edges: number[] = [];
    let recent = 0;
    for (const { seq, bytes } of this.pieces) {
      const end = (seq + bytes.length) | 0;
      const last = edges.length - 1;
      if (last > 0 && ((seq - edges[last]) | 0) <= 0) {
        if (((end - edges[last]) | 0) > 0) edges[last] = end;
      } else {
        edges.push(seq, end);
      }
      if (((seq - this.latestSeq) | 0) <= 0) recent = edges.length - 2;
    }
    return [...edges.splice(recent, 2), ...edges].slice(0, EDGES_MAX);
  }
}
