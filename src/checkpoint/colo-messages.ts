/**
 * QEMU's COLO messages on the migration stream, as seen from outside.
 *
 * Secondary to primary: first return-path messages (big-endian u16 type, u16 length, data; since QEMU 11, which uses the
 * return path), then READY, then REPLY, RECEIVED, LOADED for each checkpoint, four bytes each. Primary to secondary: a
 * REQUEST is four bytes alone, while the stream is idle; everything else is VM state.
 */
export const COLO_MESSAGE = {
  ready: 0,
  request: 1,
  reply: 2,
  vmstateSend: 3,
  vmstateSize: 4,
  received: 5,
  loaded: 6,
} as const;

export type ReverseMessage = 'ready' | 'reply' | 'received' | 'loaded';

/** A return-path message is never longer than this (the longest known one names RAM pages: 4 + 12 + 255 bytes). */
const RETURN_PATH_BYTES_MAX = 4096;

export function coloMessageBytes(message: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(message);
  return bytes;
}

export type ReverseSink = {
  /** A return-path message, to be passed on as it is. */
  passThrough(bytes: Buffer): void;
  message(message: ReverseMessage): void;
  /** The bytes are none that a QEMU sends here; nothing after them is parsed. */
  garbled(what: string): void;
};

/** Cuts the secondary-to-primary direction into its messages, however the bytes arrive. */
export class ReverseParser {
  private readonly sink: ReverseSink;
  private pending: Buffer = Buffer.alloc(0);
  private ready = false;
  private broken = false;

  constructor(sink: ReverseSink) {
    this.sink = sink;
  }

  feed(bytes: Uint8Array): void {
    if (this.broken) return;
    this.pending = Buffer.concat([this.pending, bytes]);
    while (!this.broken && this.pending.length >= 4) {
      const taken = this.ready ? this.takeColo() : this.takeReturnPath();
      if (taken === 0) return;
      this.pending = this.pending.subarray(taken);
    }
  }

  private takeReturnPath(): number {
    const type = this.pending.readUInt16BE(0);
    const length = this.pending.readUInt16BE(2);
    if (type === 0) {
      if (length !== 0) return this.fail(`return-path message of type 0 with ${length} bytes`);
      this.ready = true;
      this.sink.message('ready');
      return 4;
    }
    if (length > RETURN_PATH_BYTES_MAX) return this.fail(`return-path message of ${length} bytes`);
    if (this.pending.length < 4 + length) return 0;
    this.sink.passThrough(Buffer.from(this.pending.subarray(0, 4 + length)));
    return 4 + length;
  }

  private takeColo(): number {
    const code = this.pending.readUInt32BE(0);
    if (code === COLO_MESSAGE.reply) this.sink.message('reply');
    else if (code === COLO_MESSAGE.received) this.sink.message('received');
    else if (code === COLO_MESSAGE.loaded) this.sink.message('loaded');
    else return this.fail(`COLO message ${code} from the secondary`);
    return 4;
  }

  private fail(what: string): number {
    this.broken = true;
    this.sink.garbled(what);
    return 0;
  }
}
