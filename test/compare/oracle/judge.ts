/**
 * One comparator behind its four sockets (two streams of VM output, one out, notify), whichever program it is: QEMU's
 * colo-compare, our drop-in on the same kind of sockets, or `colo compare` as a process.
 *
 * `settle` returns what a comparator has done with all frames that it was given, without a clock. The same numbered
 * datagram, of a flow that no script uses, goes in on both sides; when it comes out, all frames before it have been
 * compared. A request and reply of the notify protocol then show that no request for a checkpoint is on its way.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../../lab/process.ts';
import type { Program } from '../../../lab/program.ts';
import { DropInCompare } from '../../../src/dropin/compare.ts';
import { NotifySource } from '../../../src/dropin/notify.ts';
import { systemSurroundings } from '../../../src/io/surroundings.ts';
import type { Instant } from '../../../src/units.ts';
import { CLIENT_MAC, ethernet, udpFrame, VM_MAC } from '../../frames.ts';
import { framed } from '../../io/fake-stream.ts';

export type Paths = Record<'primary' | 'secondary' | 'out' | 'notify', string>;
/** What a comparator did since it was last asked. */
export type Done = { released: Buffer[]; asked: boolean };

const START_MS_MAX = 20_000;
const RELEASE_MS = 100;
/** A comparator that does not reply for this long has ended or hangs: the test fails instead of hanging, too. */
const ANSWER_MS_MAX = 20_000;
const CLI = new URL('../../../src/cli/main.ts', import.meta.url).pathname;

export class Judge {
  readonly name: string;
  /** The end of its standard error, if it has one. */
  complaint = '';
  private primary: FramedSocket;
  private readonly secondary: FramedSocket;
  private readonly out: FramedSocket;
  private readonly notify: FramedSocket;
  private readonly end: () => Promise<void>;
  private marks = 0;

  private constructor(name: string, sockets: FramedSocket[], end: () => Promise<void>) {
    this.name = name;
    [this.primary, this.secondary, this.out, this.notify] = sockets;
    this.end = end;
  }

  /** QEMU's object, standalone: no VM, and no timeout that could ask for a checkpoint. */
  static async qemu(name: string, program: Program, options = ''): Promise<Judge> {
    const judge = await Judge.process(name, program.env, (paths) => [
      ...program.command,
      ...['-M', 'none', '-display', 'none', '-nodefaults', '-monitor', 'none'],
      ...['-chardev', `socket,id=pri,path=${paths.primary},server=on,wait=off`],
      ...['-chardev', `socket,id=sec,path=${paths.secondary},server=on,wait=off`],
      ...['-chardev', `socket,id=out,path=${paths.out},server=on,wait=off`],
      ...['-chardev', `socket,id=nd,path=${paths.notify},server=on,wait=off`],
      ...['-object', 'iothread,id=io'],
      '-object',
      `colo-compare,id=c,primary_in=pri,secondary_in=sec,outdev=out,notify_dev=nd,iothread=io,compare_timeout=1000000${options}`,
    ]);
    await judge.drainNotify();
    await judge.untilReleased();
    return judge;
  }

  /** The command itself, with its own clock. */
  static async command(): Promise<Judge> {
    const judge = await Judge.process('colo compare', {}, (paths) => [
      ...[process.execPath, '--disable-warning=ExperimentalWarning', CLI, 'compare', '--json'],
      ...['--primary-in', `unix-listen:${paths.primary}`, '--secondary-in', `unix-listen:${paths.secondary}`],
      ...['--out', `unix-listen:${paths.out}`, '--notify', `unix-listen:${paths.notify}`],
    ]);
    return judge.begun();
  }

  /** `colo compare` begins each connection with a request: the checkpoint has been taken. */
  private async begun(): Promise<this> {
    await this.drainNotify();
    assert.equal((await this.notify.next()).toString('latin1'), 'DO_CHECKPOINT');
    this.notify.write(Buffer.from('COLO_CHECKPOINT'));
    await this.drainNotify();
    return this;
  }

