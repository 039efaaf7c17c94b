/** A queue of bytes that can be read at any place. It grows as needed. */
import { copyBytes } from './packets.ts';
import type { Archive } from './state.ts';

const EMPTY = new Uint8Array(0);

export class ByteQueue {
  private bytes: Uint8Array = EMPTY;
  private head = 0;
  length = 0;

  push(from: Uint8Array, at: number, length: number): void {
    if (this.head + this.length + length > this.bytes.length) this.makeRoom(length);
    copyBytes(from, at, this.bytes, this.head + this.length, length);
    this.length += length;
  }

  drop(length: number): void {
    this.head += length;
    this.length -= length;
    if (this.length === 0) this.head = 0;
  }

  /** Returns a view that the next `push` may overwrite. */
  view(at: number, length: number): Uint8Array {
    return this.bytes.subarray(this.head + at, this.head + at + length);
  }

  copyTo(to: Uint8Array, toAt: number, at: number, length: number): void {
    copyBytes(this.bytes, this.head + at, to, toAt, length);
  }

  /** Returns the place of the first such byte, or -1. */
  indexOf(byte: number): number {
    const end = this.head + this.length;
    for (let at = this.head; at < end; at++) if (this.bytes[at] === byte) return at - this.head;
    return -1;
  }

  archive(a: Archive): void {
    const all = this.length === 0 ? EMPTY : this.view(0, this.length);
    const bytes = a.bytes(all);
    if (bytes === all) return;
    this.bytes = bytes;
    this.head = 0;
    this.length = bytes.length;
  }

  private makeRoom(more: number): void {
    const needed = this.length + more;
    if (needed <= this.bytes.length / 2) {
      this.bytes.copyWithin(0, this.head, this.head + this.length);
    } else {
      const larger = new Uint8Array(Math.max(2 * needed, 256));
      larger.set(this.view(0, this.length));
      this.bytes = larger;
    }
    this.head = 0;
  }
}
