/** QEMU's stream framing, `[u32 length][frame]`, for the far ends of a node's ports: copies each frame. */

import { copyBytes, get32, newFrame, put, put32 } from './guest/packets.ts';

export class FrameCutter {
  private readonly frame: (frame: Uint8Array) => void;
  private pending: Uint8Array = new Uint8Array(0);

  constructor(frame: (frame: Uint8Array) => void) {
    this.frame = frame;
  }

  /** Takes the first `bytes` of a buffer, which may be reused afterwards. */
  feed(buffer: Uint8Array, bytes: number): void {
    const { pending } = this;
    let all = buffer;
    let end = bytes;
    if (pending.length > 0) {
      end += pending.length;
      all = new Uint8Array(end);
      all.set(pending);
      copyBytes(buffer, 0, all, pending.length, bytes);
    }
    let at = 0;
    while (at + 4 <= end) {
      const length = get32(all, at);
      if (length <= 0 || length > 69_632) throw new Error(`a frame of ${length} bytes on a port`);
      if (at + 4 + length > end) break;
      const frame = newFrame(length);
      copyBytes(all, at + 4, frame, 0, length);
      at += 4 + length;
      this.frame(frame);
    }
    this.pending = at === end ? EMPTY : all.slice(at, end);
  }
}

const EMPTY = new Uint8Array(0);

export function framed(frame: Uint8Array): Uint8Array {
  const out = newFrame(4 + frame.length);
  put32(out, 0, frame.length);
  put(out, 4, frame);
  return out;
}
