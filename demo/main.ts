/** `npm run demo`: plays the story and prints it on a terminal, or one JSON line for scripts. */
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import { ColoError } from '../src/error.ts';
import { type StoryResult, type Teller, tellStory } from './story.ts';

const USAGE = `usage: npm run demo -- [--json] [--ipv6] [--page]

Boots a VM, protects it, kills the node and VM that clients are connected to, twice, and shows what clients received.
  --json   progress goes to standard error; the last line on standard output is the result
  --ipv6   the clients use IPv6 only
  --page   each node has a dashboard, whose address is printed, and the story gives time to look at it
Ends by itself within three minutes (the first run fetches QEMU and a guest first) and leaves only its cache.`;

/** Traffic before each kill: long enough to read, short enough for the story to take less than two minutes. */
const TRAFFIC_MS = 8000;
/** With pages: long enough to open one. */
const PAGES_TRAFFIC_MS = 25_000;

async function main(): Promise<number> {
  let values: Partial<Record<'json' | 'ipv6' | 'page' | 'help', boolean>>;
  try {
    ({ values } = parseArgs({
      options: {
        json: { type: 'boolean' },
        ipv6: { type: 'boolean' },
        page: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }));
  } catch (cause) {
    process.stderr.write(`COLO_USAGE: ${(cause as Error).message}\n${USAGE}\n`);
    return 2;
  }
  if (values.help === true) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const json = values.json === true;
  const interrupted = new AbortController();
  let interruptedBy: NodeJS.Signals = 'SIGINT';
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (!interrupted.signal.aborted) interruptedBy = signal;
      interrupted.abort();
    });
  }
  try {
    const result = await tellStory({
      ip: values.ipv6 === true ? 'v6' : 'v4',
      pages: values.page === true ? 'served' : 'none',
      trafficMs: values.page === true ? PAGES_TRAFFIC_MS : TRAFFIC_MS,
      teller: teller(json ? process.stderr : process.stdout),
      signal: interrupted.signal,
    });
    process.stdout.write(json ? `${JSON.stringify(result)}\n` : summary(result));
    return result.ok ? 0 : 1;
  } catch (cause) {
    if (interrupted.signal.aborted) {
      process.stderr.write('\ndemo: interrupted; everything it started has been stopped\n');
      return 128 + constants.signals[interruptedBy];
    }
    const error =
      cause instanceof ColoError
        ? `${cause.code}: ${cause.message}`
        : String((cause as Error).stack ?? cause);
    process.stderr.write(`${error}\n`);
    if (json) process.stdout.write(`${JSON.stringify({ ok: false, error })}\n`);
    return 1;
  }
}

function teller(out: NodeJS.WriteStream): Teller {
  const startMs = performance.now();
  let liveRows = 0;
  const stamp = () => `${((performance.now() - startMs) / 1000).toFixed(1).padStart(6)} s`;
  return {
    chapter(text) {
      liveRows = 0;
      out.write(`\n${stamp()}  ${text}\n`);
    },
    line(text) {
      liveRows = 0;
      out.write(`          ${text}\n`);
    },
    live(lines) {
      if (out.isTTY && liveRows > 0) out.write(`\x1b[${liveRows}A\x1b[J`);
      for (const line of lines) out.write(`          ${line}\n`);
      liveRows = lines.length;
    },
  };
}

function summary(result: StoryResult): string {
  const mark = (ok: boolean) => (ok ? 'ok    ' : 'FAILED');
  const failovers = result.failovers.map((one) => `${one.blackout_ms} ms`).join(' and ');
  return `
  download  ${mark(result.download_ok)}  every byte there, checksum right, one connection
  echo      ${mark(result.echo_ok)}  every byte came back as it was sent, one connection
  counter   ${mark(result.counter_ok)}  no number handed out twice or out of order
  broken    ${result.connections_broken} connections
  blackout  ${failovers}
  pair      ${result.checkpoints} checkpoints, pause ${result.checkpoint_pause_ms.p50} ms median, ${result.checkpoint_pause_ms.p99} ms p99; ${result.divergences} divergences
  ${result.ok ? 'The service survived two failovers.' : 'A check failed: see above.'}
`;
}

process.exitCode = await main();
