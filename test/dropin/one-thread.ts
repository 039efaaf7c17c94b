/**
 * A model of QEMU's main loop: one thread that writes frames to chardevs, reads chardevs, and replies over QMP.
 *
 * A write blocks: until the other end has read enough, the thread reads nothing and replies to nothing. Everything else it
 * does in the order in which it became due, a piece of each readable chardev between any two. Nothing moves unless `step` is
 * called, so a test chooses when the thread runs and when the process at the other end does.
 */
import assert from 'node:assert/strict';
import { type FakeStream, fakePair, framed, unframed } from '../io/fake-stream.ts';
import { FakeQemu } from './fake-qemu.ts';

type Port = { readonly name: string; attach(stream: FakeStream): void };

/** What the thread has to do: something short, or a blocking write. */
type Work =
  | { kind: 'act'; act(): void }
  | { kind: 'write'; far: FakeStream; near: FakeStream; bytes: Buffer };

export class OneThread {
  readonly qmp = new FakeQemu();
  private readonly socketBytes: number;
  private readonly readBytes: number;
  private readonly ends = new Map<string, { near: FakeStream; far: FakeStream }>();
  private readonly inputs: string[];
  private readonly received = new Map<string, Buffer[]>();
  private work: Work[] = [];

  /** `socketBytes`: what a chardev's socket takes before a write blocks. `inputs`: the ports that the thread reads. */
  constructor(options: { ports: Port[]; inputs: string[]; socketBytes: number; readBytes: number }) {
    this.socketBytes = options.socketBytes;
    this.readBytes = options.readBytes;
    this.inputs = options.inputs;
    this.qmp.slow = true;
    for (const port of options.ports) {
      const [near, far] = fakePair();
      // The kernel takes what the process writes when the thread has read what came before.
      near.stalled = true;
      port.attach(near);
      this.ends.set(port.name, { near, far });
    }
  }

  /** The guest, or the network, sends frames that leave through `port`. */
  write(port: string, frames: readonly Buffer[]): void {
    const { near, far } = this.ends.get(port)!;
    for (const frame of frames) this.work.push({ kind: 'write', near, far, bytes: framed(frame) });
  }

  do(act: () => void): void {
    this.work.push({ kind: 'act', act });
  }

  /** One round of the main loop; returns true if it did anything. */
  step(): boolean {
    const [first] = this.work;
    if (first?.kind === 'write') return this.writeSome(first);
    let did = this.inputs.map((name) => this.readSome(name)).includes(true);
    if (this.qmp.waitingReplies > 0) {
      void this.qmp.reply();
      did = true;
    }
    if (first === undefined) return did;
    this.work.shift();
    first.act();
    return true;
  }

  /** The process reads once from each chardev; returns true if anything came. */
  pump(bytesMax: number): boolean {
    return [...this.ends.values()].map(({ near }) => near.pump(bytesMax)).includes(true);
  }

  /** Returns why the thread is not done, or null. */
  get unfinished(): string | null {
    const [first] = this.work;
    if (first?.kind === 'write') return `it waits in a write of which ${first.bytes.length} bytes are left`;
    if (first !== undefined) return `${this.work.length} things are left to do`;
    if (this.qmp.waitingReplies > 0) return 'a QMP command has no reply';
    for (const [name, { near, far }] of this.ends) {
      if (near.unreadBytes() > 0) return `${name}: ${near.unreadBytes()} bytes are unread`;
      if (far.inbox.length + near.queuedBytes() > 0) return `${name}: frames were not delivered`;
    }
    return null;
  }

  /** Takes the whole frames that the thread has read from `port`. */
  take(port: string): Buffer[] {
    return unframed(Buffer.concat(this.received.get(port) ?? []));
  }

  private writeSome(work: Work & { kind: 'write' }): boolean {
    const room = this.socketBytes - work.near.unreadBytes();
    if (room <= 0) return false;
    work.far.write(work.bytes.subarray(0, room), () => {});
    work.bytes = work.bytes.subarray(room);
    if (work.bytes.length === 0) this.work.shift();
    return true;
  }

  private readSome(name: string): boolean {
    const { near, far } = this.ends.get(name)!;
    if (far.inbox.length === 0) {
      near.unstall();
      near.stalled = true;
    }
    if (far.inbox.length === 0) return false;
    assert.ok(far.open);
    this.received.set(name, [...(this.received.get(name) ?? []), far.inbox.subarray(0, this.readBytes)]);
    far.inbox = far.inbox.subarray(this.readBytes);
    return true;
  }
}
