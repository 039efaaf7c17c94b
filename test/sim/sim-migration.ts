/** One end of QEMU's migration stream in COLO: 32-bit messages, and pieces of state with a length. */
import type { KernelStream } from '../../src/io/byte-stream.ts';
import type { SimSocket } from './sim-socket.ts';

/** The phases of a migration at which faults can strike. */
export const PHASES = [
  'copying',
  'copied',
  'request',
  'reply',
  'state',
  'received',
  'loading',
  'loaded',
] as const;
export type Phase = (typeof PHASES)[number];

export const MESSAGE = {
  ready: 0,
  request: 1,
  reply: 2,
  vmstateSend: 3,
  vmstateSize: 4,
  received: 5,
  loaded: 6,
};
/** In the first copy: a piece of RAM, and the device state that ends it. */
export const PIECE = { ram: 0x10, state: 0x11 };

const READ_BYTES = 65_536;
const EMPTY = new Uint8Array(0);

export type MigrationSink = {
  /** Bytes have come; `input` holds all that nothing has taken yet. */
  received(): void;
  broke(): void;
};

export class MigrationStream {
  /** Received and not yet taken. */
  input: Uint8Array = EMPTY;
  private readonly stream: KernelStream;

  constructor(stream: KernelStream) {
    this.stream = stream;
  }

  start(sink: MigrationSink): void {
    const buffer = new Uint8Array(READ_BYTES);
    this.stream.start({
      buffer: () => buffer,
      read: (bytes) => {
        this.input = concat(this.input, buffer.subarray(0, bytes));
        sink.received();
      },
      closed: () => sink.broke(),
    });
  }

  close(): void {
    this.stream.close();
  }

  /** A write would fail now. */
  get isBroken(): boolean {
    return (this.stream as SimSocket).broken;
  }

  send(...words: number[]): void {
    const bytes = new Uint8Array(4 * words.length);
    const view = new DataView(bytes.buffer);
    words.forEach((word, i) => {
      view.setUint32(4 * i, word);
    });
    this.write(bytes);
  }

  sendPiece(kind: number, bytes: Uint8Array): void {
    this.send(kind, bytes.length);
    this.write(bytes);
  }

  write(bytes: Uint8Array): void {
    this.stream.write(bytes, () => {});
  }

  /** Returns the n-th word of the input, or null if it has not come yet. */
  word(n: number): number | null {
    const { input } = this;
    if (input.length < 4 * n + 4) return null;
    return new DataView(input.buffer, input.byteOffset, input.length).getUint32(4 * n);
  }

  /** Takes bytes off the input. */
  take(bytes: number): Uint8Array {
    const taken = this.input.subarray(0, bytes);
    this.input = this.input.subarray(bytes);
    return taken;
  }
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
