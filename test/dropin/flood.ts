/**
 * A flood in both directions through the filters of docs/drop-in.md, in two real QEMUs without a machine, with `colo compare`
 * and `colo rewrite`, across checkpoints.
 *
 *   clients -> mirror -> PVM          PVM -> redirector -> colo compare -> redirector -> clients
 *                 |                                            ^
 *                 +-> redirector -> colo rewrite -> SVM -> colo rewrite -> redirector
 *
 * The flood plays the clients and both guests. QEMUs without a machine have no COLO: a relay of each QMP socket replies that
 * there is one, and plays a checkpoint by `stop` and `cont` of both. Everything else is QEMU's own: its one main thread writes
 * and reads the chardevs, and one more monitor of each shows how long that thread stands still.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import type { Program } from '../../lab/program.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { type JsonObject, QmpClient } from '../../src/qemu/qmp.ts';
import { udp } from '../compare/rig.ts';
import { ROOT } from '../docs/tables.ts';
import { udpFrame } from '../frames.ts';
import { framed } from '../io/fake-stream.ts';
import { dialQemu } from './fill-end.ts';

export type Flood = {
  readonly slowestReplyMs: number;
  readonly checkpoints: number;
  readonly compare: JsonObject;
  readonly rewrite: JsonObject;
};

const FRAME_BYTES = 1400;
/** One frame of so many is said by the PVM alone, so that a checkpoint is needed. */
const UNMATCHED_ONE_OF = 500;
const MARKER_PORT = 7777;
/** Frames in one write. */
const WRITE_FRAMES = 40;
const START_MS_MAX = 20_000;
const STAND_MS_MAX = 60_000;

/** Ends what it was given, in reverse order. */
class Ends {
  private readonly all: (() => unknown)[] = [];

  add(end: () => unknown): void {
    this.all.push(end);
  }

  async run(): Promise<void> {
    for (const end of this.all.reverse()) await end();
  }
}

async function dial(path: string, ends: Ends): Promise<Socket> {
  const socket = await dialQemu(path);
  ends.add(() => socket.destroy());
  return socket;
}

/** One QEMU without a machine: `guest` and `lan` are its two sides. */
class Side {
  readonly qmp: QmpClient;
  readonly monitor: QmpClient;
  readonly events: QmpClient;
  readonly guest: Socket;
  readonly lan: Socket;

  private constructor(monitors: QmpClient[], guest: Socket, lan: Socket) {
    [this.qmp, this.monitor, this.events] = monitors;
    [this.guest, this.lan] = [guest, lan];
  }

  static async start(qemu: Program, folder: string, name: string, more: string[], ends: Ends): Promise<Side> {
    const at = (what: string): string => join(folder, `${name}-${what}`);
    const args = ['-machine', 'none', '-nodefaults', '-display', 'none'];
    for (const [id, what] of [
      ['g', 'guest'],
      ['hn0', 'lan'],
    ]) {
      args.push('-netdev', `stream,id=${id},server=on,addr.type=unix,addr.path=${at(what)}`);
      args.push('-netdev', `hubport,id=${id}-port,hubid=0,netdev=${id}`);
    }
    for (const what of ['control', 'monitor', 'events'])
      args.push('-qmp', `unix:${at(what)},server=on,wait=off`);
    const env = { ...process.env, ...qemu.env };
    const child = startChild([...qemu.command, ...args, ...more], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let complaint = '';
    child.stderr!.on('data', (text) => {
      complaint += text;
    });
    ends.add(() => stopChild(child));
    const open = async (what: string): Promise<QmpClient> => {
      const endpoint = unixEndpoint(at(what));
      const client = await QmpClient.connect({ endpoint, deadlineMs: START_MS_MAX }).catch((cause: unknown) =>
        assert.fail(`${complaint} ${cause}`),
      );
      ends.add(() => client.close());
      return client;
    };
    const monitors = [await open('control'), await open('monitor'), await open('events')];
    return new Side(monitors, await dial(at('guest'), ends), await dial(at('lan'), ends));
  }
}

/** Keeps asking a monitor; `slowestMs` is how long its slowest reply took, or takes. */
export class Poll {
  private slowest = 0;
  private since = performance.now();
  private isOver = false;

  constructor(monitor: QmpClient) {
    void this.run(monitor);
  }

  get slowestMs(): number {
    return Math.max(this.slowest, this.isOver ? 0 : performance.now() - this.since);
  }

  end(): void {
    this.isOver = true;
  }

