/**
 * What QEMU's own tool, qemu-img, says of an image, and does with one. Images of a VM that runs may be asked for.
 *
 * The tool is that beside `vm.command`'s QEMU: another release may not know its images. Each run has a deadline.
 *
 * Failure: COLO_DISK_TOOL if the tool cannot be run; COLO_DISK_SPACE if a file system is full; COLO_DISK_IMAGE with the tool's reason.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { ColoError } from '../error.ts';
import type { DiskFormat } from './disk.ts';

/** It reads or writes a header. A disk that takes longer is of no use. */
const TOOL_MS_MAX = 30_000;
/** More than any list of an image's extents that is looked at; a blank one has one entry. */
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
const TOOL = 'qemu-img';

/** How a program ended: `status` is null if it was not started or was killed, and `problem` says why. */
export type ToolRun = {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly problem: string;
};
export type RunTool = (
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  msMax: number,
) => Promise<ToolRun>;

export type ImageInfo = {
  /** the size that a guest sees */
  readonly bytes: number;
  readonly backing: string | null;
  readonly dataFile: string | null;
  readonly isEncrypted: boolean;
  readonly isCorrupt: boolean;
};

const infoSchema = z.object({
  'virtual-size': z.int().nonnegative(),
  'full-backing-filename': z.string().optional(),
  'backing-filename': z.string().optional(),
  encrypted: z.boolean().optional(),
  'format-specific': z
    .object({
      data: z.object({ 'data-file': z.string().optional(), corrupt: z.boolean().optional() }).optional(),
    })
    .optional(),
});
const mapSchema = z.array(
  z.object({ start: z.int().nonnegative(), length: z.int().nonnegative(), zero: z.boolean() }),
);

export class ImageTool {
  private readonly command: readonly string[];
  private readonly env: Readonly<Record<string, string>>;
  private readonly run: RunTool;

  constructor(command: readonly string[], env: Readonly<Record<string, string>>, run: RunTool = runTool) {
    this.command = command;
    this.env = env;
    this.run = run;
  }

  async info(path: string, format: DiskFormat): Promise<ImageInfo> {
    const text = await this.done(['info', '-U', '-f', format, '--output=json', path], path);
    const found = this.parsed(infoSchema, text);
    const { 'data-file': dataFile, corrupt } = found['format-specific']?.data ?? {};
    return {
      bytes: found['virtual-size'],
      backing: found['full-backing-filename'] ?? found['backing-filename'] ?? null,
      dataFile: dataFile ?? null,
      isEncrypted: found.encrypted ?? false,
      isCorrupt: corrupt ?? false,
    };
  }

  /** Returns where the last block ends that may hold something else than zeros; 0 if a guest would read zeros only. */
  async dataEnd(path: string, format: DiskFormat): Promise<number> {
    const text = await this.done(['map', '-U', '-f', format, '--output=json', path], path);
    const last = this.parsed(mapSchema, text).findLast(({ zero }) => !zero);
    return last === undefined ? 0 : last.start + last.length;
  }

  /** Makes an image whose guest reads zeros; replaces a file that is there. Refused while another process uses it. */
  async create(path: string, format: DiskFormat, bytes: number): Promise<void> {
    await this.done(['create', '-q', '-f', format, path, String(bytes)], path);
  }

  /** Returns what the tool printed. */
  private async done(args: readonly string[], path: string): Promise<string> {
    const argv = [...this.command, ...args];
    const { status, stdout, stderr, problem } = await this.run(argv, this.env, TOOL_MS_MAX);
    if (status === 0) return stdout;
    if (status === null || status === 127)
      throw new ColoError(
        'COLO_DISK_TOOL',
        `cannot run ${argv[0]}: ${problem}; install qemu-img beside QEMU (Debian: qemu-utils)`,
      );
    const said = (stderr.trim().split('\n')[0] ?? '').replace(/^.*qemu-img: /, '');
    if (/no space left|quota exceeded/i.test(stderr))
      throw new ColoError('COLO_DISK_SPACE', `there is no room for ${path}; make room in ${dirname(path)}`);
    const inUse = /lock/i.test(stderr) ? '; stop the other program that uses it' : '';
    throw new ColoError('COLO_DISK_IMAGE', `${path}: qemu-img says: ${said}${inUse}`);
  }

  private parsed<T>(schema: z.ZodType<T>, text: string): T {
    try {
      return schema.parse(JSON.parse(text));
    } catch (cause) {
      throw new ColoError(
        'COLO_DISK_TOOL',
        `${this.command.join(' ')} prints something unknown; is it qemu-img?`,
        { cause },
      );
    }
  }
}

/** Returns the start of qemu-img's command line: beside QEMU's program, by the same loader or wrapper, or the one in PATH. */
export function imageCommandOf(
  command: readonly string[],
  exists: (path: string) => boolean = existsSync,
): string[] {
  // The first: folders of QEMU's own may follow.
  const at = command.findIndex((part) => /^qemu(-system-|-kvm|$)/.test(basename(part)));
  if (at < 0 || !command[at].includes('/')) return [...command.slice(0, Math.max(at, 0)), TOOL];
  const beside = join(dirname(command[at]), TOOL);
  return exists(beside) ? [...command.slice(0, at), beside] : [TOOL];
}

export const runTool: RunTool = (argv, env, msMax) =>
  new Promise((resolve) => {
    const [program, ...args] = argv;
    const options = {
      env: { ...process.env, LC_ALL: 'C', ...env },
      timeout: msMax,
      maxBuffer: OUTPUT_BYTES_MAX,
    };
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) return resolve({ status: 0, stdout, stderr, problem: '' });
      const status = typeof error.code === 'number' ? error.code : null;
      const killed = error.killed === true ? `it did not end in ${msMax} ms` : null;
      const missing = error.code === 'ENOENT' ? 'there is no such program' : null;
      resolve({ status, stdout, stderr, problem: killed ?? missing ?? error.message });
    });
  });
