/**
 * Records what leaves the hosts for the clients' network with the VM's address as its source: a capture at the switch's port of each
 * host, with the kernel's time of arrival, so that frames of both have one order.
 */
import type { ChildProcess } from 'node:child_process';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureReader } from '../../src/capture/capture-reader.ts';
import { CapturedFrame } from '../../src/capture/captured-frame.ts';
import { ColoError } from '../../src/error.ts';
import { stopChild } from '../process.ts';
import type { Program } from '../program.ts';
import { NIC } from '../vm.ts';
import { startIn } from './child.ts';
import { type BedNetwork, HOSTS, type HostName } from './network.ts';

/** Enough for all headers. */
const SNAP_BYTES = 128;
const READY_MS_MAX = 10_000;
/** tcpdump writes each frame at once (-U), and needs a processor for that. */
const WRITES_MS_MAX = 300;
const ENDS_MS_MAX = 2000;

export type SpokenFrame = { readonly host: HostName; readonly atMs: number };

type Capture = {
  readonly host: HostName;
  readonly child: ChildProcess;
  readonly path: string;
  readonly reader: CaptureReader;
  /** how far the file was read */
  readBytes: number;
  /** what tcpdump has printed */
  said: string;
};

export class Recorder {
  private readonly captures: readonly Capture[];

  private constructor(captures: readonly Capture[]) {
    this.captures = captures;
  }

  static async start(network: BedNetwork, tcpdump: Program, directory: string): Promise<Recorder> {
    const captures: Capture[] = [];
    try {
      for (const host of HOSTS) {
        const capture = startCapture(host, network, tcpdump, directory);
        captures.push(capture);
        await untilCaptures(capture);
      }
    } catch (cause) {
      for (const { child } of captures) await stopChild(child);
      throw cause;
    }
    return new Recorder(captures);
  }

  /** Returns the frames since the last call, in their order. */
  async frames(): Promise<SpokenFrame[]> {
    await sleep(WRITES_MS_MAX);
    const frames: SpokenFrame[] = [];
    const frame = new CapturedFrame();
    for (const capture of this.captures) {
      capture.reader.push(rest(capture));
      while (capture.reader.next(frame)) frames.push({ host: capture.host, atMs: frame.timeMs });
    }
    return frames.sort((one, other) => one.atMs - other.atMs);
  }

  /**
   * Ends the captures. Returns how many frames the kernel had no room for, so that nobody has seen them; null if a capture had ended
   * before, so that nobody knows.
   */
  async stop(): Promise<number | null> {
    const missed = await Promise.all(this.captures.map(missedBy));
    return missed.reduce((sum, one) => (sum === null || one === null ? null : sum + one), 0);
  }
}

function startCapture(host: HostName, network: BedNetwork, tcpdump: Program, directory: string): Capture {
  const path = join(directory, `voice-${host}.pcap`);
  const options = ['-i', network.lanPort(host), '-Q', 'in', '-s', String(SNAP_BYTES), '-B', '4096'];
  const to = ['-U', '--immediate-mode', '-Z', 'root', '-w', path];
  const command = [...tcpdump.command, ...options, ...to, `ether src ${NIC.mac}`];
  const child = startIn(network.switches, command, { stdio: ['ignore', 'ignore', 'pipe'] });
  const capture: Capture = { host, child, path, reader: new CaptureReader(path), readBytes: 0, said: '' };
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    capture.said += text;
  });
  return capture;
}

const isOver = ({ child }: Capture): boolean => child.exitCode !== null || child.signalCode !== null;

async function untilCaptures(capture: Capture): Promise<void> {
  for (
    const endMs = performance.now() + READY_MS_MAX;
    !capture.said.includes('listening on');
    await sleep(20)
  ) {
    if (performance.now() < endMs && !isOver(capture)) continue;
    throw new ColoError('COLO_LAB', `tcpdump does not capture: ${capture.said.trim()}`);
  }
}

/** tcpdump prints its counts when it ends. */
async function missedBy(capture: Capture): Promise<number | null> {
  if (isOver(capture)) return null;
  const { child } = capture;
  const closed = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGTERM');
  await Promise.race([closed, sleep(ENDS_MS_MAX)]);
  await stopChild(child);
  const [, count] = /(\d+) packets? dropped by kernel/.exec(capture.said) ?? [];
  return count === undefined ? null : Number(count);
}

/** Returns what the file has grown by. */
function rest(capture: Capture): Buffer {
  const file = openSync(capture.path, 'r');
  try {
    const bytes = Buffer.alloc(fstatSync(file).size - capture.readBytes);
    capture.readBytes += readSync(file, bytes, 0, bytes.length, capture.readBytes);
    return bytes;
  } finally {
    closeSync(file);
  }
}
