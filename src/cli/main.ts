import { runCli } from './program.ts';

const runsNode = process.argv[2] === 'node';
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    // A reader that has seen enough (head, less) is no failure; and it must never take a guarded VM with it.
    if (!runsNode) process.exit(0);
  });
}
process.exitCode = await runCli(process.argv.slice(2));
