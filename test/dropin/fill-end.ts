/** Sockets of a QEMU without a machine, for tests of its filters. A frame is known by its fill. */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { framed } from '../io/fake-stream.ts';

const WAIT_MS_MAX = 20_000;
const FRAME_BYTES = 60;

/** Dials until QEMU listens there. */
export async function dialQemu(path: string): Promise<Socket> {
  for (const endMs = performance.now() + WAIT_MS_MAX; ; await sleep(10)) {
    const socket = connect(path);
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    if (isOpen) return socket.on('error', () => {});
    assert.ok(performance.now() < endMs, `nothing listens on ${path}`);
  }
}

/** One end of a stream with QEMU's framing. */
export class FillEnd {
  private readonly socket: Socket;
  private bytes = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
    });
  }

  static async open(t: TestContext, path: string): Promise<FillEnd> {
    const socket = await dialQemu(path);
    t.after(() => socket.destroy());
    // QEMU takes the connection a moment after the kernel did.
    await sleep(100);
    return new FillEnd(socket);
  }

  /** Sends a frame, or its first bytes. */
  send(fill: number, bytes = Number.POSITIVE_INFINITY): void {
    this.socket.write(framed(Buffer.alloc(FRAME_BYTES, fill)).subarray(0, bytes));
  }

  /** Returns the fills of the frames that have arrived. */
  get fills(): number[] {
    const fills: number[] = [];
    for (let at = 0; at + 4 < this.bytes.length; at += 4 + this.bytes.readUInt32BE(at))
      fills.push(this.bytes[at + 4]);
    return fills;
  }

  /** Waits for as many frames; fails if these are not all that have arrived by then. */
  async expect(...fills: number[]): Promise<void> {
    const endMs = performance.now() + WAIT_MS_MAX;
    while (this.fills.length < fills.length && performance.now() < endMs) await sleep(10);
    assert.deepEqual(this.fills, fills);
  }

  close(): void {
    this.socket.destroy();
  }
}
