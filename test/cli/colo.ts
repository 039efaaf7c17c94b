/** The command line as a process. */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import { tempFolder } from '../temp-folder.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

export type Result = { code: number | null; out: string; err: string };

/** `env`: in addition to this process's own. */
export function startColo(
  args: readonly string[],
  cwd?: string,
  env: Readonly<Record<string, string>> = {},
): ChildProcessWithoutNullStreams {
  const options = { cwd, env: { ...process.env, ...env } };
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], options);
}

/**
 * Starts it in a pseudo terminal, which script(1) opens and reads; resolves when the process has printed that it started. The
 * process outlives its terminal, so it is killed by itself at the end.
 */
export async function startInTerminal(
  t: TestContext,
  args: readonly string[],
): Promise<{ terminal: ChildProcess; pid: number }> {
  const pidFile = join(tempFolder(t), 'pid');
  const shell = `echo $$ >${pidFile}; exec ${[process.execPath, MAIN, ...args].join(' ')}`;
  const terminal = spawn('script', ['-qec', shell, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] });
  t.after(() => terminal.kill('SIGKILL'));
  await printed(terminal.stdout, 'started');
  const pid = Number(readFileSync(pidFile, 'utf8'));
  t.after(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
  return { terminal, pid };
}

/** Resolves when a stream has brought `text`, in however many pieces, and lets the rest of it pass. */
export async function printed(stream: Readable, text: string): Promise<void> {
  let all = '';
  stream.setEncoding('utf8');
  const shown = Promise.withResolvers<void>();
  stream.on('data', (piece: string) => {
    all += piece;
    if (all.includes(text)) shown.resolve();
  });
  stream.once('end', () => shown.reject(new Error(`it has ended without "${text}":\n${all}`)));
  await shown.promise;
}

/** Whether the process runs. One whose parent does not wait for it stays as a zombie, and does not. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
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
