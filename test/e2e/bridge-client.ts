/**
 * `bridge-client.ts HOST PORT`: an echo session in a process of its own, which may be in another network namespace. At the end of its
 * standard input it waits until everything has come back, and prints BridgeReport as JSON.
 */
import { Echo } from '../../lab/clients/echo.ts';

/** `troubles`: what was wrong with the session; empty if every byte has come back. `longestMs`: its longest wait for any. */
export type BridgeReport = {
  readonly echoed: number;
  readonly unreturned: number;
  readonly troubles: readonly string[];
  readonly longestMs: number;
};

/** TCP sends again after 13 s at the latest when its network was away for 10 s. */
const DRAIN_MS = 20_000;

const [host, port] = process.argv.slice(2);
const target = { host, port: Number(port) };
const messages = { everyMs: 10, messageBytesMin: 16, messageBytesMax: 16 };
const echo = new Echo({ target, ...messages, drainMs: DRAIN_MS });
const stop = new AbortController();
process.stdin.resume().on('end', () => stop.abort());
const startMs = performance.now();
const { echoed, unreturned } = await echo.run(stop.signal);
const endMs = performance.now();
const report: BridgeReport = {
  echoed,
  unreturned,
  troubles: [...echo.findings.kept, ...echo.broken.kept].slice(0, 5).map((one) => JSON.stringify(one)),
  longestMs: Math.round(echo.arrivals.longestGap(startMs, endMs, endMs)?.ms ?? Number.NaN),
};
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
