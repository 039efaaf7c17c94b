/**
 * A cable that delays: one tap on the switch, one on a host, and each frame of one goes to the other after a time. It is a process of
 * its own with a synchronous loop, because a timer of Node is no finer than a millisecond.
 *
 * Arguments: the file of the host's network namespace, the names of the host's tap and of the switch's, the delay in milliseconds. It
 * runs in the switch's namespace, prints `ready` when both taps are there, and ends when it is killed.
 *
 * Limit: FRAMES_MAX under way in each direction; what finds no room is lost, as in a switch.
 */
import { constants, openSync, readSync, writeSync } from 'node:fs';
import koffi from 'koffi';
import { ColoError } from '../../src/error.ts';
import { within } from '../namespace.ts';
import { machineMs } from './clock.ts';

const libc = koffi.load('libc.so.6');
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
const ppoll = libc.func('int ppoll(void *fds, unsigned long count, void *timeout, void *mask)');

const TUNSETIFF = 0x4004_54ca;
const IFF_TAP_NO_PI = 0x1002;
const IFREQ_BYTES = 40;
const FLAGS_AT = 16;
const POLLIN = 1;
const FRAME_BYTES_MAX = 65_536;
/** A second of 1500-byte frames at 100 Mbit/s. */
const FRAMES_MAX = 8192;
const IDLE_MS = 1000;

type Way = {
  readonly from: number;
  readonly to: number;
  readonly waiting: { atMs: number; frame: Buffer }[];
};

function openTap(name: string): number {
  const fd = openSync('/dev/net/tun', constants.O_RDWR);
  const argument = Buffer.alloc(IFREQ_BYTES);
  argument.write(name, 'latin1');
  argument.writeUInt16LE(IFF_TAP_NO_PI, FLAGS_AT);
  if (ioctl(fd, TUNSETIFF, argument) < 0)
    throw new ColoError('COLO_LAB_NAMESPACE', `cannot make the tap ${name} (errno ${koffi.errno()})`);
  return fd;
}

function relay(ways: readonly Way[], delayMs: number): never {
  const buffer = Buffer.alloc(FRAME_BYTES_MAX);
  // struct pollfd { int fd; short events; short revents; }
  const set = Buffer.alloc(8 * ways.length);
  for (const [i, { from }] of ways.entries()) {
    set.writeInt32LE(from, 8 * i);
    set.writeInt16LE(POLLIN, 8 * i + 4);
  }
  // struct timespec { long seconds; long nanoseconds; }
  const timeout = Buffer.alloc(16);
  for (;;) {
    const dueMs = Math.min(...ways.map(({ waiting }) => waiting[0]?.atMs ?? Number.POSITIVE_INFINITY));
    const waitMs = Math.min(Math.max(0, dueMs - machineMs()), IDLE_MS);
    timeout.writeBigInt64LE(BigInt(Math.floor(waitMs / 1000)));
    timeout.writeBigInt64LE(BigInt(Math.floor((waitMs % 1000) * 1e6)), 8);
    ppoll(set, ways.length, timeout, null);
    const nowMs = machineMs();
    for (const [i, { from, to, waiting }] of ways.entries()) {
      if ((set.readInt16LE(8 * i + 6) & POLLIN) !== 0) {
        const length = readSync(from, buffer);
        if (waiting.length < FRAMES_MAX)
          waiting.push({ atMs: nowMs + delayMs, frame: Buffer.from(buffer.subarray(0, length)) });
      }
      while (waiting.length > 0 && waiting[0].atMs <= nowMs) write(to, waiting.shift()?.frame);
    }
  }
}

/** A tap that is down takes no frame: it is lost. */
function write(tap: number, frame: Buffer | undefined): void {
  if (frame === undefined) return;
  try {
    writeSync(tap, frame);
  } catch {
    // as said
  }
}

const [file, hostTap, switchTap, delay] = process.argv.slice(2);
const near = openTap(switchTap);
const far = within({ fd: openSync(file, 'r') }, () => openTap(hostTap));
process.stdout.write('ready\n');
relay(
  [
    { from: near, to: far, waiting: [] },
    { from: far, to: near, waiting: [] },
  ],
  Number(delay),
);
