/** `npm run chaos`: failures at random, thrown at a pair in a bed of real hosts. docs/chaos.md says what is checked and how. */
import { constants } from 'node:os';
import { ColoError } from '../../src/error.ts';
import { becomeRoot } from '../as-root.ts';
import { readOptions, USAGE } from './options.ts';
import { runChaos } from './run.ts';
import { summaryOf } from './summary.ts';
import { tableLines } from './table.ts';

async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  if (options === null) {
    process.stdout.write(USAGE);
    return 0;
  }
  await becomeRoot();
  const out = options.output === 'json' ? process.stderr : process.stdout;
  const print = (line: string): void => {
    out.write(`${line}\n`);
  };
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      interrupted.abort(signal);
    });
  try {
    const result = await runChaos({ ...options, print, signal: interrupted.signal });
    const summary = summaryOf(options, result);
    print('');
    for (const line of tableLines(summary.rows)) print(line);
    const { acknowledged, acknowledgedLost, broken, frames, secondVoices, unrecorded } = summary;
    print(
      `\n${acknowledged} replies checked, ${acknowledgedLost} wrong, ${broken} connections broken; ` +
        `${frames} frames of the VM recorded, ${secondVoices} of a second voice, ${unrecorded ?? 'nobody knows how many'} missed`,
    );
    print(`seed ${options.seed}: ${summary.ok ? 'ok' : 'NOT OK'}`);
    if (options.output === 'json') process.stdout.write(`${JSON.stringify(summary)}\n`);
    return summary.ok ? 0 : 1;
  } catch (cause) {
    if (!interrupted.signal.aborted) throw cause;
    process.stderr.write('\nchaos: interrupted; everything it started has been stopped\n');
    return 128 + constants.signals[interrupted.signal.reason as 'SIGINT'];
  }
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof ColoError)) throw error;
  process.stderr.write(`${error.code}: ${error.message}\n`);
  process.exitCode = error.code === 'COLO_USAGE' ? 2 : 1;
}
