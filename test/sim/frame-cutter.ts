/** QEMU's stream framing as the far ends of a node's ports do it: `[u32 length][frame]`, with a copy per frame. */

import { newFrame } from './guest/packets.ts';

export class FrameCutter {
  private readonly frame: (frame: Uint8Array) => void;
  private pending: Uint8Array = new Uint8Array(0);

  constructor(frame: (frame: Uint8Array) => void) {
    this.frame = frame;
  }

  feed(bytes: Uint8Array): void {
    const { pending } = this;
    const all = newFrame(pending.length + bytes.length);
    all.set(pending);
    all.set(bytes, pending.length);
    let at = 0;
    while (at + 4 <= all.length) {
      const length = (all[at] << 24) | (all[at + 1] << 16) | (all[at + 2] << 8) | all[at + 3];
      if (length <= 0 || length > 69_632) throw new Error(`a frame of ${length} bytes on a port`);
      if (at + 4 + length > all.length) break;
      this.frame(all.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
    this.pending = at === all.length ? EMPTY : all.subarray(at);
  }
}

const EMPTY = new Uint8Array(0);

export function framed(frame: Uint8Array): Uint8Array {
  const out = newFrame(4 + frame.length);
  out[0] = frame.length >>> 24;
  out[1] = frame.length >>> 16;
  out[2] = frame.length >>> 8;
  out[3] = frame.length;
  out.set(frame, 4);
  return out;
}
