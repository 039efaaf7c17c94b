import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Endpoint } from '../../src/endpoint.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { CONNECT_MS_MAX, connectStream, listenStream } from '../../src/io/socket-stream.ts';
import type { SlabId } from '../../src/units.ts';
import { framed } from './fake-stream.ts';

const folder = await mkdtemp(join(tmpdir(), 'colo-stream-'));
after(() => rm(folder, { recursive: true }));

let sockets = 0;

/** Opens a connection of which the test has both ends. */
async function connection(): Promise<{ dialled: KernelStream; accepted: KernelStream }> {
  const path = join(folder, `${sockets++}.sock`);
  const { promise: accepting, resolve: accept } = Promise.withResolvers<KernelStream>();
  const listener = await listenStream({ kind: 'unix', mode: 'listen', path }, (stream) => accept(stream));
  const dialled = await connectStream({ kind: 'unix', mode: 'connect', path });
  const accepted = await accepting;
  await listener.close();
  return { dialled, accepted };
}

/** Starts a stream and collects what it reads. */
function collect(stream: KernelStream, bufferBytes = 64 * 1024) {
  const buffer = Buffer.alloc(bufferBytes);
  const got = { bytes: Buffer.alloc(0), closed: [] as (Error | null)[], full: false, reads: 0 };
  stream.start({
    buffer: () => (got.full ? null : buffer),
    read: (bytes) => {
      got.reads++;
      got.bytes = Buffer.concat([got.bytes, buffer.subarray(0, bytes)]);
    },
    closed: (cause) => got.closed.push(cause),
  });
  return got;
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const startMs = performance.now(); !holds(); ) {
    assert.ok(performance.now() - startMs < 5000, `did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const ends = ['dialled', 'accepted'] as const;

for (const end of ends) {
  const other = end === 'dialled' ? 'accepted' : 'dialled';

  test(`${end}: a refused peer can write no more, and what it wrote before is read`, async () => {
    const both = await connection();
    // Before either end reads: the bytes lie in the kernel.
    const written = new Promise<boolean>((resolve) =>
      both[other].write(Buffer.from('the last bytes'), resolve),
    );
    assert.equal(await written, true);
    both[end].refuse();
    const refused = collect(both[other]);
    const late = new Promise<boolean>((resolve) => both[other].write(Buffer.from('too late'), resolve));
    assert.equal(await late, false);
    const got = collect(both[end]);
    await until('the end', () => got.closed.length === 1 && refused.closed.length === 1);
    assert.equal(got.bytes.toString(), 'the last bytes');
    assert.deepEqual(got.closed, [null]);
    assert.equal((refused.closed[0] as NodeJS.ErrnoException | null)?.code, 'EPIPE');
  });

  test(`${end}: bytes pass both ways unchanged, and each write calls \`done\``, async () => {
    const both = await connection();
    const here = collect(both[end], 1000);
    const there = collect(both[other]);
    const bytes = Buffer.from(Array.from({ length: 500_000 }, (_, i) => (i * 7) & 255));
    let done = 0;
    both[other].cork();
    for (let at = 0; at < bytes.length; at += 50_000) {
      both[other].write(bytes.subarray(at, at + 50_000), () => done++);
    }
    both[other].uncork();
    both[end].write(Buffer.from('and back'), () => done++);
    await until('all bytes', () => here.bytes.length === bytes.length && done === 11);
    assert.ok(here.bytes.equals(bytes));
    await until('the reply', () => there.bytes.toString() === 'and back');
    both[end].close();
    await until('both ends closed', () => here.closed.length + there.closed.length === 2);
    assert.deepEqual([...here.closed, ...there.closed], [null, null]);
  });

  test(`${end}: unread and unsent bytes are those in the kernel`, async () => {
    const both = await connection();
    const got = collect(both[end]);
    both[end].pause();
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(both[end].unreadBytes(), 0);
    assert.equal(both[other].unsentBytes(), 0);
    both[other].write(Buffer.alloc(1234), () => {});
    await until('bytes in the kernel', () => both[end].unreadBytes() === 1234);
    assert.equal(got.bytes.length, 0, 'paused');
    assert.ok(both[other].unsentBytes() > 0);
    assert.equal(both[other].queuedBytes(), 0);
    both[end].resume();
    await until('read', () => got.bytes.length === 1234);
    assert.equal(both[end].unreadBytes(), 0);
    assert.equal(both[other].unsentBytes(), 0);
    both[end].pause();
    both[other].write(Buffer.alloc(4_000_000), () => {});
    await until('a full kernel', () => both[other].queuedBytes() > 0);
    assert.ok(both[other].unsentBytes() >= both[other].queuedBytes());
    both[end].resume();
    await until('all read', () => got.bytes.length === 4_001_234);
    assert.equal(both[other].unsentBytes(), 0);
    both[end].close();
    await until('closed', () => got.closed.length === 1);
    assert.equal(both[end].unreadBytes(), 0);
  });

  test(`${end}: a sink that returns no buffer loses nothing`, async () => {
    const both = await connection();
    const got = collect(both[end], 100);
    const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 3) & 255));
    both[other].write(bytes, () => {});
    for (let round = 0; got.bytes.length < bytes.length; round++) {
      assert.ok(round < 5000);
      const before = got.bytes.length;
      await until('progress', () => got.bytes.length > before);
      got.full = true;
      await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setImmediate(resolve));
      const stopped = got.bytes.length;
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal(got.bytes.length, stopped, 'read without room');
      got.full = false;
      both[end].resume();
      if (round === 10) break;
    }
    await until('the rest', () => got.bytes.length === bytes.length);
    assert.ok(got.bytes.equals(bytes));
    assert.deepEqual(got.closed, []);
    both[end].close();
    both[other].close();
  });

  test(`${end}: a stream that started without a buffer reads when there is one`, async () => {
    const both = await connection();
    both[other].write(Buffer.from('early'), () => {});
    const room = { is: false };
    const buffer = Buffer.alloc(100);
    let text = '';
    both[end].start({
      buffer: () => (room.is ? buffer : null),
      read: (bytes) => {
        text += buffer.toString('latin1', 0, bytes);
      },
      closed: () => {},
    });
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(text, '');
    room.is = true;
    both[end].resume();
    await until('the early bytes', () => text === 'early');
    both[end].close();
    both[other].close();
  });

  test(`${end}: a stream that is started again gives its next bytes to the new sink`, async () => {
    const both = await connection();
    const first = collect(both[end]);
    both[other].write(Buffer.from('one'), () => {});
    await until('the first', () => first.bytes.length === 3);
    const second = collect(both[end]);
    both[other].write(Buffer.from('two'), () => {});
    await until('the second', () => second.bytes.toString() === 'two');
    assert.equal(first.bytes.toString(), 'one');
    both[end].close();
    both[other].close();
  });

  test(`${end}: a write after the end is done at once, and a late sink is notified of the end`, async () => {
    const both = await connection();
    const got = collect(both[end]);
    both[other].close();
    await until('the end', () => got.closed.length === 1);
    let done = 0;
    both[end].write(Buffer.alloc(10), () => done++);
    assert.equal(done, 1);
    const late = collect(both[end]);
    await until('the second end', () => late.closed.length === 1);
    assert.equal(both[end].unreadBytes(), 0);
    assert.equal(both[end].unsentBytes(), 0);
  });
}

