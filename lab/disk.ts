/** A disk of the lab's guest: an image with a file system, and what is on it when no VM uses it. */
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { ColoError } from '../src/error.ts';
import { run } from './process.ts';
import { installFromBookworm, type Program } from './program.ts';

/** The word with which the guest mounts its first disk. */
export const DISK_WORD = 'colo.disk';
/** Of the guest's file of lines (guest/services.pl). */
const LINES = '/lines';

async function e2fsprogs(tool: 'mke2fs' | 'e2fsck' | 'debugfs'): Promise<Program> {
  return installFromBookworm('e2fsprogs', ['e2fsprogs'], `sbin/${tool}`);
}

/** Makes a raw image with an empty ext4 file system. */
export async function makeDisk(image: string, bytes: number): Promise<void> {
  writeFileSync(image, '');
  truncateSync(image, bytes);
  const { command, env } = await e2fsprogs('mke2fs');
  const made = await run([...command, '-q', '-F', '-t', 'ext4', image], { env: { ...process.env, ...env } });
  if (made.status !== 0) throw new ColoError('COLO_LAB_DISK', `no file system in ${image}: ${made.stderr}`);
}

/**
 * Returns the lines that the guest has written to the disk. The image is that of a machine that lost power, so a copy of it is
 * repaired as the machine's next start would. Throws COLO_LAB_DISK if the file system is damaged beyond its journal.
 */
export async function readLines(image: string): Promise<string[]> {
  const copy = `${image}.copy`;
  copyFileSync(image, copy);
  const check = await e2fsprogs('e2fsck');
  const env = { ...process.env, ...check.env };
  // The journal alone, as a mount does; the second run finds nothing but ext4's lazy counters.
  await run([...check.command, '-y', '-E', 'journal_only', copy], { env });
  const checked = await run([...check.command, '-f', '-n', copy], { env });
  const faults = checked.stdout
    .split('\n')
    .filter((line) => /\?\s+no$/.test(line) || /error|corrupt|wrong/i.test(line))
    .filter((line) => !/^(Free (blocks|inodes) count wrong|Fix\? no)/.test(line));
  if (faults.length > 0)
    throw new ColoError('COLO_LAB_DISK', `the file system of ${image}: ${faults.join('; ')}`);
  const { command } = await e2fsprogs('debugfs');
  const read = await run([...command, '-R', `cat ${LINES}`, copy], { env });
  return read.stdout.split('\n').filter((line) => line !== '');
}

/** Returns how many blocks of 4096 bytes differ between two raw images. */
export function differingBlocks(one: string, other: string): number {
  const [a, b] = [readFileSync(one), readFileSync(other)];
  if (a.length !== b.length) return Math.abs(a.length - b.length);
  let differing = 0;
  for (let at = 0; at < a.length; at += 4096)
    if (!a.subarray(at, at + 4096).equals(b.subarray(at, at + 4096))) differing++;
  return differing;
}
