import { setFlagsFromString } from 'node:v8';
import { runCli } from './program.ts';

// A frame passes through many small functions, and V8's default budget for inlining ends halfway: that costs a third of the
// speed.
setFlagsFromString('--max-inlined-bytecode-size-cumulative=5000');
setFlagsFromString('--max-inlined-bytecode-size=1500');

const carriesTraffic = ['node', 'compare', 'rewrite'].includes(process.argv[2]);
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    // A reader that has ended (head, less) is not an error, and it must never end a process that carries a VM's network.
    if (!carriesTraffic) process.exit(0);
  });
}
process.exitCode = await runCli(process.argv.slice(2));
