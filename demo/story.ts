/**
 * The story that the demo shows and the end-to-end tests check: a protected pair, three clients, and a primary that
 * dies while they are connected, twice.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Counter } from '../lab/clients/counter.ts';
import { Download } from '../lab/clients/download.ts';
import { Echo } from '../lab/clients/echo.ts';
import { blackout } from '../lab/clients/gaps.ts';
import { monotonicMs } from '../lab/clients/net.ts';
import { liveLines, summarize, troubles } from '../lab/clients/summary.ts';
import { type Served, serve } from '../lab/dashboard.ts';
import { BIG_FILE } from '../lab/guest/files.ts';
import type { LabNode } from '../lab/pair.ts';
import { Stage } from '../lab/stage.ts';
import type { NodeStatus } from '../src/observe/status.ts';

export type Failover = { blackout_ms: number; detect_ms: number; promote_ms: number };

/** The demo's last line with --json, on which scripts rely. */
export type StoryResult = {
  ok: boolean;
  qemu: string;
  accel: string;
  checkpoints: number;
  checkpoint_pause_ms: { p50: number; p99: number };
  divergences: number;
  failovers: Failover[];
  download_ok: boolean;
  echo_ok: boolean;
  counter_ok: boolean;
  connections_broken: number;
};

/** Prints the story's progress. */
export type Teller = {
  chapter(text: string): void;
  line(text: string): void;
  /** Prints figures in place of the ones before. */
  live(lines: string[]): void;
};

export type StoryOptions = {
  ip: 'v4' | 'v6';
  /** Whether each node has a dashboard from when it runs; its address is told. */
  pages: 'none' | 'served';
  /** How long traffic flows before each kill, and after the last one. */
  trafficMs: number;
  teller: Teller;
  signal: AbortSignal;
};

const PROMOTE_MS_MAX = 15_000;
const DOWNLOAD_END_MS_MAX = 90_000;
const LIVE_MS = 1000;
/** The blackout is measured from just before the kill until this long after it. */
const SETTLE_MS = 3000;

export async function tellStory(options: StoryOptions): Promise<StoryResult> {
  const { teller, signal } = options;
  teller.chapter('Set-up');
  const stage = await Stage.open({ ip: options.ip });
  const pages: Served[] = [];
  try {
    teller.line(
      `QEMU ${stage.install.version}, ${stage.install.accel.toUpperCase()}; clients use IP${options.ip}`,
    );
    signal.throwIfAborted();
    return await play(options, stage, async (node) => {
      if (options.pages === 'none') return;
      const page = await serve(join(node.runDirectory, 'control.sock'));
      pages.push(page);
      teller.line(`the dashboard of node ${node.name}: ${page.url}`);
    });
  } finally {
    for (const page of pages) await page.stop();
    await stage.close();
  }
}

