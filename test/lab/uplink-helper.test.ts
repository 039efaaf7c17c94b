/** The helper between the lab's hub and the nodes, as a process, between a hub and nodes that the test plays. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Delivery } from '../../lab/network.ts';
import { Places } from '../../lab/places.ts';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import { eachFrame, WholeFrames } from '../../lab/whole-frames.ts';

const HELPER = join(import.meta.dirname, '../../lab/uplink-helper.ts');
const FRAME_BYTES = 1000;
/** Far more than the helper's queue and two sockets hold. */
const FLOOD_FRAMES = 20_000;
/** Unlike any frame of the flood. */
const MARK_BYTES = 61;

/** If `fill` is odd the destination is a group, so that the frame is for all ports. */
function frame(fill: number, bytes = FRAME_BYTES): Buffer {
  const all = Buffer.alloc(4 + bytes, fill);
  all.writeUInt32BE(bytes);
  return all;
}

type Bed = { hub: Socket; helper: ChildProcess; node(uplink?: number): Promise<Socket> };

const UPLINKS = 3;

async function bed(t: TestContext, delivery: Delivery): Promise<Bed> {
  const folder = workFolder();
  const hubPath = join(folder, 'hub');
  const uplinkPaths = Array.from({ length: UPLINKS }, (_, i) => join(folder, `uplink${i}`));
  const server = createServer();
  server.listen(hubPath);
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', HELPER, delivery, hubPath];
  argv.push(...uplinkPaths);
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
  const dial = async (uplink: number): Promise<Socket> => {
    for (;;) {
      const socket = connect(uplinkPaths[uplink]);
      socket.on('error', () => undefined);
      sockets.push(socket);
      const connected = new Promise<boolean>((resolve) => {
        socket.once('connect', () => resolve(true)).once('close', () => resolve(false));
      });
      if (await connected) return socket;
      await sleep(10);
    }
  };
  // The kernel connects before the helper accepts, and until then the node gets no frame. A second one closes the first.
  const node = async (uplink = 0): Promise<Socket> => {
    const first = await dial(uplink);
    const second = await dial(uplink);
    if (!first.destroyed) await new Promise((resolve) => first.resume().once('close', resolve));
    return second;
  };
  return { hub, helper, node };
}

/** Collects what a socket receives, until it has `bytes`. */
async function receive(socket: Socket, bytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  const late = () => socket.destroy(new Error(`only ${length} of ${bytes} bytes`));
  const timeout = setTimeout(late, 10_000);
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk);
    length += chunk.length;
    if (length >= bytes) break;
  }
  clearTimeout(timeout);
  return Buffer.concat(chunks);
}

