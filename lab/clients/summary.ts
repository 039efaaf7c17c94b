/** Sums up what the clients found: the fields of the demo's JSON line, and figures for a terminal. */
import type { Counter, CounterReport } from './counter.ts';
import type { Download, DownloadReport } from './download.ts';
import type { Echo, EchoReport } from './echo.ts';
import type { Breaks } from './net.ts';

export interface ClientReports {
  readonly download: DownloadReport;
  readonly echo: EchoReport;
  readonly counter: CounterReport;
  /** Broken connections of further clients, which count too. */
  readonly others?: readonly Breaks[];
}

/** The names are those of the demo's JSON line. */
export interface ClientSummary {
  readonly download_ok: boolean;
  readonly echo_ok: boolean;
  readonly counter_ok: boolean;
  readonly connections_broken: number;
}

export function summarize(reports: ClientReports): ClientSummary {
  const all = [
    reports.download.broken,
    reports.echo.broken,
    reports.counter.broken,
    ...(reports.others ?? []),
  ];
  return {
    download_ok: reports.download.ok,
    echo_ok: reports.echo.ok,
    counter_ok: reports.counter.ok,
    connections_broken: all.reduce((sum, breaks) => sum + breaks.count, 0),
  };
}

/** Lines printed for each kind of trouble; the first ones are enough to see a pattern. */
const TROUBLES_MAX = 5;

/** Returns one line for each error; none if there was none. */
export function troubles(reports: ClientReports): string[] {
  const { download, echo, counter, others = [] } = reports;
  const lines: string[] = download.problems.map((problem) => `download: ${problem}`);
  if (download.stopped)
    lines.push(`download: stopped at ${download.bytes} of ${download.expectedBytes} bytes`);
  if (echo.unreturned > 0) lines.push(`echo: ${echo.unreturned} messages did not come back`);
  if (echo.echoed === 0) lines.push('echo: no message came back');
  if (counter.replies === 0) lines.push('counter: no reply');
  for (const finding of echo.findings.kept.slice(0, TROUBLES_MAX)) {
    const { kind, message, offset, expected, got } = finding;
    lines.push(`echo: ${kind} in message ${message} at ${offset}: got ${got}, expected ${expected}`);
  }
  for (const finding of counter.findings.kept.slice(0, TROUBLES_MAX)) {
    if (finding.kind === 'twice') {
      const { reply, first } = finding;
      const before = first === undefined ? 'long before' : `first by worker ${first.worker}`;
      lines.push(`counter: ${reply.number} was handed out twice, to worker ${reply.worker}, ${before}`);
    } else if (finding.kind === 'out-of-order') {
      const { reply, seen } = finding;
      lines.push(`counter: worker ${reply.worker} got ${reply.number} after ${seen.number} had been seen`);
    } else {
      lines.push(`counter: ${finding.kind} line '${finding.line.slice(0, 80)}'`);
    }
  }
  for (const breaks of [download.broken, echo.broken, counter.broken, ...others]) {
    for (const broken of breaks.kept.slice(0, TROUBLES_MAX)) {
      lines.push(`broken: ${broken.where}: ${broken.kind}: ${broken.detail}`);
    }
    if (breaks.count > TROUBLES_MAX) lines.push(`broken: and ${breaks.count - TROUBLES_MAX} more`);
  }
  return lines;
}

export interface Clients {
  readonly download: Download;
  readonly echo: Echo;
  readonly counter: Counter;
}

/** Rates are those of the last second. */
const RATE_MS = 1000;

/** Returns one line per client with its present figures. */
export function liveLines(clients: Clients, nowMs: number): string[] {
  const { download, echo, counter } = clients;
  const since = nowMs - RATE_MS;
  const megabytes = (download.bytes / 1e6).toFixed(1);
  const share = ((100 * download.bytes) / download.expectedBytes).toFixed(0);
  const rate = download.arrivals.finished
    ? 'done'
    : `${(download.arrivals.amountSince(since) / 1e6).toFixed(2)} MB/s`;
  const perSecond = counter.arrivals.amountSince(since);
  const broken = counter.broken.count === 0 ? '' : `  ${counter.broken.count} broken`;
  return [
    `download  ${megabytes} MB  ${share}%  ${rate}`,
    `echo      ${echo.echoed} messages  ${roundTrip(echo)}`,
    `counter   ${counter.replies} numbers  ${perSecond}/s  ${counter.connections} connections${broken}`,
  ];
}

function roundTrip(echo: Echo): string {
  return `round trip ${echo.rtt.percentile(0.5).toFixed(1)} ms, longest ${echo.rtt.max.toFixed(1)} ms`;
}