/** `started`: a node runs, for the first time. */
async function play(
  options: StoryOptions,
  stage: Stage,
  started: (node: LabNode) => Promise<void>,
): Promise<StoryResult> {
  const { teller, signal } = options;
  const { targets, install } = stage;
  teller.chapter('Boot and protect');
  const a = stage.node('a');
  const b = stage.node('b');
  await stage.boot(a, signal);
  teller.line('node a runs the VM, alone, and its guest replies');
  await started(a);
  await stage.protect(a, b, signal);
  teller.line('node b has a copy: the pair is protected');
  await started(b);

  teller.chapter('Three clients');
  const clients = {
    download: new Download({
      target: targets.http,
      path: BIG_FILE.path,
      expectedBytes: BIG_FILE.bytes,
      expectedSha256: BIG_FILE.sha256,
      // The download has to last until after the second kill.
      bytesPerSecond: Math.floor(BIG_FILE.bytes / ((3 * options.trafficMs + 2 * SETTLE_MS + 15_000) / 1000)),
    }),
    echo: new Echo({ target: targets.echo, everyMs: 20, seed: 1 }),
    counter: new Counter({ target: targets.counter }),
  };
  const stopClients = new AbortController();
  const giveUp = new AbortController();
  const abort = () => {
    stopClients.abort();
    giveUp.abort();
  };
  signal.addEventListener('abort', abort, { once: true });
  const download = clients.download.run(giveUp.signal);
  const others = Promise.all([clients.echo.run(stopClients.signal), clients.counter.run(stopClients.signal)]);
  teller.line('a download on one connection, a long echo session, many short counter requests');

  const tally = { checkpoints: 0, divergences: 0, pauses: [] as number[] };
  const failovers: Failover[] = [];
  try {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ]) {
      await watch(options, clients, from, options.trafficMs);
      addTo(tally, from);
      const before = await from.status();
      tally.divergences += before.divergences.count;
      teller.chapter(`Kill node ${from.name} and its VM`);
      const killMs = monotonicMs();
      await from.kill();
      const after = await to.until('promotion', (status) => status.phase === 'alone', PROMOTE_MS_MAX, signal);
      await sleep(SETTLE_MS, undefined, { signal });
      failovers.push(judgeFailover(clients, killMs, after));
      const last = failovers[failovers.length - 1];
      teller.line(
        `node ${to.name} was promoted: clients received nothing for ${last.blackout_ms} ms ` +
          `(${last.detect_ms} ms to detect, ${last.promote_ms} ms to promote)`,
      );
      if (failovers.length === 2) break;
      teller.chapter('Protect again');
      await stage.protect(to, from, signal);
      teller.line(`node ${from.name} came back as the new secondary; the connections stay open`);
    }
    teller.chapter('Let the download end');
    const late = sleep(DOWNLOAD_END_MS_MAX, 'late' as const, { signal, ref: false }).catch(
      () => 'late' as const,
    );
    let over = false;
    const downloaded = download.then((report) => {
      over = true;
      return report;
    });
    while (!over && (await Promise.race([downloaded, late, sleep(LIVE_MS)])) !== 'late') {
      teller.live(liveLines(clients, monotonicMs()));
    }
  } finally {
    signal.removeEventListener('abort', abort);
    abort();
  }
  const [echo, counter] = await others;
  const reports = { download: await download, echo, counter };
  signal.throwIfAborted();
  for (const trouble of troubles(reports)) teller.line(`! ${trouble}`);
  const summary = summarize(reports);
  const pauses = tally.pauses.sort((x, y) => x - y);
  return {
    ok:
      summary.download_ok &&
      summary.echo_ok &&
      summary.counter_ok &&
      summary.connections_broken === 0 &&
      failovers.length === 2,
    qemu: install.version,
    accel: install.accel,
    checkpoints: tally.checkpoints,
    checkpoint_pause_ms: { p50: quantile(pauses, 0.5), p99: quantile(pauses, 0.99) },
    divergences: tally.divergences,
    failovers,
    ...summary,
  };
}

/** Adds every checkpoint of a node that was primary, from its event log. */
function addTo(
  tally: { checkpoints: number; pauses: number[] },
  node: { events(): { type: string; pauseMs?: unknown }[] },
): void {
  for (const event of node.events()) {
    if (event.type !== 'checkpoint.committed') continue;
    tally.checkpoints++;
    tally.pauses.push(Number(event.pauseMs));
  }
}

function judgeFailover(
  clients: { download: Download; echo: Echo; counter: Counter },
  killMs: number,
  after: NodeStatus,
): Failover {
  const seen = blackout(
    { download: clients.download.arrivals, echo: clients.echo.arrivals, counter: clients.counter.arrivals },
    killMs,
    monotonicMs(),
  );
  return {
    blackout_ms: Math.round(seen?.gap.ms ?? 0),
    detect_ms: Math.round(after.failover?.detectMs ?? 0),
    promote_ms: Math.round(after.failover?.promoteMs ?? 0),
  };
}

async function watch(
  options: StoryOptions,
  clients: { download: Download; echo: Echo; counter: Counter },
  primary: { name: string; status(): Promise<NodeStatus> },
  ms: number,
): Promise<void> {
  const endMs = monotonicMs() + ms;
  while (monotonicMs() < endMs) {
    await sleep(Math.min(LIVE_MS, Math.max(1, endMs - monotonicMs())), undefined, { signal: options.signal });
    const status = await primary.status();
    options.teller.live([...liveLines(clients, monotonicMs()), pairLine(status)]);
  }
}

function pairLine(status: NodeStatus): string {
  const { checkpoints, divergences, held } = status;
  const pause = checkpoints.pauseMs.p50 === null ? '' : `, pause ${checkpoints.pauseMs.p50.toFixed(1)} ms`;
  return `pair      primary ${status.node}, epoch ${status.epoch}, ${checkpoints.count} checkpoints${pause}, ${divergences.count} divergences, ${held.frames} held`;
}

function quantile(sorted: number[], q: number): number {
  if (sorted.length === 0) return 0;
  return Math.round(sorted[Math.ceil(q * sorted.length) - 1] * 10) / 10;
}
