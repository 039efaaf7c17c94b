/** The common part of the commands `colo compare` and `colo rewrite`. */
import { InvalidArgumentError } from 'commander';
import type { CompareReport, EmitDropIn, RewriteReport } from '../dropin/events.ts';
import { type Endpoint, formatEndpoint, parseEndpoint, sameAddress } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import type { Framing } from '../frames/frame-reader.ts';
import type { NodeEvent } from '../observe/status.ts';
import { QmpClient } from '../qemu/qmp.ts';
import { EventPrinter } from './event-printer.ts';
import { outliveOutput } from './outliving.ts';

export const DROPIN_HELP = `
Endpoints: unix:PATH, tcp:HOST:PORT (connect), unix-listen:PATH, tcp-listen:HOST:PORT (accept).
Signals: SIGINT and SIGTERM stop the process in order, SIGUSR2 prints its counters, SIGHUP is ignored.`;

/** Requests the counters, as SIGUSR1 does for dd; that one would open Node's debugger (main.ts). */
export const REPORT_SIGNAL = 'SIGUSR2';

const QMP_DEADLINE_MS = 5000;

export const connectQmp = (endpoint: Endpoint, signal: AbortSignal): Promise<QmpClient> =>
  QmpClient.connect({ endpoint, deadlineMs: QMP_DEADLINE_MS, signal });

/** Throws COLO_USAGE if two places have one socket: they would take each other's frames, or wait for each other. */
export function requireDistinct(places: Readonly<Record<string, Endpoint | undefined>>): void {
  const before: [string, Endpoint][] = [];
  for (const [option, endpoint] of Object.entries(places)) {
    if (endpoint === undefined) continue;
    const same = before.find(([, other]) => sameAddress(other, endpoint));
    if (same !== undefined)
      throw new ColoError(
        'COLO_USAGE',
        `${same[0]} and ${option} are both ${formatEndpoint(endpoint)}; give each a socket of its own`,
      );
    before.push([option, endpoint]);
  }
}

export function parseEndpointOption(text: string): Endpoint {
  try {
    return parseEndpoint(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** QEMU is the one that listens for QMP clients. */
export function parseQmpOption(text: string): Endpoint {
  const endpoint = parseEndpointOption(text);
  if (endpoint.mode === 'listen')
    throw new InvalidArgumentError(
      'QEMU listens here and this process connects: write unix:PATH or tcp:HOST:PORT, and server=on for QEMU.',
    );
  return endpoint;
}

/** The options that both commands have. */
export type DropInOptions = { vnetHdr?: boolean; json?: boolean };

export function framingOf(options: DropInOptions): Framing {
  return options.vnetHdr === true ? 'vnet' : 'plain';
}

type Report = CompareReport | RewriteReport;

type DropIn = {
  /** Rejects with COLO_ENDPOINT_LISTEN. */
  start(): Promise<void>;
  report(): Report;
  /** Returns the last report. */
  stop(): Promise<Report>;
};

/** Runs `colo compare` or `colo rewrite` until SIGINT or SIGTERM, and prints its events. */
export async function runDropIn(
  name: 'compare' | 'rewrite',
  options: DropInOptions & {
    build: (emit: EmitDropIn) => DropIn;
    /** Emits what the user should know about the options, before anything else. */
    warn?: (emit: EmitDropIn) => void;
  },
): Promise<void> {
  outliveOutput();
  const printer = new EventPrinter(process.stdout, options.json === true ? 'json' : 'text');
  const numbered = numberedEvents(name);
  const emit: EmitDropIn = (type, details) => printer.print(numbered(type, details));
  const dropIn = options.build(emit);
  options.warn?.(emit);
  const { promise: stopping, resolve: stop } = Promise.withResolvers<void>();
  let isStopping = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      if (isStopping) process.exit(1);
      isStopping = true;
      stop();
    });
  process.on(REPORT_SIGNAL, () => emit(`${name}.report`, dropIn.report()));
  await dropIn.start();
  emit(`${name}.started`, {});
  await stopping;
  await printer.end(numbered(`${name}.stopped`, await dropIn.stop()));
}

/** Makes events as a node's log does, numbered from 1. */
function numberedEvents(node: string): (type: string, details: object) => NodeEvent {
  let seq = 0;
  return (type, details) => ({ seq: ++seq, at: new Date().toISOString(), node, type, ...details });
}
