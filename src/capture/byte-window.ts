/**
 * The part of a file that has been read and not used yet, in one piece.
 *
 * Whoever reads it looks at `bytes` from `at` on, and asks `left` first. `skip` may go beyond what has been read:
 * the bytes are then thrown away as they come, so what nobody wants needs no memory.
 */
export class ByteWindow {
  bytes: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(this.bytes.buffer);
  at = 0;
  /** nothing comes any more */
  ended = false;
  private end = 0;
  /** where in the file bytes[0] lies */
  private base = 0;
  private toSkip = 0;

  get left(): number {
    return this.end - this.at;
  }

  /** Where in the file the next byte lies. */
  get offset(): number {
    return this.base + this.at;
  }

  /** Bytes that are still to be skipped. */
  get skipping(): number {
    return this.toSkip;
  }

  push(chunk: Uint8Array): void {
    const dropped = Math.min(this.toSkip, chunk.length);
    this.toSkip -= dropped;
    const { left } = this;
    const more = chunk.length - dropped;
    if (left === 0) {
      this.base += this.at + dropped;
      this.at = 0;
      this.end = more;
      this.look(chunk.subarray(dropped));
      return;
    }
    const joined = new Uint8Array(left + more);
    joined.set(this.bytes.subarray(this.at, this.end));
    joined.set(chunk, left);
    this.base += this.at;
    this.at = 0;
    this.end = left + more;
    this.look(joined);
  }

  skip(bytes: number): void {
    const now = Math.min(bytes, this.left);
    this.at += now;
    this.toSkip += bytes - now;
  }

  private look(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
}