for (const delivery of ['floods', 'learns'] as const) {
  test(`${delivery}: frames pass in both directions`, async (t) => {
    const { hub, node } = await bed(t, delivery);
    const near = await node();
    near.write(frame(1));
    assert.deepEqual(await receive(hub, 4 + FRAME_BYTES), frame(1));
    hub.write(frame(5));
    assert.deepEqual(await receive(near, 4 + FRAME_BYTES), frame(5));
  });

  test(`${delivery}: the hub is read while the node reads nothing; afterwards the node receives whole frames`, async (t) => {
    const { hub, node } = await bed(t, delivery);
    const near = await node();
    near.pause();
    for (let count = 0; count < FLOOD_FRAMES; count++) {
      if (!hub.write(frame((count & 0xff) | 1)))
        await once(hub, 'drain', { signal: AbortSignal.timeout(10_000) });
    }
    hub.write(frame(0xef, 60));
    let frames = 0;
    let bytes = 0;
    let marks = 0;
    const cutter = new WholeFrames((whole) => {
      eachFrame(whole, (one) => {
        assert.ok([FRAME_BYTES, 60, MARK_BYTES].includes(one.length), `${one.length} bytes`);
        assert.ok(one.every((byte) => byte === one[0]));
        if (one.length === MARK_BYTES) marks += 1;
        else frames += 1;
      });
      bytes += whole.length;
    });
    near.on('data', (chunk: Buffer) => cutter.push(chunk)).resume();
    // A frame that comes after all that the helper had queued.
    for (; marks === 0; await sleep(10)) hub.write(frame(0xef, MARK_BYTES));
    assert.ok(frames > 100 && frames < FLOOD_FRAMES, `${frames} frames`);
    assert.ok(bytes < 6 << 20, `${bytes} bytes were held`);
    // It is a node like any other again.
    const before = frames;
    hub.write(frame(7));
    while (frames === before) await sleep(10);
    assert.equal(frames, before + 1);
  });

  test(`${delivery}: half a frame of a node that went away does not reach the hub, and the next node is taken`, async (t) => {
    const { hub, node } = await bed(t, delivery);
    const first = await node();
    first.write(frame(1).subarray(0, 500));
    await sleep(50);
    first.destroy();
    const second = await node();
    second.write(frame(3));
    assert.deepEqual(await receive(hub, 4 + FRAME_BYTES), frame(3));
  });

  test(`${delivery}: it ends with the hub, and with the process that started it`, async (t) => {
    const one = await bed(t, delivery);
    one.hub.destroy();
    await once(one.helper, 'exit', { signal: AbortSignal.timeout(5000) });
    const other = await bed(t, delivery);
    other.helper.stdin?.destroy();
    await once(other.helper, 'exit', { signal: AbortSignal.timeout(5000) });
  });

  test(`${delivery}: a node that reads nothing costs no other node a frame`, async (t) => {
    const { hub, node } = await bed(t, delivery);
    const [reader, other] = [await node(0), await node(1)];
    other.pause();
    // At most a quarter of what the helper queues is under way.
    const block = Buffer.concat(Array.from({ length: 1000 }, (_, i) => frame((i & 0xff) | 1)));
    for (let blocks = 0; blocks < FLOOD_FRAMES / 1000; blocks++) {
      hub.write(block);
      assert.deepEqual(await receive(reader, block.length), block);
    }
  });

  test(`${delivery}: nothing that nodes send is dropped while the hub is behind`, async (t) => {
    const { hub, node } = await bed(t, delivery);
    const nodes = [await node(0), await node(1)];
    hub.pause();
    // More than the helper would queue for a node.
    for (const each of nodes) for (let count = 0; count < 6000; count++) each.write(frame(3));
    await sleep(200);
    let frames = 0;
    const cutter = new WholeFrames((whole) => eachFrame(whole, () => (frames += 1)));
    hub.on('data', (chunk: Buffer) => cutter.push(chunk)).resume();
    for (let i = 0; i < 1000 && frames < 12_000; i++) await sleep(10);
    assert.equal(frames, 12_000);
  });
}

/** A port's socket, and what it receives. */
type Port = { readonly socket: Socket; readonly received: string[] };

const ALL = 'ff:ff:ff:ff:ff:ff';
const GROUP = '01:00:5e:00:00:01';
const [VM, OTHER, CLIENT, NOBODY, MARK] = [1, 2, 3, 4, 5].map((n) => `52:54:00:00:00:0${n}`);

