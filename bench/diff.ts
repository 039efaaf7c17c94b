/**
 * How fast `colo diff` is, and how much memory it takes, on two recordings that are larger than its memory may be.
 *
 * The recordings are made here: FLOWS downloads side by side, full segments, each with the client's ACKs, the VMs' numbers far
 * apart. `colo diff` runs as a process, as users run it. Its peak is VmHWM of /proc, read until it ends; the rate is the bytes of
 * both files by its running time, start included.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ColoError } from '../src/error.ts';
import type { Bench } from './bench.ts';

const HELP = `npm run bench -- diff [--json] [--megabytes N]
  --megabytes N   size of each of the two recordings, default 1000; they are written to the temporary folder`;

/** The claims: of both files together, on one core. */
const MEGABYTES_PER_SECOND_MIN = 100;
const PEAK_MEGABYTES_MAX = 300;
const MEGABYTE = 1_000_000;
const FLOWS = 8;
const PAYLOAD_BYTES = 1448;
const HEADER_BYTES = 54;
const RECORD_BYTES = 16;
/** One segment in so many is acknowledged by the client. */
const ACKED_EVERY = 2;
const START_S = 1_800_000_000;
const SEGMENT_US = 12;
const LOOK_MS = 20;
const COLO = fileURLToPath(new URL('../bin/colo', import.meta.url));

