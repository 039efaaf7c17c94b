/**
 * The bytes of a file that have been read and not used yet, in one piece.
 *
 * A reader checks `left`, and then reads `bytes` from `at`. `skip` may skip more than has been read: the rest is dropped when
 * it is pushed, so bytes that are skipped need no memory.
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
    const { left } = this;
    invariant(dropped === 0 || left === 0, 'bytes after those to be skipped were read before them');
    const more = chunk.length - dropped;
    if (left === 0) {
      this.base += this.at + dropped;
      this.at = 0;
      this.end = more;
      this.replace(chunk.subarray(dropped));
      return;
    }
    const joined = new Uint8Array(left + more);
    joined.set(this.bytes.subarray(this.at, this.end));
    joined.set(chunk, left);
    this.base += this.at;
    this.at = 0;
    this.end = left + more;
    this.replace(joined);
  }

  skip(bytes: number): void {
    const now = Math.min(bytes, this.left);
    this.at += now;
    this.toSkip += bytes - now;
  }

  private replace(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
}
