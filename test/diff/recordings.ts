/** Writes recordings of two VMs by the test, and compares them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DiffOptions, diffCaptures } from '../../src/diff/diff.ts';
import type { DiffReport } from '../../src/diff/report.ts';
import { pcap, type Record } from '../capture/captures.ts';
import { CLIENT_ADDRESS, udpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();
let count = 0;

export function written(bytes: Uint8Array, name = `${++count}.pcap`): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

export const START_MS = 1_800_000_000_000;

export function at(ms: number, frame: Uint8Array): Record {
  return { ms: START_MS + ms, frame };
}

export function answer(text: string | Uint8Array, port = 5000): Buffer {
  return udpFrame({
    sourceMac: VM_MAC,
    destinationMac: '02:00:00:00:00:01',
    source: VM_ADDRESS[4],
    destination: CLIENT_ADDRESS[4],
    sourcePort: 53,
    destinationPort: port,
    payload: Buffer.from(text),
  });
}

export function question(text: string, port = 5000): Buffer {
  return udpFrame({ sourcePort: port, destinationPort: 53, payload: Buffer.from(text) });
}

export function compare(
  primary: Record[],
  secondary: Record[],
  options: Partial<DiffOptions> = {},
): Promise<DiffReport> {
  return diffCaptures({
    primary: written(pcap(primary)),
    secondary: written(pcap(secondary)),
    mac: null,
    findingsMax: 20,
    hashSeed: 1,
    onProgress: () => {},
    ...options,
  });
}
