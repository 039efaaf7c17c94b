/**
 * A QEMU process: a guest behind a frame port, QMP, and the migration that COLO rides on.
 *
 * It does what src/qemu/colo.ts and docs/architecture.md count on, seen from outside: the messages on the stream and
 * when the guest stands, which requests are coalesced or forgotten, what it does when the stream breaks in each phase,
 * and that a guest which stands reads one buffer of input and delivers it after the next state was loaded.
 */
import { ColoError } from '../../src/error.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { COMMANDS_NEEDED } from '../../src/qemu/capabilities.ts';
import type { QemuLauncher, QmpConnection, RunningQemu } from '../../src/qemu/launcher.ts';
import type { QemuExit } from '../../src/qemu/process.ts';
import {
  type ExecuteOptions,
  type JsonObject,
  QMP_TIMEOUT_MS,
  type QmpEvent,
  QmpRefusedError,
} from '../../src/qemu/qmp.ts';
import { FrameCutter, framed } from './frame-cutter.ts';
import { Die } from './guest/die.ts';
import type { Machine, MachinePort } from './guest/machine.ts';
import { type Loop, Process } from './loop.ts';
import { SaidOutput } from './rules/output-commit.ts';
import type { Host, SimSocket, Sockets } from './sockets.ts';

const MESSAGE = { ready: 0, request: 1, reply: 2, vmstateSend: 3, vmstateSize: 4, received: 5, loaded: 6 };
/** As QEMU 11 sends them before READY: PONG and SHUT of the return path. */
const RETURN_PATH = [
  [0, 2, 0, 4, 0, 0, 0, 1],
  [0, 1, 0, 4, 0, 0, 0, 0],
];
const VERSION = { major: 11, minor: 1, micro: 3, text: '11.1.3' };
/** In the first copy: a piece of RAM, and the end with the state. */
const PIECE = { ram: 0x10, state: 0x11 };
/** max-bandwidth is counted in whole bytes per tick, 0 of them is no limit; what is sent is at least a buffer. */
const TICKS_PER_S = 10;
const BUFFER_BYTES = 32_768;
/** Microseconds, unless the host is busy. */
const THREAD_BEGINS_MS_MAX = 8;
const ANNOUNCE_AT_MS = [0, 50, 200, 450, 800];
/** NET_BUFSIZE: what a guest that stands still takes in. */
const NET_BUFFER_BYTES = 69_632;

/** What a VM consumed and when it was copied: goes with the state, for the rule of same input. */
export type Consumed = { frames: number; digest: number };

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

export type QemuEvents = {
  died(qemu: SimQemu, why: string): void;
  phase(qemu: SimQemu, phase: Phase): void;
  /** Its state is copied as it is now. */
  taken(qemu: SimQemu): void;
  /** The secondary has just replaced its own state, which had consumed `own`. */
  loaded(qemu: SimQemu, own: Consumed, theirs: Consumed, first: boolean): void;
  note(qemu: SimQemu, text: string): void;
};

export type QemuOptions = {
  loop: Loop;
  sockets: Sockets;
  host: Host;
  die: Die;
  mac: Uint8Array;
  accel: 'kvm' | 'tcg';
  /** How slow the guest is to take its input, and the node to take its output. */
  slow: { inputMs: number; outputMs: number };
  /** Makes the guest; `incoming` ones start empty. */
  makeGuest(port: MachinePort): Machine;
  events: QemuEvents;
};

type ColoMode = 'none' | 'primary' | 'secondary';

let pids = 1000;

