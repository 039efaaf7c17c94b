/** Network namespaces need root. An ordinary user becomes root of a user namespace, if the machine allows that. */
import { spawn } from 'node:child_process';
import { ColoError } from '../src/error.ts';

/**
 * Returns at once if this process is root. Else runs it once more as root of a user namespace, and ends with its status.
 * Throws COLO_LAB_NAMESPACE if there is no such command.
 */
export async function becomeRoot(): Promise<void> {
  if (process.getuid?.() === 0) return;
  const args = [
    '--user',
    '--map-root-user',
    '--net',
    process.execPath,
    ...process.execArgv,
    ...process.argv.slice(1),
  ];
  const child = spawn('unshare', args, { stdio: 'inherit' });
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  // The terminal sends Ctrl-C to both.
  process.on('SIGINT', () => {});
  const status = await new Promise<number>((resolve, reject) => {
    child.once('error', (cause) => {
      reject(
        new ColoError('COLO_LAB_NAMESPACE', `run this as root: cannot start unshare (${cause.message})`),
      );
    });
    child.once('exit', (code) => resolve(code ?? 1));
  });
  process.exit(status);
}
