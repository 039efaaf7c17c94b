/** `colo rewrite` as a process, with QEMU's framing on real sockets and a QMP that the test speaks. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { framed, unframed } from '../io/fake-stream.ts';
import { fakeQmp } from '../qemu/fake-qmp.ts';
import {
  type Connection,
  clientSyn,
  fromClient,
  fromVm,
  handshakeAck,
  vmSyn,
} from '../translate/connection.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const MAIN = ['--disable-warning=ExperimentalWarning', join(ROOT, 'src/cli/main.ts')];
const PVM = { isn: 0x1000, ts: 5000 };
const SVM = { isn: 0xfff00000, ts: 900 };
const CONNECTION: Connection = {
  version: 6,
  tags: [],
  stamped: true,
  clientOpens: true,
  clientIsn: 7,
  clientPort: 40000,
};
const EXCHANGE = { clientAt: 9, vmAt: 5, time: 3, payload: Buffer.from('data') };

type Event = { type: string; [key: string]: unknown };

/** Frames that arrive on a socket, one by one. */
class Frames {
  readonly socket: Socket;
  private bytes = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
      socket.emit('more');
    });
  }

  async next(): Promise<Buffer> {
    while (this.bytes.length < 4 || this.bytes.length < 4 + this.bytes.readUInt32BE(0)) {
      await once(this.socket, 'more');
    }
    const end = 4 + this.bytes.readUInt32BE(0);
    const [frame] = unframed(this.bytes.subarray(0, end));
    this.bytes = this.bytes.subarray(end);
    return frame;
  }

  say(frame: Buffer): void {
    this.socket.write(framed(frame));
  }
}

test('colo rewrite follows an SVM through a checkpoint and a failover', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-rewrite-'));
  t.after(() => rmSync(folder, { recursive: true }));
  let status = 'inmigrate';
  let mode = 'none';
  await using qmp = await fakeQmp({
    onRequest: ({ execute, id }, fake) =>
      fake.send({ return: execute === 'query-status' ? { status } : { mode }, id }),
  });
  const outServer = createServer();
  outServer.listen(join(folder, 'out'));
  t.after(() => outServer.close());
  const places = ['--in', `unix-listen:${folder}/in`, '--guest-in', `unix-listen:${folder}/gi`];
  places.push('--guest-out', `unix-listen:${folder}/go`, '--out', `unix:${folder}/out`);
  const child = spawn(process.execPath, [
    ...MAIN,
    'rewrite',
    ...places,
    '--qmp',
    `unix:${qmp.path}`,
    '--json',
  ]);
  t.after(() => child.kill('SIGKILL'));
  const events: Event[] = [];
  const lines = createInterface(child.stdout);
  lines.on('line', (line) => {
    events.push(JSON.parse(line) as Event);
    child.emit('event');
  });
  const until = async (type: string, count = 1): Promise<void> => {
    while (events.filter((event) => event.type === type).length < count) await once(child, 'event');
  };
  const [socket] = (await once(outServer, 'connection')) as [Socket];
  const out = new Frames(socket);
  await until('rewrite.waiting');
  const [client, guestIn, guestOut] = ['in', 'gi', 'go'].map(
    (name) => new Frames(connect(join(folder, name))),
  );
  await until('stream.up', 4);

  status = 'running';
  mode = 'secondary';
  qmp.send({ event: 'RESUME', data: {}, timestamp: { seconds: 0, microseconds: 0 } });
  await until('rewrite.following');
  const passes = async (from: Frames, to: Frames, frame: Buffer, expected: Buffer): Promise<void> => {
    from.say(frame);
    assert.equal((await to.next()).toString('hex'), expected.toString('hex'));
  };
  const open = async (c: Connection): Promise<void> => {
    await passes(client, guestIn, clientSyn(c, PVM), clientSyn(c, PVM));
    await passes(guestOut, out, vmSyn(c, SVM), vmSyn(c, SVM));
    await passes(client, guestIn, handshakeAck(c, PVM), handshakeAck(c, SVM));
  };
  await open(CONNECTION);
  await passes(guestOut, out, fromVm(CONNECTION, SVM, EXCHANGE), fromVm(CONNECTION, PVM, EXCHANGE));

  const timestamp = { seconds: 0, microseconds: 0 };
  status = 'colo';
  qmp.send({ event: 'STOP', data: {}, timestamp });
  while (qmp.requests.at(-1)?.execute !== 'query-status') await sleep(1);
  status = 'running';
  qmp.send({ event: 'RESUME', data: {}, timestamp });
  await until('checkpoint.seen');
  await passes(client, guestIn, fromClient(CONNECTION, PVM, EXCHANGE), fromClient(CONNECTION, PVM, EXCHANGE));

  const living = { ...CONNECTION, clientPort: 40001 };
  await open(living);
  mode = 'none';
  qmp.send({ event: 'STOP', data: {}, timestamp }, { event: 'RESUME', data: {}, timestamp });
  await until('rewrite.alone');
  await passes(client, guestIn, fromClient(living, PVM, EXCHANGE), fromClient(living, SVM, EXCHANGE));
  await passes(guestOut, out, fromVm(living, SVM, EXCHANGE), fromVm(living, PVM, EXCHANGE));

  const ended = once(child, 'exit');
  child.kill('SIGINT');
  assert.deepEqual((await ended)[0], 0);
  const { seq: _, at: __, ...last } = events.at(-1)!;
  assert.deepEqual(last, {
    node: 'rewrite',
    type: 'rewrite.stopped',
    inputFrames: 6,
    outputFrames: 4,
    droppedInput: 0,
    droppedOutput: 0,
    connections: 1,
    checkpoints: 1,
  });
  for (const { socket } of [client, guestIn, guestOut, out]) socket.destroy();
});