function ethernet(to: string, from: string, text = ''): Buffer {
  const body = Buffer.concat([Buffer.from((to + from).replaceAll(':', ''), 'hex'), Buffer.from(text)]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

/** The hub and a node on each uplink. */
async function portsOf(t: TestContext, delivery: Delivery): Promise<Port[]> {
  const { hub, node } = await bed(t, delivery);
  const sockets = [hub];
  for (let i = 0; i < UPLINKS; i++) sockets.push(await node(i));
  return sockets.map((socket) => {
    const received: string[] = [];
    const cutter = new WholeFrames((frames) =>
      eachFrame(frames, (one) => received.push(one.subarray(12).toString())),
    );
    socket.on('data', (chunk: Buffer) => cutter.push(chunk));
    return { socket, received };
  });
}

let marks = 0;

/** Sends frames in one write, and returns the texts that each port has received of them. */
async function sent(ports: readonly Port[], from: number, ...frames: Buffer[]): Promise<string[][]> {
  marks += 1;
  const mark = `mark ${marks}`;
  ports[from].socket.write(Buffer.concat([...frames, ethernet(ALL, MARK, mark)]));
  const others = ports.filter((_, i) => i !== from);
  for (let i = 0; others.some(({ received }) => received.at(-1) !== mark); i++) {
    assert.ok(i < 1000, 'the mark reaches all other ports');
    await sleep(5);
  }
  return ports.map(({ received }) => received.splice(0).filter((text) => text !== mark));
}

const HUB = 0;
const NODE_A = 1;
const NODE_B = 2;

test('floods: each port receives what any other sends, also for an address that was seen', async (t) => {
  const ports = await portsOf(t, 'floods');
  assert.deepEqual(await sent(ports, NODE_A, ethernet(ALL, VM, '1')), [['1'], [], ['1'], ['1']]);
  assert.deepEqual(await sent(ports, HUB, ethernet(VM, CLIENT, '2')), [[], ['2'], ['2'], ['2']]);
  assert.deepEqual(await sent(ports, NODE_A, ethernet(CLIENT, VM, '3')), [['3'], [], ['3'], ['3']]);
});

test('learns: a frame reaches only the port where its destination was last seen', async (t) => {
  const ports = await portsOf(t, 'learns');
  await sent(ports, NODE_A, ethernet(ALL, VM));
  assert.deepEqual(await sent(ports, HUB, ethernet(VM, CLIENT, '1')), [[], ['1'], [], []]);
  assert.deepEqual(await sent(ports, NODE_A, ethernet(CLIENT, VM, '2')), [['2'], [], [], []]);
});

test('learns: an address that was not seen, and a group, are at all ports', async (t) => {
  const ports = await portsOf(t, 'learns');
  await sent(ports, NODE_A, ethernet(ALL, VM));
  // A group is no source; a port cannot claim it.
  await sent(ports, NODE_A, ethernet(ALL, GROUP), ethernet(ALL, ALL));
  for (const to of [NOBODY, GROUP, ALL]) {
    assert.deepEqual(await sent(ports, HUB, ethernet(to, CLIENT, to)), [[], [to], [to], [to]]);
    assert.deepEqual(await sent(ports, NODE_A, ethernet(to, VM, to)), [[to], [], [to], [to]]);
  }
});

test('learns: an address moves with the first frame from another port', async (t) => {
  const ports = await portsOf(t, 'learns');
  await sent(ports, NODE_A, ethernet(ALL, VM));
  await sent(ports, NODE_B, ethernet(ALL, VM));
  assert.deepEqual(await sent(ports, HUB, ethernet(VM, CLIENT, '1')), [[], [], ['1'], []]);
  await sent(ports, HUB, ethernet(ALL, VM));
  assert.deepEqual(await sent(ports, NODE_A, ethernet(VM, CLIENT, '2')), [['2'], [], [], []]);
});

test('learns: a frame for another uplink goes there, one for its own port nowhere', async (t) => {
  const ports = await portsOf(t, 'learns');
  await sent(ports, NODE_A, ethernet(ALL, VM));
  await sent(ports, NODE_B, ethernet(ALL, OTHER));
  assert.deepEqual(await sent(ports, NODE_B, ethernet(VM, OTHER, '1')), [[], ['1'], [], []]);
  assert.deepEqual(await sent(ports, NODE_A, ethernet(VM, CLIENT, '2')), [[], [], [], []]);
});

test('learns: frames of one write keep their order, wherever each goes', async (t) => {
  const ports = await portsOf(t, 'learns');
  await sent(ports, NODE_A, ethernet(ALL, VM));
  await sent(ports, NODE_B, ethernet(ALL, OTHER));
  const to = [VM, VM, OTHER, ALL, VM, CLIENT, OTHER, NOBODY, OTHER, VM];
  const frames = to.map((address, i) => ethernet(address, CLIENT, `${i}`));
  assert.deepEqual(await sent(ports, HUB, ...frames), [
    [],
    ['0', '1', '3', '4', '7', '9'],
    ['2', '3', '6', '7', '8'],
    ['3', '7'],
  ]);
});

test('learns: a frame without addresses is for all ports', () => {
  for (const bytes of [0, 1, 11]) assert.deepEqual(runsOf(new Places(), frame(1, bytes), 'hub'), [null]);
});

test('learns: an address that finds no room in the table is not known, and the others stay', () => {
  const places = new Places<string>();
  const address = (n: number): string =>
    `52:54:00:00:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 0xff).toString(16).padStart(2, '0')}`;
  for (let n = 0; n < 5000; n++) runsOf(places, ethernet(ALL, address(n)), 'a');
  assert.deepEqual(runsOf(places, ethernet(address(1), CLIENT), 'hub'), ['a']);
  assert.deepEqual(runsOf(places, ethernet(address(4999), CLIENT), 'hub'), [null]);
  runsOf(places, ethernet(ALL, address(1)), 'b');
  assert.deepEqual(runsOf(places, ethernet(address(1), CLIENT), 'hub'), ['b']);
});

/** Returns where each run of some frames goes. */
function runsOf(places: Places<string>, frames: Buffer, from: string): (string | null)[] {
  const runs: (string | null)[] = [];
  places.runs(frames, from, (_, to) => runs.push(to));
  return runs;
}

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
