/**
 * One transfer between a client and a pair of VMs that are real Linux TCP stacks.
 *
 *     client ==tap== [wire] ---+--------- tap == PVM ---------- compare --primary-in
 *                      ^       +-- rewrite --in                    |
 *                      |              --guest-in -- tap == SVM     |
 *                      |                 --guest-out --+           |
 *                      |              --out ------- compare --secondary-in
 *                      +------------------------------ compare --out
 *
 * Both VMs have one address, one MAC and one service, and get every frame of the client that the wire has not lost. Nothing
 * takes checkpoints. Without colo in between there is no SVM, and the PVM's frames go to the wire.
 *
 * All taps belong to this process: it waits for them with poll(2), and lets Node handle the sockets between two waits.
 */
import type { ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { areListenedOn } from '../../lab/listening.ts';
import { type Namespace, newNamespace, setKernel, within } from '../../lab/namespace.ts';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import { ColoError } from '../../src/error.ts';
import type { Transfer } from './client.ts';
import { FramedSocket } from './framed-socket.ts';
import { type Address, makeTap, Poll, readFrame, writeFrame } from './kernel.ts';
import { StreamProgress } from './progress.ts';
import type { Direction } from './service.ts';
import type { Variant } from './variants.ts';
import { isTcp, type Quality, Wire } from './wire.ts';

export type Trial = {
  readonly direction: Direction;
  readonly bytes: number;
  readonly quality: Quality;
  readonly variant: Variant;
  readonly seed: number;
  /** bin/colo, or null for a transfer without it */
  readonly colo: string | null;
};

/** What `colo compare` has counted. */
export type Compared = {
  readonly matched: number;
  readonly divergences: number;
  /** Checkpoints that it asked for, by reason; none was taken. */
  readonly asked: Readonly<Record<string, number>>;
};

export type Outcome = {
  /** null: it stood still until it was given up */
  readonly ms: number | null;
  readonly right: boolean;
  /** Times that the client got nothing new for a second, and the longest such time. */
  readonly stalls: number;
  readonly longestMs: number;
  readonly lost: number;
  readonly compared: Compared | null;
};

/** Without anything new for that long, a transfer is given up. */
const STANDS_MS_MAX = 30_000;
const POLL_MS_MAX = 5;
const START_MS_MAX = 20_000;
const FRAMES_PER_TURN_MAX = 256;
const FRAME_BYTES_MAX = 65_536;

const MAC = { vm: Uint8Array.of(0x52, 0x54, 0, 0, 0, 1), client: Uint8Array.of(2, 0, 0, 0, 0, 2) };
const V4 = { vm: Uint8Array.of(10, 9, 0, 1), client: Uint8Array.of(10, 9, 0, 2) };
const V6_PREFIX = [0xfd, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
const V6 = { vm: Uint8Array.of(...V6_PREFIX, 1), client: Uint8Array.of(...V6_PREFIX, 2) };
/** of the VMs, as the client writes them */
const VM_TEXT = { 4: '10.9.0.1', 6: 'fd00:0:0:9::1' } as const;

const SERVER = fileURLToPath(new URL('./vm.ts', import.meta.url));
const CLIENT = fileURLToPath(new URL('./client.ts', import.meta.url));

/** A machine with a stack of its own, and the tap that leads to it. */
type Stack = { readonly namespace: Namespace; readonly tap: number };

export async function runTrial(trial: Trial): Promise<Outcome> {
  const bed = new Bed(trial);
  try {
    return await bed.run();
  } finally {
    await bed.close();
  }
}

class Bed {
  private readonly trial: Trial;
  private readonly folder = workFolder();
  private readonly children: ChildProcess[] = [];
  private readonly stacks: Stack[] = [];
  private readonly sockets: FramedSocket[] = [];
  private readonly toVms: Wire;
  private readonly toClient: Wire;
  private readonly buffer = Buffer.alloc(FRAME_BYTES_MAX);
  private asked: Record<string, number> = {};
  private stopped: { matched: number; divergences: number } | null = null;
  private failure = '';

  constructor(trial: Trial) {
    this.trial = trial;
    const { quality, seed } = trial;
    this.toVms = new Wire(quality, 2 * seed, (frame) => this.reachVms(frame));
    this.toClient = new Wire(quality, 2 * seed + 1, (frame) => this.reachClient(frame));
  }

  private progress = new StreamProgress(0);
  private client: Stack | null = null;
  private primary: Stack | null = null;
  private secondary: Stack | null = null;
  private compare: { child: ChildProcess; primaryIn: FramedSocket } | null = null;
  private rewrite: { input: FramedSocket; guestOut: FramedSocket } | null = null;

  async run(): Promise<Outcome> {
    const { trial } = this;
    this.client = this.makeStack({ mac: MAC.client, v4: V4.client, v6: V6.client, mtu: trial.variant.mtu });
    this.primary = await this.makeVm({});
    if (trial.colo !== null) {
      this.secondary = await this.makeVm(trial.variant.secondary);
      await this.startColo(trial.colo);
    }
    const transfer = await this.transfer();
    const compared = await this.compared();
    if (this.failure !== '') throw new ColoError('COLO_BENCH_PEER', this.failure);
    const { stalls, longestMs } = this.progress;
    const lost = this.toVms.lost + this.toClient.lost;
    const right = transfer?.right === true;
    return { ms: transfer?.ms ?? null, right, stalls, longestMs, lost, compared };
  }

  async close(): Promise<void> {
    for (const child of this.children) await stopChild(child);
    for (const socket of this.sockets) socket.close();
    for (const { tap, namespace } of this.stacks) {
      closeSync(tap);
      closeSync(namespace.fd);
    }
    removeWorkFolder(this.folder);
  }

  /* Setting up. */

  private makeStack(address: Address): Stack {
    const namespace = newNamespace();
    const tap = makeTap(namespace, address);
    const stack = { namespace, tap };
    this.stacks.push(stack);
    const settings = { tcp_congestion_control: 'reno', ...this.trial.variant.all };
    within(namespace, () => setAll(settings));
    return stack;
  }

  private async makeVm(settings: Readonly<Record<string, string>>): Promise<Stack> {
    const stack = this.makeStack({ mac: MAC.vm, v4: V4.vm, v6: V6.vm, mtu: this.trial.variant.mtu });
    within(stack.namespace, () => setAll(settings));
    const child = this.startIn(stack, [SERVER]);
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once('data', () => resolve());
      child.once('exit', () => reject(new ColoError('COLO_BENCH_PEER', 'the service of a VM did not start')));
    });
    return stack;
  }

  private startIn(stack: Stack, args: readonly string[]): ChildProcess {
    const command = [process.execPath, '--disable-warning=ExperimentalWarning', ...args];
    const child = within(stack.namespace, () => startChild(command, { stdio: ['pipe', 'pipe', 'inherit'] }));
    this.children.push(child);
    return child;
  }

  private async startColo(colo: string): Promise<void> {
    const path = (name: string): string => join(this.folder, name);
    const compare = this.startProcess(colo, 'compare', {
      'primary-in': `unix-listen:${path('primary')}`,
      'secondary-in': `unix-listen:${path('secondary')}`,
      out: `unix-listen:${path('out')}`,
    });
    await this.untilThere(['primary', 'secondary', 'out'].map(path));
    this.startProcess(colo, 'rewrite', {
      in: `unix-listen:${path('in')}`,
      'guest-in': `unix-listen:${path('guest-in')}`,
      'guest-out': `unix-listen:${path('guest-out')}`,
      out: `unix:${path('secondary')}`,
    });
    await this.untilThere(['in', 'guest-in', 'guest-out'].map(path));
    const { secondary } = this;
    await this.open(path('out'), (frame) => this.toClient.push(frame, performance.now()));
    await this.open(path('guest-in'), (frame) => writeFrame((secondary as Stack).tap, frame));
    this.rewrite = { input: await this.open(path('in')), guestOut: await this.open(path('guest-out')) };
    this.compare = { child: compare, primaryIn: await this.open(path('primary')) };
  }

  private startProcess(
    colo: string,
    command: string,
    endpoints: Readonly<Record<string, string>>,
  ): ChildProcess {
    const options = Object.entries(endpoints).flatMap(([name, endpoint]) => [`--${name}`, endpoint]);
    const child = startChild([colo, command, ...options, '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.children.push(child);
    child.once('exit', (code) => {
      if (code !== 0 && code !== null) this.failure = `colo ${command} has ended with status ${code}`;
    });
    let rest = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.takeEvent(JSON.parse(line) as ColoEvent);
    });
    return child;
  }

  private takeEvent(event: ColoEvent): void {
    if (event.type === 'checkpoint.asked') this.asked[event.reason] = (this.asked[event.reason] ?? 0) + 1;
    else if (event.type === 'compare.stopped') this.stopped = event;
  }

  private async untilThere(paths: readonly string[]): Promise<void> {
    for (const end = performance.now() + START_MS_MAX; ; await sleep(20)) {
      if (areListenedOn(paths)) return;
      if (this.failure === '' && performance.now() < end) continue;
      throw new ColoError('COLO_BENCH_PEER', this.failure || 'colo does not listen');
    }
  }

  private async open(path: string, onFrame?: (frame: Uint8Array) => void): Promise<FramedSocket> {
    const socket = await FramedSocket.open(path, onFrame);
    this.sockets.push(socket);
    return socket;
  }

  /* The transfer. */

  /** Returns null if it stood still for too long. */
  private async transfer(): Promise<Transfer | null> {
    const { direction, bytes, variant } = this.trial;
    const client = this.startIn(this.client as Stack, [
      CLIENT,
      VM_TEXT[variant.family],
      direction,
      String(bytes),
    ]);
    let line = '';
    client.stdout?.setEncoding('utf8').on('data', (text: string) => {
      line += text;
    });
    this.progress = new StreamProgress(performance.now());
    const poll = new Poll([...this.stacks.map(({ tap }) => tap), ...this.sockets.map(({ fd }) => fd)]);
    while (!line.endsWith('\n')) {
      const nowMs = performance.now();
      if (this.failure !== '' || this.progress.standsMs(nowMs) > STANDS_MS_MAX) return null;
      const dueMs = Math.min(this.toVms.nextAtMs, this.toClient.nextAtMs) - nowMs;
      poll.wait(Math.ceil(Math.min(Math.max(dueMs, 0), POLL_MS_MAX)));
      this.turn();
      await nextTurn();
    }
    return JSON.parse(line) as Transfer;
  }

  private turn(): void {
    const { compare, rewrite, toVms, toClient } = this;
    const nowMs = performance.now();
    this.readAll(this.client, (frame) => toVms.push(frame, nowMs));
    this.readAll(this.primary, (frame) => {
      if (compare === null) toClient.push(frame, nowMs);
      else compare.primaryIn.send(frame);
    });
    this.readAll(this.secondary, (frame) => rewrite?.guestOut.send(frame));
    toVms.turn(nowMs);
    toClient.turn(nowMs);
  }

  private readAll(stack: Stack | null, take: (frame: Uint8Array) => void): void {
    if (stack === null) return;
    for (let i = 0; i < FRAMES_PER_TURN_MAX; i++) {
      const length = readFrame(stack.tap, this.buffer);
      if (length === 0) return;
      take(Uint8Array.prototype.slice.call(this.buffer, 0, length));
    }
  }

  private reachVms(frame: Uint8Array): void {
    writeFrame((this.primary as Stack).tap, frame);
    this.rewrite?.input.send(frame);
  }

  private reachClient(frame: Uint8Array): void {
    if (isTcp(frame)) this.progress.frame(frame, performance.now());
    writeFrame((this.client as Stack).tap, frame);
  }

  /** Ends `colo compare` in order, for its counters. */
  private async compared(): Promise<Compared | null> {
    if (this.compare === null) return null;
    const { child } = this.compare;
    child.kill('SIGTERM');
    if (child.exitCode === null) await new Promise((resolve) => child.once('close', resolve));
    const { matched = 0, divergences = 0 } = this.stopped ?? {};
    return { matched, divergences, asked: this.asked };
  }
}

type ColoEvent =
  | { type: 'checkpoint.asked'; reason: string }
  | { type: 'compare.stopped'; matched: number; divergences: number };

function setAll(settings: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(settings)) setKernel(`net/ipv4/${key}`, value);
}