export class SimQemu {
  readonly process: Process;
  readonly host: Host;
  readonly pid: number;
  readonly incoming: boolean;
  running = false;
  coloMode: ColoMode = 'none';
  /** the one before this one, and why it ended: a failover's word */
  private lastMode: ColoMode = 'none';
  private endReason = 'none';
  /** In COLO, the primary's thread has begun: before, a request or a failover aborts QEMU (colo.ts). */
  private threadBegun = false;
  readonly eventListeners = new Set<(event: string, data: JsonObject) => void>();
  /** Its state is that of a service: it was booted, or it has got one. */
  hasState = false;
  consumed: Consumed = { frames: 0, digest: 0 };
  /** Frames that came to its port and went from it. */
  heardFrames = 0;
  saidFrames = 0;
  readonly said = new SaidOutput();
  private readonly options: QemuOptions;
  private readonly loop: Loop;
  private readonly die: Die;
  private readonly qmpPath: string;
  private readonly vmPath: string;
  private readonly guest: Machine;
  private vmStream: KernelStream | null = null;
  private readonly cutter: FrameCutter;
  /** taken in while standing still */
  private standing: Uint8Array[] = [];
  private tickMissed = false;
  private migration: KernelStream | null = null;
  /** From then on it can be yanked; in COLO also when the stream has broken already. */
  private yankable = false;
  private migrationStatus = 'none';
  private bandwidth = Number.POSITIVE_INFINITY;
  /** It is the source of the stream. */
  private outgoing = false;
  private input: Uint8Array = new Uint8Array(0);
  private expecting: 'pieces' | 'request' | 'send' | 'size' | 'nothing' = 'nothing';
  private stage: 'idle' | 'finishing' | 'requested' | 'stopped' | 'waiting' | 'committed' = 'idle';
  private requestPending = false;
  private loading = false;
  private failoverAsked = false;
  private firstCheckpoint = true;
  private greeted = false;

  constructor(options: QemuOptions, argv: readonly string[]) {
    this.options = options;
    this.loop = options.loop;
    this.die = options.die;
    this.host = options.host;
    this.pid = ++pids;
    this.incoming = argv.includes('-incoming');
    this.process = new Process(options.loop, `qemu-${options.host.name}`, this.die);
    this.process.onDeath.add(() => options.events.died(this, 'killed'));
    const text = argv.join(' ');
    this.vmPath = /addr\.path=(\S+)/.exec(text)?.[1] ?? '';
    this.qmpPath = /-qmp unix:([^,]+),/.exec(text)?.[1] ?? '';
    this.cutter = new FrameCutter((frame) => this.hear(frame));
    this.guest = options.makeGuest({
      send: (frame) => this.say(frame),
      now: () => this.loop.nowMs,
      wake: (atMs) => {
        if (atMs !== Number.POSITIVE_INFINITY) this.loop.at(atMs, this.process, () => this.tick());
      },
      random: () => this.die.next(),
    });
    this.later(this.die.within(20, 60), () => {
      this.greeted = true;
      this.listen(this.vmPath, (stream) => this.openVmPort(stream));
      if (this.incoming) return;
      this.hasState = true;
      this.resume();
    });
  }

  get greets(): boolean {
    return this.greeted;
  }

  get qmpSocket(): string {
    return this.qmpPath;
  }

  get name(): string {
    return this.process.name;
  }

  private later(ms: number, run: () => void): void {
    this.loop.after(ms, this.process, run);
  }

  private listen(path: string, accept: (stream: KernelStream) => void): void {
    this.host.unix.set(path, { owner: this.process, accept });
  }

  /* The guest and its port. */

