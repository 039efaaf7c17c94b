/** A deviation as text: each step, what either comparator did, and the frame. docs/qemu-differences.md shows it. */
import { FIN, RST, SYN } from '../../frames.ts';
import type { Deviation } from './deviations.ts';
import { Voice } from './script.ts';

const CLIENT = '10.64.0.1';
const ACK = 0x10;

export function sideBySide({ script, qemu, ours }: Deviation): string[] {
  const rows = script(new Voice(CLIENT)).map((step, i) => {
    const [name, theirs = '-'] = qemu[i].split(': ');
    return [name, theirs, ours[i].split(': ')[1] ?? '-', step.who === 'checkpoint' ? '' : about(step.frame)];
  });
  const all = [['', 'QEMU', 'colo compare', 'frame'], ...rows];
  const widths = [0, 1, 2].map((column) => Math.max(...all.map((row) => row[column].length)) + 3);
  return all.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('')
      .trimEnd(),
  );
}

/** Returns the fields that tell the frames of a script apart, in IPv4 without tags; for others the text of the payload. */
function about(frame: Buffer): string {
  const type = frame.readUInt16BE(12);
  if (type !== 0x0800) return text(frame.subarray(type === 0x8100 ? 46 : type === 0x86dd ? 62 : 14));
  const end = Math.min(14 + frame.readUInt16BE(16), frame.length);
  const padding = frame.length > end ? ` padded with ...${frame.toString('hex', frame.length - 2)}` : '';
  const cut = frame.length < 14 + frame.readUInt16BE(16) ? ' cut short' : '';
  const fragment = (frame.readUInt16BE(20) & 0x3fff) !== 0;
  const protocol = frame[23];
  if (fragment)
    return `fragment at ${8 * (frame.readUInt16BE(20) & 0x1fff)}: ${text(frame.subarray(34, end))}`;
  if (protocol === 6) return `${aboutTcp(frame, end)}${padding}`;
  if (protocol === 17) {
    const checksum = frame.readUInt16BE(40) === 0 ? ' without checksum' : '';
    return `port ${frame.readUInt16BE(36)} ${text(frame.subarray(42, end))}${checksum}${padding}${cut}`;
  }
  if (protocol === 1 && frame[34] === 3) return `error about ${aboutQuoted(frame.subarray(42, end))}`;
  if (protocol === 1) return `echo reply ${frame.readUInt16BE(40)}`;
  return `IP protocol ${protocol}, id ${frame.readUInt16BE(18)} ${text(frame.subarray(34, end))}`;
}

function aboutTcp(frame: Buffer, end: number): string {
  const flags = frame[47];
  const names = [
    [SYN, 'SYN'],
    [FIN, 'FIN'],
    [RST, 'RST'],
  ] as const;
  return [
    `seq ${frame.readUInt32BE(38)}`,
    ...((flags & ACK) !== 0 ? [`ack ${frame.readUInt32BE(42)}`] : []),
    ...names.flatMap(([flag, name]) => ((flags & flag) !== 0 ? [name] : [])),
    ...(end > 54 ? [text(frame.subarray(54, end))] : []),
  ].join(' ');
}

/** A quoted TCP segment. */
function aboutQuoted(packet: Buffer): string {
  const id = `id ${packet.readUInt16BE(4)}`;
  const seq = `seq ${packet.readUInt32BE(24)}`;
  return packet.length < 40 ? `${seq}, ${id}, cut` : `${seq} ack ${packet.readUInt32BE(28)}, ${id}`;
}

function text(bytes: Buffer): string {
  return JSON.stringify(bytes.toString('latin1').replace(/[^ -~]/g, '.'));
}
