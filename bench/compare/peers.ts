/** The measured programs. Each listens on three unix sockets and releases frames as a comparator does. */
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { areListenedOn } from '../../lab/listening.ts';
import { startChild, stopChild } from '../../lab/process.ts';
import type { Program } from '../../lab/program.ts';
import { ColoError } from '../../src/error.ts';

export type Sockets = { readonly primary: string; readonly secondary: string; readonly out: string };

export type Peer = {
  readonly name: string;
  /** Returns false for frames that it cannot handle. */
  readonly takes: (what: { version: 4 | 6; vnet: boolean }) => boolean;
  readonly argv: (sockets: Sockets, vnet: boolean) => string[];
  readonly env?: Readonly<Record<string, string>>;
};

export type RunningPeer = { readonly child: ChildProcess; readonly sockets: Sockets; stop(): Promise<void> };

/** Makes OURS_TRACED collect all garbage (and write a heap snapshot into its working folder). */
export const COLLECT_SIGNAL = 'SIGWINCH';

export const COLO = fileURLToPath(new URL('../../bin/colo', import.meta.url));
const CLI = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
/** V8's flags in bin/colo, which takes no further ones. */
const V8_FLAGS = /^v8='(.*)'$/m.exec(readFileSync(COLO, 'utf8'))?.[1].split(' ') ?? [];
const RELAY = fileURLToPath(new URL('./relay.ts', import.meta.url));
const START_MS_MAX = 20_000;

export const OURS: Peer = {
  name: 'colo compare',
  takes: () => true,
  argv: (sockets, vnet) => [COLO, ...compareArguments(sockets, vnet)],
};

/** Returns bin/colo of another checkout. Throws COLO_USAGE if it is not one, or not set up. */
export function coloOf(checkout: string): string {
  const colo = resolve(checkout, 'bin/colo');
  if (!existsSync(colo) || !existsSync(resolve(checkout, 'node_modules')))
    throw new ColoError(
      'COLO_USAGE',
      `${checkout} is no checkout that is set up; run "npm run setup" in one`,
    );
  return colo;
}

/** `colo compare` of another checkout. Throws as `coloOf`. */
export function oursOf(checkout: string, name: string): Peer {
  const colo = coloOf(checkout);
  return { ...OURS, name, argv: (sockets, vnet) => [colo, ...compareArguments(sockets, vnet)] };
}

/** The same, with V8's trace of each garbage collection. */
export const OURS_TRACED: Peer = {
  ...OURS,
  argv: (sockets, vnet) => [
    ...[process.execPath, ...V8_FLAGS, '--trace-gc', `--heapsnapshot-signal=${COLLECT_SIGNAL}`],
    ...['--disable-warning=ExperimentalWarning', CLI],
    ...compareArguments(sockets, vnet),
  ],
};

function compareArguments({ primary, secondary, out }: Sockets, vnet: boolean): string[] {
  return [
    'compare',
    ...['--primary-in', `unix-listen:${primary}`],
    ...['--secondary-in', `unix-listen:${secondary}`],
    ...['--out', `unix-listen:${out}`],
    ...(vnet ? ['--vnet-hdr'] : []),
  ];
}

export const FLOOR: Peer = {
  name: 'relay in C calls',
  takes: () => true,
  argv: ({ primary, secondary, out }) => [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    RELAY,
    primary,
    secondary,
    out,
  ],
};

/** QEMU's object, standalone. Its queues and timeout are long, so that it drops nothing and asks for no checkpoint. */
export function colocompare(name: string, program: Program): Peer {
  return {
    name,
    takes: ({ version }) => version === 4,
    env: program.env,
    argv: ({ primary, secondary, out }, vnet) => [
      ...program.command,
      ...['-M', 'none', '-display', 'none', '-nodefaults', '-monitor', 'none'],
      ...['-chardev', `socket,id=pri,path=${primary},server=on,wait=off`],
      ...['-chardev', `socket,id=sec,path=${secondary},server=on,wait=off`],
      ...['-chardev', `socket,id=out,path=${out},server=on,wait=off`],
      ...['-object', 'iothread,id=io'],
      '-object',
      `colo-compare,id=c,primary_in=pri,secondary_in=sec,outdev=out,iothread=io,max_queue_size=1000000,compare_timeout=1000000${vnet ? ',vnet_hdr_support=on' : ''}`,
    ],
  };
}

export async function startPeer(
  peer: Peer,
  folder: string,
  options: { vnet: boolean; onOutput?: (text: string) => void },
): Promise<RunningPeer> {
  const sockets = {
    primary: join(folder, 'primary'),
    secondary: join(folder, 'secondary'),
    out: join(folder, 'out'),
  };
  const child = startChild(peer.argv(sockets, options.vnet), {
    cwd: folder,
    stdio: ['ignore', options.onOutput === undefined ? 'ignore' : 'pipe', 'pipe'],
    env: { ...process.env, ...peer.env },
  });
  let complaint = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-500);
  });
  if (options.onOutput !== undefined) child.stdout?.setEncoding('utf8').on('data', options.onOutput);
  const stop = (): Promise<void> => stopChild(child);
  for (const end = performance.now() + START_MS_MAX; ; await sleep(20)) {
    if (areListenedOn(Object.values(sockets))) return { child, sockets, stop };
    const ended = child.exitCode !== null || child.signalCode !== null;
    if (!ended && performance.now() < end) continue;
    await stop();
    throw new ColoError(
      'COLO_BENCH_PEER',
      `${peer.name} does not listen: ${complaint.trim() || 'it prints nothing'}`,
    );
  }
}