  private openVmPort(stream: KernelStream): void {
    this.vmStream = stream;
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
        if (this.vmStream === stream) this.vmStream = null;
      },
    });
  }

  private hear(frame: Uint8Array): void {
    this.heardFrames++;
    if (this.running) this.consume(frame);
    else this.standing.push(frame);
  }

  private consume(frame: Uint8Array): void {
    const digest = inputDigest(this.consumed.digest, frame);
    this.consumed = { frames: this.consumed.frames + 1, digest };
    this.guest.receive(frame);
  }

  private say(frame: Uint8Array): void {
    if (this.vmStream === null) return;
    this.saidFrames++;
    this.said.say(frame);
    this.vmStream.write(framed(frame), () => {});
  }

  private tick(): void {
    if (this.running) this.guest.tick();
    else this.tickMissed = true;
  }

  private halt(): void {
    this.running = false;
  }

  private resume(): void {
    if (this.running) return;
    this.running = true;
    this.emit('RESUME');
    const { standing } = this;
    this.standing = [];
    for (const frame of standing) this.consume(frame);
    if (this.tickMissed) {
      this.tickMissed = false;
      this.guest.tick();
    }
    this.vmStream?.resume();
  }

  private announce(): void {
    const frame = new Uint8Array(60);
    frame.fill(0xff, 0, 6);
    frame.set(this.options.mac, 6);
    frame.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], 12);
    frame.set(this.options.mac, 22);
    frame.set(this.options.mac, 32);
    for (const ms of ANNOUNCE_AT_MS) this.later(ms, () => this.say(frame));
  }

  /* Migration. */

  private phase(phase: Phase): void {
    this.options.events.phase(this, phase);
  }

  private send(...words: number[]): void {
    const bytes = new Uint8Array(4 * words.length);
    const view = new DataView(bytes.buffer);
    words.forEach((word, i) => {
      view.setUint32(4 * i, word);
    });
    this.migration?.write(bytes, () => {});
  }

  private openMigration(stream: KernelStream): void {
    this.migration = stream;
    this.input = new Uint8Array(0);
    const buffer = new Uint8Array(65536);
    stream.start({
      buffer: () => buffer,
      read: (bytes) => {
        if (this.migration !== stream) return;
        this.input = concat(this.input, buffer.subarray(0, bytes));
        while (this.takeMessage());
      },
      closed: () => {
        if (this.migration === stream) this.streamBroke();
      },
    });
  }

  private streamBroke(): void {
    this.migration?.close();
    this.migration = null;
    this.options.events.note(this, `migration stream broke (${this.coloMode}, ${this.stage})`);
    if (this.coloMode !== 'none') {
      // In the middle of a checkpoint, or before the first, the thread reads and finds out; else at the next one.
      if (this.threadBegun && this.stage !== 'idle')
        this.emit('COLO_EXIT', { mode: 'primary', reason: 'error' });
      return;
    }
    if (this.incoming && !this.hasState) {
      // An incoming QEMU that never got its state ends.
      this.process.kill();
      return;
    }
    if (this.migrationStatus === 'setup' || this.migrationStatus === 'active') {
      this.migrationStatus = 'failed';
      this.yankable = false;
      this.stage = 'idle';
      this.resume();
    }
  }

  /** The primary: the first copy. */
  private migrate(path: string): void {
    this.migrationStatus = 'setup';
    this.outgoing = true;
    this.yankable = true;
    this.later(0.2, () => {
      const listener = this.host.unix.get(path);
      if (listener === undefined || !listener.owner.alive) {
        this.migrationStatus = 'failed';
        this.yankable = false;
        return;
      }
      this.openMigration(this.options.sockets.local(this.host, this.process, listener));
      this.migrationStatus = 'active';
      this.coloStarts(this.die.within(2, 12));
    });
  }

  private coloStarts(pieces: number): void {
    const { migration } = this;
    if (migration === null) return;
    this.phase('copying');
    if (pieces > 0) {
      this.piece(PIECE.ram, new Uint8Array(this.die.within(100, 8000)));
      const perTick = Math.trunc(this.bandwidth / TICKS_PER_S);
      const ms = perTick > 0 && perTick < BUFFER_BYTES ? 1000 / TICKS_PER_S : this.die.within(1, 40);
      this.later(ms, () => {
        if (this.migration === migration) this.coloStarts(pieces - 1);
      });
      return;
    }
    this.halt();
    this.stage = 'finishing';
    this.later(this.die.within(1, 20), () => {
      if (this.migration !== migration) return;
      this.piece(PIECE.state, this.state());
      this.expecting = 'request';
      this.enterColo('primary');
      this.phase('copied');
      this.later(this.die.next() * THREAD_BEGINS_MS_MAX, () => this.threadBegins());
    });
  }

  private threadBegins(): void {
    this.threadBegun = true;
    this.endReason = 'none';
    if (this.migration === null) this.emit('COLO_EXIT', { mode: 'primary', reason: 'error' });
    else while (this.takeMessage());
  }

  private emit(event: string, data: JsonObject = {}): void {
    for (const listener of this.eventListeners) listener(event, data);
  }

  /** Nothing that a node does may bring QEMU to this. */
  private abort(): never {
    throw new Error('QEMU was touched before its COLO thread began, and aborts');
  }

  private piece(kind: number, bytes: Uint8Array): void {
    this.send(kind, bytes.length);
    this.migration?.write(bytes, () => {});
  }

  private state(): Uint8Array {
    this.options.events.taken(this);
    const guest = this.guest.save();
    const all = new Uint8Array(12 + guest.length);
    const view = new DataView(all.buffer);
    view.setFloat64(0, this.consumed.frames);
    view.setInt32(8, this.consumed.digest);
    all.set(guest, 12);
    return all;
  }

  private loadState(bytes: Uint8Array): Consumed {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const theirs = { frames: view.getFloat64(0), digest: view.getInt32(8) };
    this.consumed = theirs;
    this.guest.load(bytes.subarray(12));
    return theirs;
  }

  /** Takes one message off the input; answers false when there is no whole one. */
  private takeMessage(): boolean {
    const { input } = this;
    if (input.length < 4 || this.migration === null) return false;
    const view = new DataView(input.buffer, input.byteOffset, input.length);
    const word = view.getUint32(0);
    if (!this.outgoing) return this.takeForward(view, word);
    return this.takeBackward(word);
  }

  private skip(bytes: number): Uint8Array {
    const taken = this.input.subarray(0, bytes);
    this.input = this.input.subarray(bytes);
    return taken;
  }

  /** The secondary: what comes from the primary. */
  private takeForward(view: DataView, word: number): boolean {
    const { input } = this;
    switch (this.expecting) {
      case 'pieces': {
        if (input.length < 8 || input.length < 8 + view.getUint32(4)) return false;
        const bytes = this.skip(8 + view.getUint32(4)).slice(8);
        if (word === PIECE.state) this.firstState(bytes);
        return true;
      }
      case 'request':
        if (word !== MESSAGE.request) throw new Error(`message ${word} where REQUEST belongs`);
        this.skip(4);
        this.expecting = 'nothing';
        this.phase('request');
        this.inStream(this.die.next() * 2, () => {
          this.halt();
          this.send(MESSAGE.reply);
          this.expecting = 'send';
          while (this.takeMessage());
        });
        return true;
      case 'send':
        if (word !== MESSAGE.vmstateSend) throw new Error(`message ${word} where VMSTATE_SEND belongs`);
        this.skip(4);
        this.expecting = 'size';
        return true;
      case 'size': {
        if (word !== MESSAGE.vmstateSize) throw new Error(`message ${word} where VMSTATE_SIZE belongs`);
        if (input.length < 12) return false;
        const size = view.getUint32(8);
        if (input.length < 12 + size) return false;
        const bytes = this.skip(12 + size).slice(12);
        this.expecting = 'nothing';
        if ((this.migration as SimSocket).broken) {
          // It does not take over what it could not say that it has.
          this.streamBroke();
          return false;
        }
        this.loading = true;
        this.send(MESSAGE.received);
        this.phase('received');
        this.inStream(this.die.next() * 3, () => this.nextState(bytes), true);
        return true;
      }
      default:
        return false;
    }
  }

  /** Later, if the stream is still the same; `always` for what goes on without it. */
  private inStream(ms: number, run: () => void, always = false): void {
    const { migration } = this;
    this.later(ms, () => {
      if (always || (this.migration === migration && this.coloMode !== 'none')) run();
    });
  }

  private enterColo(mode: ColoMode): void {
    this.coloMode = mode;
    this.threadBegun = false;
    if (mode === 'secondary') this.endReason = 'none';
    this.migrationStatus = 'colo';
    this.emit('MIGRATION', { status: 'colo' });
  }

  private leaveColo(): void {
    this.lastMode = this.coloMode;
    this.coloMode = 'none';
    this.endReason = 'request';
    this.migrationStatus = 'completed';
    this.yankable = false;
  }

  private firstState(bytes: Uint8Array): void {
    this.loadState(bytes);
    this.hasState = true;
    this.enterColo('secondary');
    for (const message of RETURN_PATH) this.migration?.write(Uint8Array.from(message), () => {});
    this.send(MESSAGE.ready);
    this.expecting = 'request';
    this.resume();
  }

  private nextState(bytes: Uint8Array): void {
    const own = this.consumed;
    const theirs = this.loadState(bytes);
    this.phase('loading');
    this.options.events.loaded(this, own, theirs, this.firstCheckpoint);
    this.firstCheckpoint = false;
    this.loading = false;
    if (this.failoverAsked) {
      this.secondaryFailsOver();
      return;
    }
    this.resume();
    this.send(MESSAGE.loaded);
    this.expecting = 'request';
    while (this.takeMessage());
  }

  /** The primary: what comes from the secondary. */
  private takeBackward(word: number): boolean {
    if (this.stage === 'finishing') {
      if (this.coloMode === 'primary' && !this.threadBegun) return false;
      // Return-path messages, then READY.
      if (word !== MESSAGE.ready) {
        const length = 4 + (word & 0xffff);
        if (this.input.length < length) return false;
        this.skip(length);
        return true;
      }
      this.skip(4);
      this.goesOn();
      return true;
    }
    this.skip(4);
    if (word === MESSAGE.reply && this.stage === 'requested') {
      this.stage = 'stopped';
      this.phase('reply');
      this.inStream(this.die.next() * 2, () => {
        this.halt();
        this.inStream(this.die.next() * 3, () => {
          const state = this.state();
          this.send(MESSAGE.vmstateSend);
          this.send(MESSAGE.vmstateSize, 0, state.length);
          this.migration?.write(state, () => {});
          this.stage = 'waiting';
          this.phase('state');
        });
      });
    } else if (word === MESSAGE.received && this.stage === 'waiting') {
      this.stage = 'committed';
      this.requestPending = false;
    } else if (word === MESSAGE.loaded && this.stage === 'committed') {
      this.goesOn();
      this.phase('loaded');
    } else throw new Error(`message ${word} from the secondary in stage ${this.stage}`);
    return true;
  }

  private goesOn(): void {
    this.stage = 'idle';
    this.resume();
    if (!this.requestPending) return;
    this.requestPending = false;
    this.inStream(this.die.next() * 2, () => this.requestCheckpoint());
  }

  /** One during a checkpoint is forgotten with RECEIVED, one after that brings the next checkpoint. */
  private requestCheckpoint(): void {
    if (this.coloMode !== 'primary') return;
    if (!this.threadBegun) this.abort();
    if (this.migration === null) return;
    if (this.stage === 'idle') {
      this.stage = 'requested';
      this.send(MESSAGE.request);
    } else this.requestPending = true;
  }

  private primaryFailsOver(): void {
    this.migration?.close();
    this.migration = null;
    this.later(1 + this.die.next() * 2, () => {
      this.leaveColo();
      this.stage = 'idle';
      this.requestPending = false;
      this.resume();
    });
  }

  private secondaryFailsOver(): void {
    this.migration?.close();
    this.migration = null;
    this.failoverAsked = false;
    this.halt();
    this.leaveColo();
    this.later(0.3 + this.die.next(), () => {
      this.announce();
      this.resume();
    });
  }

  /* QMP. */

  command(name: string, args: JsonObject | undefined): unknown {
    switch (name) {
      case 'query-kvm':
        return { enabled: this.options.accel === 'kvm', present: true };
      case 'query-migrate-capabilities':
        return [{ capability: 'x-colo', state: false }];
      case 'query-commands':
        return COMMANDS_NEEDED.map((one) => ({ name: one }));
      case 'query-command-line-options':
        return [{ option: 'run-with', parameters: [{ name: 'exit-with-parent' }] }];
      case 'query-status':
        return { status: this.runStatus(), running: this.running };
      case 'migrate-set-capabilities':
        return {};
      case 'migrate-set-parameters':
        if (typeof args?.['max-bandwidth'] === 'number') this.bandwidth = args['max-bandwidth'];
        if (args?.['x-checkpoint-delay'] !== undefined) this.requestCheckpoint();
        return {};
      case 'migrate-incoming':
        this.migrationStatus = 'setup';
        this.yankable = true;
        this.listen(String(args?.uri).slice('unix:'.length), (stream) => {
          if (this.migration !== null) {
            stream.close();
            return;
          }
          this.expecting = 'pieces';
          this.migrationStatus = 'active';
          this.openMigration(stream);
        });
        return {};
      case 'migrate':
        this.migrate(String(args?.uri).slice('unix:'.length));
        return {};
      case 'query-migrate':
        return { status: this.migrationStatus };
      case 'stop':
        this.halt();
        return {};
      case 'cont':
        if (this.stage === 'finishing')
          throw new QmpRefusedError(name, 'GenericError', 'Migration is not finalized yet');
        this.resume();
        return {};
      case 'query-colo-status':
        return { mode: this.coloMode, 'last-mode': this.lastMode, reason: this.endReason };
      case 'x-colo-lost-heartbeat':
        if (this.coloMode === 'none')
          throw new QmpRefusedError(name, 'GenericError', 'VM is not in COLO mode');
        if (this.coloMode === 'primary' && !this.threadBegun) {
          // A failover before this one has left its mark, which only the thread takes away.
          if (this.endReason === 'request')
            throw new QmpRefusedError(name, 'GenericError', 'COLO failover is already activated');
          this.abort();
        } else if (this.coloMode === 'primary') this.primaryFailsOver();
        else if (this.loading) this.failoverAsked = true;
        else this.secondaryFailsOver();
        return {};
      case 'query-yank':
        return this.yankable ? [{ type: 'migration' }] : [];
      case 'yank':
        if (!this.yankable) throw new QmpRefusedError(name, 'GenericError', 'Instance not found');
        // One that only listens does not mind.
        if (!this.incoming || this.migration !== null || this.coloMode !== 'none') this.streamBroke();
        return {};
      case 'quit':
        this.process.kill();
        return {};
      default:
        throw new QmpRefusedError(name, 'CommandNotFound', `The command ${name} has not been found`);
    }
  }

  private runStatus(): string {
    if (this.incoming && !this.hasState) return 'inmigrate';
    if (this.running) return 'running';
    if (this.stage === 'finishing') return 'finish-migrate';
    return this.coloMode === 'none' ? 'paused' : 'colo';
  }
}

