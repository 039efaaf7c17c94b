/** The helper between a node and the lab's hub, as a process, between a hub and a node that the test plays. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import { eachFrame, WholeFrames } from '../../lab/whole-frames.ts';

const HELPER = join(import.meta.dirname, '../../lab/uplink-helper.ts');
const FRAME_BYTES = 1000;
/** Far more than the helper's queue and two sockets hold. */
const FLOOD_FRAMES = 20_000;

function frame(fill: number, bytes = FRAME_BYTES): Buffer {
  const all = Buffer.alloc(4 + bytes, fill);
  all.writeUInt32BE(bytes);
  return all;
}

type Bed = { hub: Socket; helper: ChildProcess; node(): Promise<Socket> };

async function bed(t: TestContext): Promise<Bed> {
  const folder = workFolder();
  const hubPath = join(folder, 'hub');
  const uplinkPath = join(folder, 'uplink');
  const server = createServer();
  server.listen(hubPath);
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', HELPER, hubPath, uplinkPath];
  const helper = startChild(argv, { stdio: ['pipe', 'ignore', 'inherit'] });
  const [hub] = await accepted;
  const sockets = [hub];
  hub.on('error', () => undefined);
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await stopChild(helper);
    removeWorkFolder(folder);
  });
  const node = async (): Promise<Socket> => {
    for (;;) {
      const socket = connect(uplinkPath);
      socket.on('error', () => undefined);
      sockets.push(socket);
      const connected = new Promise<boolean>((resolve) => {
        socket.once('connect', () => resolve(true)).once('close', () => resolve(false));
      });
      if (await connected) return socket;
      await sleep(10);
    }
  };
  return { hub, helper, node };
}

/** Collects what a socket receives, until it has `bytes`. */
async function receive(socket: Socket, bytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk);
    length += chunk.length;
    if (length >= bytes) break;
  }
  return Buffer.concat(chunks);
}

test('frames pass in both directions', async (t) => {
  const { hub, node } = await bed(t);
  const near = await node();
  near.write(frame(1));
  assert.deepEqual(await receive(hub, 4 + FRAME_BYTES), frame(1));
  hub.write(frame(2));
  assert.deepEqual(await receive(near, 4 + FRAME_BYTES), frame(2));
});

test('the hub is read while the node reads nothing; afterwards the node receives whole frames', async (t) => {
  const { hub, node } = await bed(t);
  const near = await node();
  near.pause();
  for (let count = 0; count < FLOOD_FRAMES; count++) {
    if (!hub.write(frame(count & 0xff))) await once(hub, 'drain', { signal: AbortSignal.timeout(10_000) });
  }
  hub.write(frame(0xee, 60));
  await sleep(200);
  let frames = 0;
  let bytes = 0;
  const cutter = new WholeFrames((whole) => {
    eachFrame(whole, (one) => {
      assert.ok(one.length === FRAME_BYTES || one.length === 60);
      assert.ok(one.every((byte) => byte === one[0]));
      frames += 1;
    });
    bytes += whole.length;
  });
  near.on('data', (chunk: Buffer) => cutter.push(chunk)).resume();
  await sleep(500);
  assert.ok(frames > 100 && frames < FLOOD_FRAMES, `${frames} frames`);
  assert.ok(bytes < 6 << 20, `${bytes} bytes were held`);
  // It is a node like any other again.
  const before = frames;
  hub.write(frame(7));
  for (let i = 0; i < 100 && frames === before; i++) await sleep(10);
  assert.equal(frames, before + 1);
});

test('half a frame of a node that went away does not reach the hub, and the next node is taken', async (t) => {
  const { hub, node } = await bed(t);
  const first = await node();
  first.write(frame(1).subarray(0, 500));
  await sleep(50);
  first.destroy();
  const second = await node();
  second.write(frame(3));
  assert.deepEqual(await receive(hub, 4 + FRAME_BYTES), frame(3));
});

test('it ends with the hub, and with the process that started it', async (t) => {
  const one = await bed(t);
  one.hub.destroy();
  await once(one.helper, 'exit', { signal: AbortSignal.timeout(5000) });
  const other = await bed(t);
  other.helper.stdin?.destroy();
  await once(other.helper, 'exit', { signal: AbortSignal.timeout(5000) });
});

for (const cut of [1, 3, 4, 5, 700, 1003, 1004, 1500]) {
  test(`frames that come in pieces of ${cut} bytes are passed whole`, () => {
    const passed: Buffer[] = [];
    const cutter = new WholeFrames((frames) => passed.push(Buffer.from(frames)));
    const sent = [frame(1), frame(2, 0), frame(3, 60), frame(4)];
    const all = Buffer.concat(sent);
    for (let at = 0; at < all.length; at += cut) cutter.push(all.subarray(at, at + cut));
    assert.deepEqual(Buffer.concat(passed), all);
    const whole: Buffer[] = [];
    for (const frames of passed) eachFrame(frames, (one) => whole.push(one));
    assert.deepEqual(
      whole,
      sent.map((one) => one.subarray(4)),
    );
  });
}
