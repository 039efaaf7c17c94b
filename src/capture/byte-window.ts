/**
 * The bytes of a file that have been read and not used yet, in one piece.
 *
 * A reader checks `left`, and then reads `bytes` from `at`. `skip` may skip more than has been read: the rest is dropped when
 * it is pushed, so bytes that are skipped need no memory.
 *
 * What is pushed is copied into one buffer, which grows to the longest record and what is read at once: a file of any size is
 * read without garbage. So what was read before a push is void after it.
 */
import { invariant } from '../error.ts';

export class ByteWindow {
  bytes: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(this.bytes.buffer);
  at = 0;
  /** there are no more bytes in the file */
  ended = false;
  private end = 0;
  /** offset of bytes[0] in the file */
  private base = 0;
  private toSkip = 0;

  get left(): number {
    return this.end - this.at;
  }

  /** Offset of the next byte in the file. */
  get offset(): number {
    return this.base + this.at;
  }

  /** Number of bytes that are still to be skipped. */
  get skipping(): number {
    return this.toSkip;
  }

  push(chunk: Uint8Array): void {
    const dropped = Math.min(this.toSkip, chunk.length);
    this.toSkip -= dropped;
    const { left, at } = this;
    invariant(dropped === 0 || left === 0, 'bytes after those to be skipped were read before them');
    const more = chunk.length - dropped;
    const old = this.bytes;
    if (left + more > old.length) {
      this.bytes = new Uint8Array(Math.max(left + more, 2 * old.length));
      this.view = new DataView(this.bytes.buffer);
      this.bytes.set(old.subarray(at, at + left));
    } else old.copyWithin(0, at, at + left);
    this.bytes.set(dropped === 0 ? chunk : chunk.subarray(dropped), left);
    this.base += at + dropped;
    this.at = 0;
    this.end = left + more;
  }

  skip(bytes: number): void {
    const now = Math.min(bytes, this.left);
    this.at += now;
    this.toSkip += bytes - now;
  }
}