/** FNV-1a over what no translation touches: Ethernet and the start of the IP header, and the length. */
function inputDigest(digest: number, frame: Uint8Array): number {
  let hash = digest ^ frame.length;
  const end = Math.min(frame.length, 34);
  for (let i = 0; i < end; i++) hash = Math.imul(hash ^ frame[i], 0x01000193);
  return hash | 0;
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

/** A node's way to its QEMUs. */
export function simLauncher(
  node: Process,
  options: Omit<QemuOptions, 'die'>,
  seed: () => number,
  started: (qemu: SimQemu) => void,
): QemuLauncher {
  const qemus: SimQemu[] = [];
  return {
    probeExitWithParent: async () => true,
    start: ({ argv }) =>
      new Promise((resolve) => {
        node.loop.after(1, node, () => {
          const qemu = new SimQemu({ ...options, die: new Die(seed()) }, argv);
          qemus.push(qemu);
          started(qemu);
          const withParent = () => qemu.process.kill();
          node.onDeath.add(withParent);
          resolve(handleOf(node, qemu, withParent));
        });
      }),
    connectQmp: (request) =>
      new Promise((resolve, reject) => {
        const { endpoint } = request;
        const path = endpoint.kind === 'unix' ? endpoint.path : '';
        const tryAgain = (): void => {
          const qemu = qemus.find((one) => one.qmpSocket === path && one.process.alive && one.greets);
          if (request.signal?.aborted === true) reject(request.signal.reason as Error);
          else if (qemu === undefined) node.loop.after(10, node, tryAgain);
          else node.loop.after(1, node, () => resolve(qmpOf(node, qemu)));
        };
        tryAgain();
      }),
  };
}

function handleOf(node: Process, qemu: SimQemu, withParent: () => void): RunningQemu {
  const ended = new AbortController();
  const error = new ColoError('COLO_QEMU_EXITED', 'QEMU ended with SIGKILL: it wrote nothing to stderr');
  const exited = new Promise<QemuExit>((resolve) => {
    qemu.process.onDeath.add(() => {
      node.onDeath.delete(withParent);
      node.loop.after(1, node, () => {
        ended.abort(error);
        resolve({ code: null, signal: 'SIGKILL', error });
      });
    });
  });
  return {
    pid: qemu.pid,
    exited,
    signal: ended.signal,
    kill: () => qemu.process.kill(),
    stop: () => {
      qemu.process.kill();
      return exited;
    },
  };
}

/** One QMP connection: commands take a moment there and back, and QEMU may be gone in between. */
function qmpOf(node: Process, qemu: SimQemu): QmpConnection {
  const listeners = new Set<() => void>();
  const eventListeners = new Set<(event: QmpEvent) => void>();
  let closed = false;
  const onEvent = (event: string, data: JsonObject): void => {
    node.loop.after(0.2, node, () => {
      if (!closed) for (const listener of eventListeners) listener({ event, data, timestampUs: 0 });
    });
  };
  qemu.eventListeners.add(onEvent);
  const pending = new Set<(cause: Error) => void>();
  const gone = () => new ColoError('COLO_QMP_CLOSED', 'QMP: QEMU closed the connection');
  const end = () => {
    if (closed) return;
    closed = true;
    for (const reject of pending) reject(gone());
    pending.clear();
    for (const listener of listeners) listener();
  };
  qemu.process.onDeath.add(() => node.loop.after(0.1, node, end));
  const ask = <T>(
    name: string,
    args: JsonObject | undefined,
    options: ExecuteOptions | undefined,
  ): Promise<T> => {
    if (closed) return Promise.reject(gone());
    return new Promise<T>((resolve, reject) => {
      pending.add(reject);
      const timeoutMs = options?.timeoutMs ?? QMP_TIMEOUT_MS;
      const cancel = node.after(timeoutMs, () => {
        pending.delete(reject);
        reject(new ColoError('COLO_QMP_TIMEOUT', `QMP: ${name} got no answer in ${timeoutMs} ms`));
      });
      const answer = (settle: () => void) => {
        node.loop.after(0.2, node, () => {
          cancel();
          pending.delete(reject);
          settle();
        });
      };
      const carryOut = () => {
        try {
          const value = qemu.command(name, args) as T;
          answer(() => resolve(value));
        } catch (cause) {
          if (!(cause instanceof QmpRefusedError)) throw cause;
          answer(() => reject(cause));
        }
      };
      node.act(() => node.loop.after(0.2, qemu.process, carryOut));
    });
  };
  return {
    version: VERSION,
    execute: ask,
    executeOob: ask,
    onEvent: (listener) => {
      eventListeners.add(listener);
      return () => eventListeners.delete(listener);
    },
    onClose: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: end,
  };
}
