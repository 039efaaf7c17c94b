import { onOutputError, outlivesOutput } from './outliving.ts';
import { runCli } from './program.ts';

// Node opens its debugger to every user of the machine on SIGUSR1, unless there is a listener (bin/colo forbids it from the start).
process.on('SIGUSR1', () => {});

for (const stream of [process.stdout, process.stderr]) stream.on('error', onOutputError);
process.exitCode = await runCli(process.argv.slice(2));
// What nobody has read by now (event-printer.ts) would keep the process alive.
if (outlivesOutput() && process.stdout.writableLength > 0) process.exit();
