/** Runs a bench as its users do. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';

const MAIN = join(import.meta.dirname, '../../bench/main.ts');

export type Ended = { readonly status: number | null; readonly lastLine: Readonly<Record<string, unknown>> };

export async function runBench(t: TestContext, ...args: string[]): Promise<Ended> {
  const argv = ['--disable-warning=ExperimentalWarning', MAIN, ...args, '--json'];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const lines = (await text(child.stdout)).trim().split('\n');
  const [status] = await exited;
  return { status, lastLine: JSON.parse(lines.at(-1) ?? '') };
}