export const diffBench: Bench = async (args, print) => {
  const options = readOptions(args);
  if (options === null) {
    print(HELP);
    return null;
  }
  const folder = mkdtempSync(join(tmpdir(), 'colo-bench-diff-'));
  try {
    const files = ['primary.pcap', 'secondary.pcap'].map((name) => join(folder, name));
    const sent = writeRecording(files[0], options.megabytes, 0x1000);
    writeRecording(files[1], options.megabytes, 0x9000_0000);
    const bytes = files.reduce((sum, file) => sum + statSync(file).size, 0);
    const { seconds, processorSeconds, peakBytes, matched, findings } = await run(files);
    const rate = Math.round(bytes / MEGABYTE / seconds);
    const peak = Math.round(peakBytes / MEGABYTE);
    print(
      `${'two recordings'.padEnd(24)}${Math.round(bytes / MEGABYTE)} MB, ${matched} of ${sent} frames matched`,
    );
    print(`${'processor time'.padEnd(24)}${processorSeconds.toFixed(1)} s in ${seconds.toFixed(1)} s`);
    print(`${'rate'.padEnd(24)}${rate} MB/s (claim: ${MEGABYTES_PER_SECOND_MIN} or more)`);
    print(`${'peak of memory'.padEnd(24)}${peak} MB (claim: less than ${PEAK_MEGABYTES_MAX})`);
    const isRight = matched === sent && findings === 0;
    const ok = rate >= MEGABYTES_PER_SECOND_MIN && peak < PEAK_MEGABYTES_MAX && isRight;
    return {
      ok,
      bytes,
      seconds,
      processorSeconds,
      megabytesPerSecond: rate,
      peakMegabytes: peak,
      matched,
      findings,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
};

function readOptions(args: string[]): { megabytes: number } | null {
  try {
    const { values } = parseArgs({
      args,
      options: {
        megabytes: { type: 'string', default: '1000' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) return null;
    const megabytes = Number(values.megabytes);
    if (!Number.isInteger(megabytes) || megabytes < 1 || megabytes > 100_000)
      throw new Error('--megabytes takes a whole number from 1 to 100000');
    return { megabytes };
  } catch (cause) {
    throw new ColoError('COLO_USAGE', `${(cause as Error).message}\n${HELP}`);
  }
}

/** Of the VM's frame, `seq` counts from its first byte; of the client's, that is what it acknowledges. */
type Segment = { fromVm: boolean; flow: number; seq: number; flags: number; bytes: number };

/** Writes a recording of a VM that sends FLOWS streams. Returns the number of the VM's frames. */
function writeRecording(path: string, megabytes: number, isn: number): number {
  const fd = openSync(path, 'w');
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt32LE(0x00040002, 4);
  header.writeUInt32LE(262_144, 16);
  header.writeUInt32LE(1, 20);
  writeSync(fd, header);
  const piece = Buffer.alloc(1 << 20);
  let at = 0;
  let us = 0;
  let sent = 0;
  const record = (frame: Segment): void => {
    if (frame.fromVm) sent++;
    const length = HEADER_BYTES + frame.bytes;
    if (at + RECORD_BYTES + length > piece.length) {
      writeSync(fd, piece, 0, at);
      at = 0;
    }
    us += SEGMENT_US;
    piece.writeUInt32LE(START_S + Math.floor(us / 1e6), at);
    piece.writeUInt32LE(us % 1e6, at + 4);
    piece.writeUInt32LE(length, at + 8);
    piece.writeUInt32LE(length, at + 12);
    writeFrame(piece.subarray(at + RECORD_BYTES, at + RECORD_BYTES + length), frame, isn);
    at += RECORD_BYTES + length;
  };
  const SYN = 2;
  const ACK = 16;
  for (let flow = 0; flow < FLOWS; flow++) {
    record({ fromVm: false, flow, seq: -1, flags: SYN, bytes: 0 });
    record({ fromVm: true, flow, seq: -1, flags: SYN | ACK, bytes: 0 });
    record({ fromVm: false, flow, seq: 0, flags: ACK, bytes: 0 });
  }
  const rounds = (megabytes * MEGABYTE) / (FLOWS * (PAYLOAD_BYTES + 1.5 * (HEADER_BYTES + RECORD_BYTES)));
  for (let i = 0; i < rounds; i++) {
    for (let flow = 0; flow < FLOWS; flow++) {
      record({ fromVm: true, flow, seq: i * PAYLOAD_BYTES, flags: ACK, bytes: PAYLOAD_BYTES });
      if (i % ACKED_EVERY === 1)
        record({ fromVm: false, flow, seq: (i + 1) * PAYLOAD_BYTES, flags: ACK, bytes: 0 });
    }
  }
  writeSync(fd, piece, 0, at);
  closeSync(fd);
  return sent;
}

function writeFrame(frame: Buffer, { fromVm, flow, seq, flags, bytes }: Segment, isn: number): void {
  const CLIENT_ISN = 7000;
  const [vm, client] = [0x5254_0000, 0x0200_0000];
  frame.writeUInt32BE(fromVm ? client : vm, 0);
  frame.writeUInt16BE(1, 4);
  frame.writeUInt32BE(fromVm ? vm : client, 6);
  frame.writeUInt16BE(1, 10);
  frame.writeUInt16BE(0x0800, 12);
  frame.writeUInt32BE(0x4500_0000 | (frame.length - 14), 14);
  frame.writeUInt32BE(0x4000, 18);
  frame.writeUInt32BE(0x4006_0000, 22);
  frame.writeUInt32BE(fromVm ? 0x0a00_020f : 0x0a00_0202, 26);
  frame.writeUInt32BE(fromVm ? 0x0a00_0202 : 0x0a00_020f, 30);
  const vmSeq = (isn + 1 + seq) >>> 0;
  const isSyn = (flags & 2) !== 0;
  const clientSeq = CLIENT_ISN + (isSyn && !fromVm ? 0 : 1);
  frame.writeUInt16BE(fromVm ? 80 : 40_000 + flow, 34);
  frame.writeUInt16BE(fromVm ? 40_000 + flow : 80, 36);
  frame.writeUInt32BE(fromVm ? vmSeq : clientSeq, 38);
  frame.writeUInt32BE(fromVm ? clientSeq : isSyn ? 0 : vmSeq, 42);
  frame.writeUInt32BE(0x5000_ffff | (flags << 16), 46);
  frame.writeUInt32BE(0, 50);
  if (bytes > 0) frame.fill(flow + 1 + ((seq / PAYLOAD_BYTES) & 0x7f), HEADER_BYTES);
}

async function run(files: string[]): Promise<{
  seconds: number;
  processorSeconds: number;
  peakBytes: number;
  matched: number;
  findings: number;
}> {
  const startMs = performance.now();
  const child = spawn(COLO, ['diff', ...files, '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
  });
  let peakBytes = 0;
  let processorSeconds = 0;
  const look = setInterval(() => {
    processorSeconds = Math.max(processorSeconds, processorSecondsOf(child.pid));
    peakBytes = Math.max(peakBytes, peakOf(child.pid));
  }, LOOK_MS);
  try {
    const [code] = await once(child, 'close');
    if (code !== 0) throw new Error(`colo diff ended with ${code}`);
  } finally {
    clearInterval(look);
  }
  const seconds = (performance.now() - startMs) / 1000;
  const report = JSON.parse(text);
  return {
    seconds,
    processorSeconds,
    peakBytes,
    matched: report.compared.matched,
    findings: report.findings.length,
  };
}

function peakOf(pid: number | undefined): number {
  try {
    const found = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    return found === null ? 0 : Number(found[1]) * 1024;
  } catch {
    // It has ended.
    return 0;
  }
}

/** Hundredths of a second, in user and system mode: fields 14 and 15 of /proc/PID/stat. */
function processorSecondsOf(pid: number | undefined): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return 0;
  }
}
