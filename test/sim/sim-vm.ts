/**
 * The VM inside a simulated QEMU: a guest behind a frame port, which runs or is stopped.
 *
 * A stopped VM still takes one buffer of input from its socket, as QEMU does, and gets those frames when it runs again.
 * The guest may be dead while its VM runs: it then takes input and does nothing, whatever state is loaded.
 */
import type { KernelStream } from '../../src/io/byte-stream.ts';
import type { SleepSight } from '../../src/io/sleep-sight.ts';
import { FrameCutter, framed } from './frame-cutter.ts';
import type { Die } from './guest/die.ts';
import type { Machine, MachinePort } from './guest/machine.ts';
import type { Process } from './loop.ts';
import { SentOutput } from './rules/output-commit.ts';
import type { SimSocket } from './sim-socket.ts';

/** What a node sees of its guest. */
export type Sleeper = 'sleeps' | 'never-sleeps' | 'hidden';

/** NET_BUFSIZE: what a stopped VM reads. */
const NET_BUFFER_BYTES = 69_632;
const ANNOUNCE_AT_MS = [0, 50, 200, 450, 800];
const STATE_HEADER_BYTES = 12;

/** The input that a VM has consumed; it goes with the state, for the rule of same input. */
export type Consumed = { frames: number; digest: number };

export type VmOptions = {
  readonly process: Process;
  readonly die: Die;
  readonly mac: Uint8Array;
  /** What a node sees of the guest. */
  readonly sleeper: Sleeper;
  /** The longest time that the guest takes to read its input, and the node to read its output. */
  readonly slow: { inputMs: number; outputMs: number };
  makeGuest(port: MachinePort): Machine;
  onStop(): void;
  onResume(): void;
};

export class SimVm {
  running = false;
  consumed: Consumed = { frames: 0, digest: 0 };
  /** Frames that came through the port, and that the guest sent through it. */
  receivedFrames = 0;
  sentFrames = 0;
  readonly sent = new SentOutput();
  /** Called with every frame that comes through the port. */
  onReceived: (frame: Uint8Array) => void = () => {};
  private readonly options: VmOptions;
  private readonly guest: Machine;
  private readonly cutter: FrameCutter;
  private stream: KernelStream | null = null;
  /** Received while stopped. */
  private waiting: Uint8Array[] = [];
  private tickMissed = false;
  private dead = false;

  constructor(options: VmOptions) {
    this.options = options;
    const { process, die } = options;
    const { loop } = process;
    this.cutter = new FrameCutter((frame) => this.receive(frame));
    this.guest = options.makeGuest({
      send: (frame) => this.send(frame),
      now: () => loop.nowMs,
      wake: (atMs) => {
        if (atMs !== Number.POSITIVE_INFINITY) loop.at(atMs, process, () => this.tick());
      },
      random: () => die.next(),
    });
  }

  /** A dead guest sleeps; one that works on a request, or never rests, does not. */
  readonly sight: SleepSight = {
    isAsleep: () =>
      this.running && this.options.sleeper === 'sleeps' && (this.dead || this.guest.isIdle !== false),
    blindness: () => (this.options.sleeper === 'hidden' ? 'the world hides it' : null),
  };

  openPort(stream: KernelStream): void {
    this.stream = stream;
    const socket = stream as SimSocket;
    socket.readDelayMs = this.options.slow.inputMs;
    socket.peer.readDelayMs = this.options.slow.outputMs;
    const buffer = new Uint8Array(NET_BUFFER_BYTES);
    stream.start({
      buffer: () => buffer,
      read: (bytes) => {
        this.cutter.feed(buffer, bytes);
        if (!this.running) stream.pause();
      },
      closed: () => {
        if (this.stream === stream) this.stream = null;
      },
    });
  }

  /** The guest is dead from now on, until `revive`. */
  die(): void {
    this.dead = true;
  }

  revive(): void {
    this.dead = false;
    if (this.running) this.catchUp();
  }

  stop(): void {
    if (this.running) this.options.onStop();
    this.running = false;
  }

  resume(): void {
    if (this.running) return;
    this.running = true;
    this.options.onResume();
    const { waiting } = this;
    this.waiting = [];
    for (const frame of waiting) this.consume(frame);
    this.catchUp();
    this.stream?.resume();
  }

  /** QEMU's own RARP announcements after a failover. */
  announce(): void {
    const { mac, process } = this.options;
    const frame = new Uint8Array(60);
    frame.fill(0xff, 0, 6);
    frame.set(mac, 6);
    frame.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], 12);
    frame.set(mac, 22);
    frame.set(mac, 32);
    for (const ms of ANNOUNCE_AT_MS) process.loop.after(ms, process, () => this.send(frame));
  }

  state(): Uint8Array {
    const guest = this.guest.save();
    const all = new Uint8Array(STATE_HEADER_BYTES + guest.length);
    const view = new DataView(all.buffer);
    view.setFloat64(0, this.consumed.frames);
    view.setInt32(8, this.consumed.digest);
    all.set(guest, STATE_HEADER_BYTES);
    return all;
  }

  /** Replaces the guest's state. Returns the input that the VM which the state is of had consumed. */
  load(bytes: Uint8Array): Consumed {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const theirs = { frames: view.getFloat64(0), digest: view.getInt32(8) };
    this.consumed = theirs;
    this.guest.load(bytes.subarray(STATE_HEADER_BYTES));
    return theirs;
  }

  private receive(frame: Uint8Array): void {
    this.receivedFrames++;
    this.onReceived(frame);
    if (this.running) this.consume(frame);
    else this.waiting.push(frame);
  }

  private consume(frame: Uint8Array): void {
    const digest = inputDigest(this.consumed.digest, frame);
    this.consumed = { frames: this.consumed.frames + 1, digest };
    if (!this.dead) this.guest.receive(frame);
  }

  private send(frame: Uint8Array): void {
    if (this.stream === null || this.dead) return;
    this.sentFrames++;
    this.sent.add(frame);
    this.stream.write(framed(frame), () => {});
  }

  private tick(): void {
    if (this.running && !this.dead) this.guest.tick();
    else this.tickMissed = true;
  }

  private catchUp(): void {
    if (!this.tickMissed || this.dead) return;
    this.tickMissed = false;
    this.guest.tick();
  }
}

/** FNV-1a over what no translation changes: Ethernet, the start of the IP header, and the length. */
function inputDigest(digest: number, frame: Uint8Array): number {
  let hash = digest ^ frame.length;
  const end = Math.min(frame.length, 34);
  for (let i = 0; i < end; i++) hash = Math.imul(hash ^ frame[i], 0x01000193);
  return hash | 0;
}
