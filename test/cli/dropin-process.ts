/** `colo compare` and `colo rewrite` as processes, and peers that speak QEMU's framing on real sockets. */
import assert from 'node:assert/strict';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type NetConnectOpts, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { framed, unframed } from '../io/fake-stream.ts';
import { startColo } from './colo.ts';

export type Event = { type: string; [key: string]: unknown };

/** A process that is asked for its counters without a pause does little else. */
const REPORT_EVERY_MS = 5;

export class DropInProcess {
  readonly child: ChildProcessWithoutNullStreams;
  readonly events: Event[] = [];
  errors = '';
  private isOver = false;

  constructor(t: TestContext, ...args: string[]) {
    this.child = this.spawn([...args, '--json']);
    t.after(() => this.child.kill('SIGKILL'));
    this.child.once('close', () => {
      this.isOver = true;
      this.child.emit('event');
    });
    createInterface(this.child.stdout).on('line', (line) => {
      this.events.push(JSON.parse(line) as Event);
      this.child.emit('event');
    });
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.errors += text;
    });
  }

  protected spawn(args: readonly string[]): ChildProcessWithoutNullStreams {
    return startColo(args);
  }

  of(type: string): Event[] {
    return this.events.filter((event) => event.type === type);
  }

  /** Resolves with the `count`th event of that type. Rejects if the process ends without it. */
  async until(type: string, count = 1): Promise<Event> {
    while (this.of(type).length < count) {
      assert.ok(
        !this.isOver,
        `it has ended without ${type}: ${JSON.stringify(this.events.at(-1))} ${this.errors}`,
      );
      await once(this.child, 'event');
    }
    return this.of(type)[count - 1];
  }

  /** Resolves with its counters so far. */
  async report(): Promise<Event> {
    const type = `${this.events[0].node}.report`;
    const next = this.until(type, this.of(type).length + 1);
    this.child.kill('SIGUSR2');
    return next;
  }

  /** Resolves with its counters when these of them have reached `least` together. */
  async reached(least: number, ...counters: string[]): Promise<Event> {
    for (;;) {
      const report = await this.report();
      if (counters.reduce((sum, counter) => sum + Number(report[counter]), 0) >= least) return report;
      await sleep(REPORT_EVERY_MS);
    }
  }

  /** Ends it in order; resolves with its last event. Fails if it printed an error. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Event> {
    const ended = once(this.child, 'close');
    this.child.kill(signal);
    assert.deepEqual(await ended, [0, null], this.errors);
    assert.equal(this.errors, '');
    return this.events.at(-1)!;
  }
}

/** The peer of one stream. */
export class Peer {
  readonly socket: Socket;
  private bytes = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
      socket.emit('more');
    });
    socket.on('close', () => socket.emit('more'));
  }

  static async connect(t: TestContext, address: NetConnectOpts): Promise<Peer> {
    const peer = new Peer(connect(address));
    t.after(() => peer.socket.destroy());
    await once(peer.socket, 'connect');
    return peer;
  }

  /** Dials until the address accepts. */
  static async connectWhenThere(t: TestContext, address: NetConnectOpts): Promise<Peer> {
    for (;;) {
      try {
        return await Peer.connect(t, address);
      } catch {
        await sleep(5);
      }
    }
  }

  /** Resolves with the next frame; with vnet framing it begins with its virtio-net header. */
  async next(prefixBytes: 4 | 8 = 4): Promise<Buffer> {
    while (this.bytes.length < 4 || this.bytes.length < prefixBytes + this.bytes.readUInt32BE(0)) {
      assert.ok(!this.socket.destroyed, 'the stream has ended');
      await once(this.socket, 'more');
    }
    const end = prefixBytes + this.bytes.readUInt32BE(0);
    const frame = this.bytes.subarray(0, end);
    this.bytes = this.bytes.subarray(end);
    return prefixBytes === 4 ? unframed(frame)[0] : frame.subarray(4);
  }

  /** Resolves with every whole frame that is left, and the bytes after the last one, when the stream has ended. */
  async rest(): Promise<{ frames: Buffer[]; cutBytes: number }> {
    this.socket.resume();
    if (!this.socket.readableEnded && !this.socket.destroyed)
      await new Promise((resolve) => this.socket.once('close', resolve));
    const frames: Buffer[] = [];
    while (this.bytes.length >= 4 && this.bytes.length >= 4 + this.bytes.readUInt32BE(0))
      frames.push(await this.next());
    return { frames, cutBytes: this.bytes.length };
  }

  get unread(): number {
    return this.bytes.length;
  }

  send(...frames: Uint8Array[]): void {
    this.socket.write(framed(...frames));
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.socket.write(bytes, () => resolve()));
  }

  async closed(): Promise<void> {
    if (this.socket.destroyed) return;
    await new Promise((resolve) => this.socket.once('close', resolve));
  }
}

/** Returns the options of a `colo compare` whose three places listen in the folder. */
export function comparePlaces(path: string): string[] {
  const places = ['--primary-in', `unix-listen:${path}/pri`, '--secondary-in', `unix-listen:${path}/sec`];
  return [...places, '--out', `unix-listen:${path}/out`];
}

export type ComparePeers = { primary: Peer; secondary: Peer; out: Peer };

/** Dials the three places, as soon as they are there. */
export async function comparePeers(t: TestContext, path: string): Promise<ComparePeers> {
  const [primary, secondary, out] = await Promise.all(
    ['pri', 'sec', 'out'].map((name) => Peer.connectWhenThere(t, { path: join(path, name) })),
  );
  return { primary, secondary, out };
}

/** Both VMs send the frame, and it leaves. */
export async function matches({ primary, secondary, out }: ComparePeers, frame: Buffer): Promise<void> {
  primary.send(frame);
  secondary.send(frame);
  assert.deepEqual(await out.next(), frame);
}

/** Accepts on a path or a free port of 127.0.0.1. */
export class Listener {
  readonly port: number;
  readonly path: string;
  private readonly accepted: Socket[] = [];
  private readonly server;

  private constructor(server: ReturnType<typeof createServer>) {
    this.server = server;
    const address = server.address() as AddressInfo | string;
    this.port = typeof address === 'string' ? 0 : address.port;
    this.path = typeof address === 'string' ? address : '';
    server.on('connection', (socket) => {
      this.accepted.push(socket);
      server.emit('more');
    });
  }

  static async open(t: TestContext, path?: string): Promise<Listener> {
    const server = createServer();
    if (path === undefined) server.listen(0, '127.0.0.1');
    else server.listen(path);
    await once(server, 'listening');
    const listener = new Listener(server);
    t.after(() => {
      server.close();
      for (const socket of listener.accepted) socket.destroy();
    });
    return listener;
  }

  async accept(count = 1): Promise<Peer> {
    while (this.accepted.length < count) await once(this.server, 'more');
    return new Peer(this.accepted[count - 1]);
  }
}
