/** The command line as a process. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

export type Result = { code: number | null; out: string; err: string };

export function startColo(args: readonly string[], cwd?: string): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], { cwd });
}

/** Runs a command to its end. */
export async function runColo(args: readonly string[], cwd?: string): Promise<Result> {
  const child = startColo(args, cwd);
  const result: Result = { code: null, out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    result.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    result.err += text;
  });
  result.code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return result;
}