  /** The whole drop-in on its sockets, in this process, with a clock that stands still: no wait asks for a checkpoint. */
  static async ours(): Promise<Judge> {
    const folder = workFolder();
    const paths = pathsIn(folder);
    const listen = (path: string) => ({ kind: 'unix', mode: 'listen', path }) as const;
    const compare = new DropInCompare({
      endpoints: {
        primaryIn: listen(paths.primary),
        secondaryIn: listen(paths.secondary),
        out: listen(paths.out),
        framing: 'plain',
      },
      source: (events) => new NotifySource(listen(paths.notify), 'plain', systemSurroundings, events),
      phase: 'comparing',
      hashSeed: 1,
      surroundings: { ...systemSurroundings, clock: { now: () => 0 as Instant, wall: () => 0 } },
      emit: () => {},
    });
    await compare.start();
    const judge = new Judge('colo compare', await connectAll(paths), async () => {
      await compare.stop();
      removeWorkFolder(folder);
    });
    return judge.begun();
  }

  private static async process(
    name: string,
    env: Record<string, string>,
    argv: (paths: Paths) => string[],
  ): Promise<Judge> {
    const folder = workFolder();
    const paths = pathsIn(folder);
    const child = startChild(argv(paths), {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...env },
    });
    let complaint = '';
    const end = async (): Promise<void> => {
      await stopChild(child);
      removeWorkFolder(folder);
    };
    const judge = new Judge(name, await connectAll(paths, () => complaint), end);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-500);
      judge.complaint = complaint;
    });
    return judge;
  }

  pvm(...frames: Buffer[]): void {
    this.primary.write(...frames);
  }

  svm(...frames: Buffer[]): void {
    this.secondary.write(...frames);
  }

  async settle(): Promise<Done> {
    const mark = marker(this.marks++);
    this.primary.write(mark);
    this.secondary.write(mark);
    return { released: await this.until(mark), asked: await this.drainNotify() };
  }

  /** The same for the PVM's stream alone, by ARP, which every comparator releases at once. */
  async passed(): Promise<Buffer[]> {
    const mark = passing(this.marks++);
    this.primary.write(mark);
    return this.until(mark);
  }

  /**
   * QEMU drops what it releases while it has not accepted the connection to `out`, which another of its threads does than the one that
   * replies on `notify`.
   */
  private async untilReleased(): Promise<void> {
    const end = performance.now() + START_MS_MAX;
    do {
      assert.ok(performance.now() < end, `${this.name} releases nothing in ${START_MS_MAX} ms`);
      this.primary.write(passing(this.marks++));
    } while (!(await this.out.arrives(RELEASE_MS)));
    await this.passed();
  }

  /** Settles again until no frame comes out: in QEMU the marking datagram may overtake the frames before it. */
  async rest(): Promise<Buffer[]> {
    const all: Buffer[] = [];
    for (let silent = 0; silent < 3; ) {
      const { released } = await this.settle();
      all.push(...released);
      silent = released.length === 0 ? silent + 1 : 0;
    }
    return all;
  }

  /** Notifies it that a checkpoint has been taken. */
  async checkpoint(): Promise<Done> {
    this.notify.write(Buffer.from('COLO_CHECKPOINT'));
    const before = await this.drainNotify();
    const { released, asked } = await this.settle();
    return { released, asked: asked || before };
  }

  /** Closes the primary's stream in the middle of a frame, and opens another one. */
  async breakOff(cut: Buffer): Promise<void> {
    this.primary = await this.primary.again(cut);
  }

  /** Stops reading `out` until the next call that waits for a frame. */
  stall(): void {
    this.out.stall();
  }

  /** Waits until both inputs have been read, except for what a socket buffers. */
  async written(): Promise<void> {
    await Promise.all([this.primary.written(), this.secondary.written()]);
  }

  async close(): Promise<void> {
    for (const socket of [this.primary, this.secondary, this.out, this.notify]) socket.close();
    await this.end();
  }

  private async until(mark: Buffer): Promise<Buffer[]> {
    const released: Buffer[] = [];
    for (;;) {
      const frame = await this.out.next();
      if (frame.equals(mark)) return released;
      released.push(frame);
    }
  }

  private async drainNotify(): Promise<boolean> {
    this.notify.write(Buffer.from('COLO_USERSPACE_PROXY_INIT'));
    let asked = false;
    for (;;) {
      const message = (await this.notify.next()).toString('latin1');
      if (message === 'COLO_COMPARE_GET_XEN_INIT') return asked;
      assert.equal(message, 'DO_CHECKPOINT', `${this.name} said`);
      asked = true;
    }
  }
}

