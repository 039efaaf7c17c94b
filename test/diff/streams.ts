/** One connection in two recordings, whose bytes tell their place, and what `colo diff` finds. */
import assert from 'node:assert/strict';
import type { DiffReport, Finding } from '../../src/diff/report.ts';
import type { Record } from '../capture/captures.ts';
import { ACK, arpFrame } from '../frames.ts';
import { CONNECTION, clientSyn, fromVm, handshakeAck, type Numbers, vmSyn } from '../translate/connection.ts';
import { at } from './recordings.ts';

export const c = CONNECTION;

export const opening = (vm: Numbers): Record[] => [
  at(0, clientSyn(c, vm)),
  at(1, vmSyn(c, vm)),
  at(2, handshakeAck(c, vm)),
];

/** The VM's stream from `from` on: `bytes` bytes that tell their place. */
export function content(from: number, bytes: number): Buffer {
  const words = Buffer.alloc((bytes + 8) & ~3);
  for (let i = 0; i < words.length; i += 4)
    words.writeUInt32BE(Math.imul((from >> 2) * 4 + i, 0x9e3779b1) >>> 0, i);
  return words.subarray(from & 3, (from & 3) + bytes);
}

export const sends = (
  vm: Numbers,
  ms: number,
  place: number,
  bytes: number,
  flags = ACK,
  clientAt = 1,
): Record =>
  at(ms, fromVm(c, vm, { clientAt, vmAt: 1 + place, time: ms, payload: content(place, bytes), flags }));

export const ends = (ms: number): Record[] => [at(ms, arpFrame()), at(ms + 1, arpFrame())];

export const reasons = ({ findings }: DiffReport): string[] => findings.map(({ reason }) => reason);
export const frames = ({ reason, primary, secondary }: Finding): unknown[] => [
  reason,
  primary?.frame ?? null,
  secondary?.frame ?? null,
];

export function sound(report: DiffReport): void {
  const { compared, findings } = report;
  assert.deepEqual([findings, compared.checkpoints, compared.divergences], [[], {}, {}]);
}

export function changed(frame: Uint8Array, change: number): Buffer {
  const bytes = Buffer.from(frame);
  bytes[bytes.length - 1] ^= change;
  return bytes;
}
