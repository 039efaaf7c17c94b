/** QEMU's framing of a stream: a big-endian length of four bytes, then the frame. */

const LENGTH_BYTES = 4;

/** Cuts a stream after its whole frames. */
export class WholeFrames {
  private readonly pass: (frames: Buffer) => void;
  private rest: Buffer = Buffer.alloc(0);

  /** `pass` gets one or more whole frames, with their lengths, in one buffer. */
  constructor(pass: (frames: Buffer) => void) {
    this.pass = pass;
  }

  push(chunk: Buffer): void {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    let end = 0;
    while (end + LENGTH_BYTES <= bytes.length) {
      const next = end + LENGTH_BYTES + bytes.readUInt32BE(end);
      if (next > bytes.length) break;
      end = next;
    }
    this.rest = bytes.subarray(end);
    if (end > 0) this.pass(bytes.subarray(0, end));
  }
}

/** Calls `take` with each of some whole frames, without its length. */
export function eachFrame(frames: Buffer, take: (frame: Buffer) => void): void {
  for (let at = 0; at < frames.length; ) {
    const end = at + LENGTH_BYTES + frames.readUInt32BE(at);
    take(frames.subarray(at + LENGTH_BYTES, end));
    at = end;
  }
}