function pathsIn(folder: string): Paths {
  return {
    primary: join(folder, 'primary'),
    secondary: join(folder, 'secondary'),
    out: join(folder, 'out'),
    notify: join(folder, 'notify'),
  };
}

/** A frame of the PVM that leaves at once. */
function passing(number: number): Buffer {
  return ethernet(0x0806, Buffer.concat([Buffer.alloc(42), numberBytes(number)]));
}

/** With addresses that no script has. */
function marker(number: number): Buffer {
  return udpFrame({
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
    source: '198.18.0.1',
    destination: '198.18.0.2',
    sourcePort: 9,
    destinationPort: 9,
    payload: numberBytes(number),
  });
}

function numberBytes(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
}

/** A connection stands before the program has accepted it. `notify` is the last: once it replies, the program has accepted all. */
async function connectAll(paths: Paths, complaint = () => ''): Promise<FramedSocket[]> {
  const sockets: FramedSocket[] = [];
  for (const path of [paths.primary, paths.secondary, paths.out, paths.notify]) {
    sockets.push(await FramedSocket.to(path, complaint));
  }
  return sockets;
}

async function dial(path: string, complaint: () => string): Promise<Socket> {
  for (const end = performance.now() + START_MS_MAX; ; await sleep(20)) {
    const socket = connect(path);
    try {
      await once(socket, 'connect');
      return socket;
    } catch (cause) {
      if (performance.now() > end)
        throw new Error(`nobody listens on ${path}: ${complaint().trim() || 'it says nothing'}`, { cause });
    }
  }
}

/** A connection with frames and their length prefixes, as both programs use. */
class FramedSocket {
  private readonly path: string;
  private readonly socket: Socket;
  private buffered: Buffer = Buffer.alloc(0);
  private wake: () => void = () => {};

  constructor(path: string, socket: Socket) {
    this.path = path;
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('data', (bytes: Buffer) => {
      this.buffered = this.buffered.length === 0 ? bytes : Buffer.concat([this.buffered, bytes]);
      this.wake();
    });
    socket.on('close', () => this.wake());
  }

  static async to(path: string, complaint: () => string = () => ''): Promise<FramedSocket> {
    return new FramedSocket(path, await dial(path, complaint));
  }

  /** Writes these bytes, closes, and connects to the same place again. */
  async again(lastBytes: Buffer): Promise<FramedSocket> {
    this.socket.end(lastBytes);
    await once(this.socket, 'close');
    return FramedSocket.to(this.path);
  }

  write(...frames: Buffer[]): void {
    this.socket.write(framed(...frames));
  }

  async next(): Promise<Buffer> {
    this.socket.resume();
    for (;;) {
      const bytes = this.buffered;
      if (bytes.length >= 4 && bytes.length >= 4 + bytes.readUInt32BE(0)) {
        const end = 4 + bytes.readUInt32BE(0);
        this.buffered = bytes.subarray(end);
        return bytes.subarray(4, end);
      }
      assert.ok(!this.socket.destroyed, 'the comparator has closed a stream');
      await this.more();
    }
  }

  /** Returns whether bytes come within `msMax`, or were there. */
  async arrives(msMax: number): Promise<boolean> {
    if (this.buffered.length === 0)
      await new Promise<void>((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, msMax);
      });
    return this.buffered.length > 0;
  }

  stall(): void {
    this.socket.pause();
  }

  async written(): Promise<void> {
    if (this.socket.writableLength > 0) await once(this.socket, 'drain');
  }

  close(): void {
    this.socket.destroy();
  }

  private async more(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      this.wake = resolve;
      timer = setTimeout(
        () => reject(new Error(`${this.path}: the comparator does not answer`)),
        ANSWER_MS_MAX,
      );
    });
    clearTimeout(timer);
  }
}
