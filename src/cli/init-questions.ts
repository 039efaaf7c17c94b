/** Asks on the terminal. Questions go to standard error: standard output is for the result. */
import { createInterface } from 'node:readline/promises';
import { ColoError } from '../error.ts';
import { safe } from './output.ts';

/** Asks until `problemOf` finds nothing wrong; an empty answer means `fallback`, if there is one. */
export type Asker = {
  ask(question: string, fallback: string | null, problemOf: (text: string) => string | null): Promise<string>;
  close(): void;
};

/** Returns null without a terminal. */
export function terminalAsker(): Asker | null {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return null;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const stop = new AbortController();
  lines.on('SIGINT', () => stop.abort());
  // Ctrl-D ends the input, and no answer comes any more.
  lines.on('close', () => stop.abort());
  const one = async (text: string): Promise<string> => {
    try {
      return (await lines.question(text, { signal: stop.signal })).trim();
    } catch (cause) {
      if (!stop.signal.aborted) throw cause;
      process.stderr.write('\n');
      throw new ColoError('COLO_INIT_STOPPED', 'stopped before the last answer; nothing was written', {
        cause,
      });
    }
  };
  return {
    async ask(question, fallback, problemOf) {
      for (;;) {
        const answer =
          (await one(`${question}${fallback === null || fallback === '' ? '' : ` [${fallback}]`}: `)) ||
          fallback;
        const problem = answer === null ? 'an answer is needed' : problemOf(answer);
        if (answer !== null && problem === null) return answer;
        process.stderr.write(`  ${safe(problem ?? '')}\n`);
      }
    },
    close: () => lines.close(),
  };
}