test('a port without a free slab pauses the stream and loses no frame', async () => {
  const both = await connection();
  const pool = new SlabPool(128 * 1024, 3);
  const kept: SlabId[] = [];
  let frames = 0;
  const port = new FramePort('port', pool);
  port.seat({
    handler: {
      frame: (slab, at) => {
        assert.equal(pool.buffer(slab).readUInt32BE(at), frames++);
        pool.ref(slab);
        kept.push(slab);
      },
      batchEnd: () => {},
    },
  });
  port.attach(both.accepted);
  const all = Array.from({ length: 20_000 }, (_, i) => {
    const frame = Buffer.alloc(60);
    frame.writeUInt32BE(i);
    return frame;
  });
  both.dialled.write(framed(...all), () => {});
  let stalls = 0;
  while (frames < all.length) {
    const before = frames;
    await new Promise((resolve) => setTimeout(resolve, 2));
    if (frames > before) continue;
    assert.ok(stalls++ < 1000);
    for (const slab of kept.splice(0)) pool.unref(slab);
  }
  assert.ok(stalls > 1, 'the pool was full at times');
  for (const slab of kept) pool.unref(slab);
  port.close();
  assert.equal(pool.inUse, 0);
  both.dialled.close();
});

test('a closed listener leaves the connections open that it has accepted', async () => {
  const path = join(folder, 'listener.sock');
  const accepted: KernelStream[] = [];
  const listener = await listenStream({ kind: 'unix', mode: 'listen', path }, (stream) =>
    accepted.push(stream),
  );
  const dialled = await connectStream({ kind: 'unix', mode: 'connect', path });
  await until('accepted', () => accepted.length === 1);
  await listener.close();
  await assert.rejects(connectStream({ kind: 'unix', mode: 'connect', path }), {
    code: 'COLO_ENDPOINT_CONNECT',
  });
  const got = collect(accepted[0]);
  dialled.write(Buffer.from('still here'), () => {});
  await until('bytes', () => got.bytes.length === 10);
  dialled.close();
});

test('an endpoint that is in use is refused with its code', async () => {
  const taken: Endpoint = { kind: 'tcp', mode: 'listen', host: '127.0.0.1', port: 0 };
  const path = join(folder, 'taken.sock');
  const listener = await listenStream({ kind: 'unix', mode: 'listen', path }, () => {});
  await assert.rejects(
    listenStream({ kind: 'unix', mode: 'listen', path }, () => {}),
    {
      code: 'COLO_ENDPOINT_LISTEN',
      message: new RegExp(path),
    },
  );
  await listener.close();
  await (await listenStream(taken, () => {})).close();
});

test('a reply that came while this process did not run is a reply, however late it is read', async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  t.mock.timers.enable({ apis: ['setTimeout'] });
  // Like the phase of timers, that of immediate calls is followed by a look at the sockets.
  await nextTurn();
  const dialled = connectStream({ kind: 'tcp', mode: 'connect', host: '127.0.0.1', port });
  // The kernel has connected them by the end of connect(2), and the loop has not looked yet.
  t.mock.timers.tick(CONNECT_MS_MAX);
  (await dialled).close();
});

test('a host that replies to no attempt is given up after 5 s', async (t) => {
  const FULL =
    "require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () { console.log(this.address().port) })";
  const child = spawn(process.execPath, ['-e', FULL], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(line.toString());
  // The kernel accepts two connections for a process that is stopped, and drops every further attempt.
  child.kill('SIGSTOP');
  const early = Array.from({ length: 2 }, () => net.connect({ host: '127.0.0.1', port }));
  for (const socket of early) t.after(() => socket.destroy());
  await Promise.all(early.map((socket) => once(socket, 'connect')));
  const sinceMs = performance.now();
  await assert.rejects(connectStream({ kind: 'tcp', mode: 'connect', host: '127.0.0.1', port }), {
    code: 'COLO_ENDPOINT_CONNECT',
    message: /: no reply in 5 s$/,
  });
  const tookMs = performance.now() - sinceMs;
  assert.ok(tookMs > 4900 && tookMs < 6000, `${tookMs} ms`);
});