  private async run(monitor: QmpClient): Promise<void> {
    while (!this.isOver) {
      this.since = performance.now();
      await monitor.execute('query-status', undefined, { timeoutMs: STAND_MS_MAX }).catch(() => this.end());
      this.slowest = Math.max(this.slowest, performance.now() - this.since);
      this.since = Number.POSITIVE_INFINITY;
      await sleep(20);
    }
  }
}

/** A QMP socket at which a QEMU without a machine seems to be in COLO; whatever it replies comes from that QEMU's own monitor. */
async function relay(
  path: string,
  events: QmpClient,
  mode: 'primary' | 'secondary',
  checkpoint: () => void,
  ends: Ends,
): Promise<void> {
  const { major, minor, micro } = events.version;
  const server = createServer((socket) => {
    socket.on('error', () => {});
    const send = (line: object): void => void socket.write(`${JSON.stringify(line)}\r\n`);
    send({ QMP: { version: { qemu: { major, minor, micro }, package: '' }, capabilities: [] } });
    const stop = events.onEvent(({ event, data }) =>
      send({ event, data, timestamp: { seconds: 0, microseconds: 0 } }),
    );
    ends.add(stop);
    const reply = async (command: string): Promise<unknown> => {
      if (command === 'qmp_capabilities') return {};
      if (command === 'migrate-set-parameters') {
        await events.execute('query-version');
        checkpoint();
        return {};
      }
      if (command === 'query-colo-status') {
        await events.execute('query-version');
        return { mode, 'last-mode': 'none', reason: 'none' };
      }
      const result = await events.execute<JsonObject>(command);
      return result.status === 'paused' ? { ...result, status: 'colo' } : result;
    };
    createInterface(socket).on('line', (line) => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: unknown };
      reply(execute).then(
        (result) => send({ return: result, id }),
        (cause: Error) => send({ error: { class: 'GenericError', desc: cause.message }, id }),
      );
    });
  });
  server.listen(path);
  await once(server, 'listening');
  ends.add(() => server.close());
}

type Event = JsonObject & { type: string };

/** `colo compare` or `colo rewrite`, with its events. */
class Command {
  readonly events: Event[] = [];
  private readonly child;

