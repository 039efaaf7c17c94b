/**
 * The clients of the bed, as a process on the client's machine. It reads one JSON object per line on its standard input and
 * replies with one line each: see ClientRequest.
 *
 * All times are milliseconds of the machine's monotonic clock, which all processes share.
 */
import { createInterface } from 'node:readline';
import { ColoError } from '../../src/error.ts';
import { Counter, counterStats } from '../clients/counter.ts';
import { Echo } from '../clients/echo.ts';
import type { Arrivals } from '../clients/gaps.ts';
import { LineConnection } from '../clients/lines.ts';
import type { Target } from '../clients/net.ts';
import { Pages } from '../clients/pages.ts';
import { untilGuestReplies } from '../clients/ready.ts';
import { Store } from '../clients/store.ts';
import { readBack, Writer } from '../clients/writer.ts';
import { SMALL_FILES } from '../guest/files.ts';
import { NIC, PORTS } from '../vm.ts';
import type { ClientFindings, ClientReply, ClientRequest } from './clients.ts';
import { machineMs } from './clock.ts';

const at = (port: number): Target => ({ host: NIC.v4, port });
const ECHO = at(PORTS.echo);
const COUNTER = at(PORTS.counter);

/** A service may be away for as long as a failure lasts, and the way back. */
const PATIENCE_MS = 90_000;
const READY_MS_MAX = 60_000;
/** Longer than a guest needs to begin it. */
const REBOOT_MS = 1000;
const TEXTS_MAX = 5;

class Session {
  private readonly stopping = new AbortController();
  private readonly patience = {
    connectTimeoutMs: PATIENCE_MS,
    requestTimeoutMs: PATIENCE_MS,
    clock: machineMs,
  };
  private readonly echo: Echo;
  private readonly counter: Counter;
  private readonly store: Store;
  private readonly pages: Pages;
  /** null: the guest has no disk */
  private readonly writer: Writer | null;
  /** what the disk lacks, or has and should not, at the end */
  private diskFaults: readonly string[] = [];
  private readonly done: Promise<ClientFindings>;

  constructor(seed: number, disk: 'disk' | 'no-disk') {
    const messages = { everyMs: 20, messageBytesMin: 16, messageBytesMax: 400 };
    this.echo = new Echo({ ...this.patience, ...messages, target: ECHO, seed, drainMs: PATIENCE_MS });
    const closing = { closeTimeoutMs: PATIENCE_MS, drainMs: PATIENCE_MS };
    this.counter = new Counter({ ...this.patience, ...closing, target: COUNTER, workers: 2, restMs: 100 });
    this.store = new Store({ ...this.patience, target: COUNTER, seed, everyMs: 50, prefix: `s${seed}k` });
    const files = SMALL_FILES.slice(0, 2);
    const http = { files, everyMs: 500, timeoutMs: PATIENCE_MS };
    this.pages = new Pages({ target: at(PORTS.http), ...http, clock: machineMs });
    this.writer =
      disk === 'disk'
        ? new Writer({ ...this.patience, target: COUNTER, everyMs: 50, prefix: `s${seed}` })
        : null;
    this.done = this.run(this.stopping.signal);
  }

  /** Returns the longest time without a reply that one client waited for, of those that have one connection all the time. */
  blackoutMs(fromMs: number, toMs: number): number {
    const nowMs = machineMs();
    const steady: readonly Arrivals[] = [this.echo.arrivals, this.store.arrivals];
    return Math.max(0, ...steady.map((arrivals) => arrivals.longestGap(fromMs, toMs, nowMs)?.waitedMs ?? 0));
  }

  stop(): Promise<ClientFindings> {
    this.stopping.abort();
    return this.done;
  }

  private async run(signal: AbortSignal): Promise<ClientFindings> {
    await Promise.all([
      this.echo.run(signal),
      this.counter.run(signal),
      this.store.run(signal),
      this.pages.run(signal),
      this.writer?.run(signal),
    ]);
    await this.readDisk();
    return this.look();
  }

  private async readDisk(): Promise<void> {
    if (this.writer === null) return;
    try {
      const { lost, strange } = this.writer.compare(await readBack(COUNTER, PATIENCE_MS));
      this.diskFaults = [
        ...lost.map((line) => `acknowledged and not on the disk: ${line}`),
        ...strange.map((line) => `on the disk and not at its place: ${line}`),
        ...this.writer.refused.map((reply) => `a line was refused: ${reply}`),
      ];
    } catch (cause) {
      this.diskFaults = [`the disk cannot be read: ${String(cause)}`];
    }
  }

  /** Returns what was found so far. */
  look(): ClientFindings {
    const { echo, counter, store, pages, writer, diskFaults } = this;
    const found = [
      ...echo.findings.kept.map((one) => `echo: ${JSON.stringify(one)}`),
      ...counter.findings.kept.map((one) => `counter: ${JSON.stringify(one)}`),
      ...store.findings.kept.map((one) => `store: ${JSON.stringify(one)}`),
      ...pages.findings.kept.map((one) => `http: ${one}`),
      ...diskFaults.map((one) => `disk: ${one}`),
    ];
    const all = [echo, counter, store, pages];
    const connected = writer === null ? all : [...all, writer];
    const broken = connected.flatMap((client) =>
      client.broken.kept.map(({ where, kind, detail }) => `broken: ${where}: ${kind}: ${detail}`),
    );
    return {
      acknowledged:
        echo.echoed + counter.replies + store.puts + store.gets + pages.fetched + (writer?.acknowledged ?? 0),
      lost: all.reduce((sum, { findings }) => sum + findings.count, diskFaults.length),
      broken: connected.reduce((sum, client) => sum + client.broken.count, 0),
      texts: [...found.slice(0, TEXTS_MAX), ...broken.slice(0, TEXTS_MAX)],
    };
  }
}

let session: Session | null = null;

async function reply(request: ClientRequest): Promise<ClientReply> {
  switch (request.do) {
    case 'ready':
      await untilGuestReplies(ECHO, READY_MS_MAX);
      return {};
    case 'start':
      session = new Session(request.seed, request.disk);
      return {};
    case 'blackout':
      return { ms: session?.blackoutMs(request.fromMs, request.toMs) ?? 0 };
    case 'look':
      return session === null ? {} : { findings: session.look() };
    case 'stop': {
      const findings = await session?.stop();
      session = null;
      return findings === undefined ? {} : { findings };
    }
    case 'reboot':
      await reboot();
      return {};
  }
}

/** The guest reboots itself, and replies to nobody until it has booted. */
async function reboot(): Promise<void> {
  const connection = await LineConnection.open(COUNTER, PATIENCE_MS, () => undefined);
  await connection.ask('reboot', REBOOT_MS).catch(() => undefined);
  await untilGuestReplies(ECHO, READY_MS_MAX);
  const { next } = await counterStats(COUNTER, PATIENCE_MS);
  if (next > 0) throw new ColoError('COLO_LAB_GUEST', `the guest did not reboot: it has counted to ${next}`);
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    reply(JSON.parse(line) as ClientRequest).then(
      (value) => process.stdout.write(`${JSON.stringify(value)}\n`),
      (cause: unknown) => process.stdout.write(`${JSON.stringify({ error: String(cause) })}\n`),
    );
  })
  .on('close', () => process.exit());
