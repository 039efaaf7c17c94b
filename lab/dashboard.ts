/** `colo dashboard` as a process. */
import { join } from 'node:path';
import { ROOT } from './pair.ts';
import { startChild, stopChild } from './process.ts';

export type Served = { url: string; pid: number; stop(): Promise<void> };

/** `socket`: the control socket of a node. */
export async function serve(socket: string): Promise<Served> {
  const command = ['dashboard', '--socket', socket, '--listen', 'tcp-listen:127.0.0.1:0', '--json'];
  const child = startChild([join(ROOT, 'bin/colo'), ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout?.once('data', (bytes: Buffer) => resolve(bytes.toString()));
    child.once('exit', (code) => reject(new Error(`colo dashboard ended with ${code}`)));
  });
  return {
    url: (JSON.parse(line) as { url: string }).url,
    pid: child.pid ?? 0,
    stop: () => stopChild(child),
  };
}