  constructor(words: string[], ends: Ends) {
    this.child = startChild([join(ROOT, 'bin/colo'), ...words, '--json'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    ends.add(() => stopChild(this.child));
    createInterface(this.child.stdout!).on('line', (line) => this.events.push(JSON.parse(line) as Event));
  }

  count(type: string): number {
    return this.events.filter((event) => event.type === type).length;
  }

  async until(type: string, count: number): Promise<void> {
    for (const end = performance.now() + START_MS_MAX; this.count(type) < count; await sleep(20))
      assert.ok(performance.now() < end, `no ${type}: ${JSON.stringify(this.events.slice(-5))}`);
  }

  async stop(): Promise<Event> {
    const ended = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    await ended;
    return this.events.at(-1)!;
  }
}

/** The frames of one part of the flood, as bytes for writes. */
function writes(count: number, frame: (i: number) => Buffer): Buffer[] {
  return Array.from({ length: Math.ceil(count / WRITE_FRAMES) }, (_, part) =>
    framed(...Array.from({ length: WRITE_FRAMES }, (_, i) => frame(part * WRITE_FRAMES + i))),
  );
}

async function send(socket: Socket, pieces: readonly Buffer[]): Promise<void> {
  for (const piece of pieces) if (!socket.write(piece)) await once(socket, 'drain');
}

async function orStanding(work: Promise<unknown>, polls: readonly Poll[]): Promise<void> {
  const slow = sleep(STAND_MS_MAX, 'slow', { ref: false });
  if ((await Promise.race([work, slow])) === 'slow')
    assert.fail(
      `QEMU stands still: its monitors have not replied for ${polls.map((poll) => poll.slowestMs.toFixed(0))} ms`,
    );
}

/** Sends `megabytes` in each direction, in as many parts as there are to be checkpoints at least. */
export async function flood(
  qemu: Program,
  { megabytes, checkpoints }: { megabytes: number; checkpoints: number },
): Promise<Flood> {
  const ends = new Ends();
  const folder = workFolder();
  ends.add(() => removeWorkFolder(folder));
  try {
    const at = (name: string): string => join(folder, name);
    const chardev = (id: string): string[] => [
      '-chardev',
      `socket,id=${id},path=${at(id)},server=on,wait=off`,
    ];
    const filter = (kind: string, id: string, rest: string): string[] => [
      '-object',
      `filter-${kind},id=${id},netdev=hn0,${rest}`,
    ];
    const primary = await Side.start(
      qemu,
      folder,
      'p',
      [
        ...['mirror0', 'compare0', 'compare_out'].flatMap(chardev),
        ...filter('mirror', 'm0', 'queue=tx,outdev=mirror0'),
        ...filter('redirector', 'redire0', 'queue=rx,indev=compare_out'),
        ...filter('redirector', 'redire1', 'queue=rx,outdev=compare0'),
      ],
      ends,
    );
    let isStopped = false;
    let taken = 0;
    let secondaryOf: Side | null = null;
    const checkpoint = async (): Promise<void> => {
      if (isStopped || secondaryOf === null) return;
      isStopped = true;
      for (const [side, command] of [
        [secondaryOf, 'stop'],
        [primary, 'stop'],
        [secondaryOf, 'cont'],
        [primary, 'cont'],
      ] as const)
        await side.qmp.execute(command, undefined, { timeoutMs: STAND_MS_MAX });
      isStopped = false;
      taken++;
    };
    const take = (): void => void checkpoint().catch(() => {});
    await relay(at('compare-qmp'), primary.events, 'primary', take, ends);
    const compare = new Command(
      [
        ...['compare', '--primary-in', `unix:${at('compare0')}`, '--out', `unix:${at('compare_out')}`],
        ...['--secondary-in', `unix-listen:${at('red1')}`, '--qmp', `unix:${at('compare-qmp')}`],
      ],
      ends,
    );
    await compare.until('stream.up', 2);
    const secondary = await Side.start(
      qemu,
      folder,
      's',
      [
        ...[
          '-chardev',
          `socket,id=red0,path=${at('mirror0')}`,
          '-chardev',
          `socket,id=red1,path=${at('red1')}`,
        ],
        ...['rew_in', 'rew_guest_in', 'rew_guest_out', 'rew_out'].flatMap(chardev),
        ...['-chardev', 'null,id=nowhere'],
        ...filter('redirector', 'f0', 'queue=tx,outdev=nowhere'),
        ...filter('redirector', 'f1', 'queue=tx,indev=red0'),
        ...filter('redirector', 'f2', 'queue=rx,outdev=red1'),
        ...filter('redirector', 'rew0', 'queue=tx,outdev=rew_in,indev=rew_guest_in'),
        ...filter('redirector', 'rew1', 'queue=rx,outdev=rew_guest_out,indev=rew_out'),
      ],
      ends,
    );
    secondaryOf = secondary;
    await relay(at('rewrite-qmp'), secondary.events, 'secondary', take, ends);
    const rewrite = new Command(
      [
        ...['rewrite', '--in', `unix:${at('rew_in')}`, '--out', `unix:${at('rew_out')}`],
        ...['--guest-in', `unix:${at('rew_guest_in')}`, '--guest-out', `unix:${at('rew_guest_out')}`],
        ...['--qmp', `unix:${at('rewrite-qmp')}`],
      ],
      ends,
    );
    await compare.until('stream.up', 3);
    await rewrite.until('stream.up', 4);
    await rewrite.until('rewrite.following', 1);

    let marked = false;
    const marker = Buffer.from('the marker at the end of the flood');
    let tail = Buffer.alloc(0);
    primary.lan.on('data', (bytes: Buffer) => {
      tail = Buffer.concat([tail.subarray(-marker.length), bytes]);
      marked ||= tail.includes(marker);
    });
    for (const socket of [primary.guest, secondary.guest, secondary.lan]) socket.resume();
    const polls = [primary, secondary].map(({ monitor }) => new Poll(monitor));
    ends.add(() => {
      for (const poll of polls) poll.end();
    });

    const frames = Math.ceil((megabytes << 20) / checkpoints / FRAME_BYTES);
    const text = (i: number): string => `${i} `.padEnd(FRAME_BYTES, '.');
    for (let part = 0; part < checkpoints; part++) {
      const input = writes(frames, (i) => udpFrame({ payload: Buffer.from(text(i)), destinationPort: 9 }));
      const both = (i: number): Buffer => udp(text(i), 1024 + (i % 16));
      const output = writes(frames, both);
      const differs = writes(frames, (i) =>
        i % UNMATCHED_ONE_OF === 9 ? udp('only one says this') : both(i),
      );
      const sent = [send(primary.lan, input), send(primary.guest, differs), send(secondary.guest, output)];
      await orStanding(Promise.all(sent), polls);
      if (taken <= part) await orStanding(checkpoint(), polls);
    }
    for (const end = performance.now() + STAND_MS_MAX; !marked; await sleep(100)) {
      assert.ok(performance.now() < end, 'nothing passes after the flood');
      const bytes = framed(udp(marker.toString(), MARKER_PORT));
      for (const { guest } of [primary, secondary]) guest.write(bytes);
    }
    const slowestReplyMs = Math.max(...polls.map((poll) => poll.slowestMs));
    return {
      slowestReplyMs,
      checkpoints: taken,
      compare: await compare.stop(),
      rewrite: await rewrite.stop(),
    };
  } finally {
    await ends.run();
  }
}
