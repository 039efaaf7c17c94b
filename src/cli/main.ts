import { setFlagsFromString } from 'node:v8';
import { onOutputError, outlivesOutput } from './outliving.ts';
import { runCli } from './program.ts';

// A frame passes through many small functions, and V8's default budget for inlining ends halfway: that costs a third of the
// speed.
setFlagsFromString('--max-inlined-bytecode-size-cumulative=5000');
setFlagsFromString('--max-inlined-bytecode-size=1500');

// Node opens its debugger to every user of the machine on SIGUSR1, unless there is a listener (bin/colo forbids it from the start).
process.on('SIGUSR1', () => {});

for (const stream of [process.stdout, process.stderr]) stream.on('error', onOutputError);
process.exitCode = await runCli(process.argv.slice(2));
// What nobody has read by now (event-printer.ts) would keep the process alive.
if (outlivesOutput() && process.stdout.writableLength > 0) process.exit();
