import { setFlagsFromString } from 'node:v8';
import { runCli } from './program.ts';

// A frame passes through many small functions, and V8's default budget for inlining ends halfway: that costs a third of the
// speed.
setFlagsFromString('--max-inlined-bytecode-size-cumulative=5000');
setFlagsFromString('--max-inlined-bytecode-size=1500');

// Node opens its debugger to every user of the machine on SIGUSR1, unless there is a listener (bin/colo forbids it from the start).
process.on('SIGUSR1', () => {});

const carriesTraffic = ['node', 'compare', 'rewrite'].includes(process.argv[2]);
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // A process that carries a VM's network outlives whatever it prints to: a reader that has ended (EPIPE), a terminal that
    // was closed (EIO), a full disk (ENOSPC).
    if (carriesTraffic) return;
    if (error.code !== 'EPIPE') throw error;
    // A reader that has ended (head, less) is not an error.
    process.exit(0);
  });
}
process.exitCode = await runCli(process.argv.slice(2));
// What nobody has read by now (event-printer.ts) would keep the process alive.
if (carriesTraffic && process.stdout.writableLength > 0) process.exit();
