/** `colo compare` as a process on real sockets: its contract with scripts and with QEMU. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { LIMITS } from '../../src/limits.ts';
import { tcp, udp } from '../compare/rig.ts';
import { u32 } from '../frames.ts';
import { framed } from '../io/fake-stream.ts';
import { tempFolder } from '../temp-folder.ts';
import { runColo, startColo } from './colo.ts';
import {
  type ComparePeers,
  comparePeers,
  comparePlaces,
  DropInProcess,
  Listener,
  matches,
  Peer,
} from './dropin-process.ts';

type Rig = ComparePeers & { colo: DropInProcess; path: string };

/** All three places listen, and a peer is connected to each. */
async function rig(t: TestContext, ...more: string[]): Promise<Rig> {
  const path = tempFolder(t);
  const colo = new DropInProcess(t, 'compare', ...comparePlaces(path), ...more);
  await colo.until('compare.started');
  const peers = await comparePeers(t, path);
  await colo.until('stream.up', 3);
  return { colo, path, ...peers };
}

test('endpoints in all four forms: each is dialled until it accepts, and released frames arrive', async (t) => {
  const path = tempFolder(t);
  const notify = await Listener.open(t);
  const colo = new DropInProcess(
    t,
    'compare',
    ...['--primary-in', `unix:${path}/pri`, '--secondary-in', `unix-listen:${path}/sec`],
    ...['--out', 'tcp-listen:127.0.0.1:0', '--notify', `tcp:127.0.0.1:${notify.port}`],
  );
  const down = await colo.until('stream.down');
  assert.equal(down.place, 'primary-in');
  assert.match(String(down.cause), /cannot connect to unix:.*pri/);
  const listener = await Listener.open(t, join(path, 'pri'));
  const primary = await listener.accept();
  const secondary = await Peer.connect(t, { path: join(path, 'sec') });
  const toolStack = await notify.accept();
  toolStack.send(Buffer.from('COLO_USERSPACE_PROXY_INIT'));
  assert.equal((await toolStack.next()).toString(), 'COLO_COMPARE_GET_XEN_INIT');
  await colo.until('stream.up', 3);
  primary.send(udp('same'));
  secondary.send(udp('same'));
  // The port that `out` chose is not known. Frames released before it has a peer are counted and dropped.
  await colo.reached(1, 'droppedFrames');
  const { primaryFrames, secondaryFrames, releasedFrames, matched } = await colo.stop();
  assert.deepEqual([primaryFrames, secondaryFrames, releasedFrames, matched], [1, 1, 0, 1]);
});

test('a peer that leaves within a frame may come back, and framing starts again', async (t) => {
  const all = await rig(t);
  await matches(all, udp('one'));
  for (const [name, place] of [
    ['pri', 'primary'],
    ['sec', 'secondary'],
    ['out', 'out'],
  ] as const) {
    await all[place].write(framed(udp('cut short')).subarray(0, 20));
    const downs = all.colo.of('stream.down').length;
    all[place].socket.end();
    const down = await all.colo.until('stream.down', downs + 1);
    assert.match(String(down.cause), /20 bytes into a frame/);
    all[place] = await Peer.connect(t, { path: join(all.path, name) });
    await all.colo.until('stream.up', downs + 4);
    await matches(all, udp(`after ${name}`));
  }
  const { primaryFrames, releasedFrames, droppedFrames } = await all.colo.stop('SIGINT');
  assert.deepEqual([primaryFrames, releasedFrames, droppedFrames], [4, 4, 0]);
});

test('a peer that comes back replaces the one before with its first frame', async (t) => {
  const all = await rig(t);
  const old = all.primary;
  all.primary = await Peer.connect(t, { path: join(all.path, 'pri') });
  await matches(all, udp('new'));
  await old.closed();
  assert.match(String((await all.colo.until('stream.down')).cause), /a newer peer took its place/);
  await all.colo.until('stream.up', 4);
  await matches(all, udp('newer'));
  await all.colo.stop();
});

test('an impossible length closes only that stream', async (t) => {
  const all = await rig(t);
  const bad: [keyof Pick<Rig, 'primary' | 'secondary'>, string, number][] = [
    ['primary', 'pri', 0],
    ['secondary', 'sec', 0xffff_ffff],
    ['primary', 'pri', 69633],
  ];
  for (const [i, [place, name, length]] of bad.entries()) {
    await all[place].write(u32(length));
    const down = await all.colo.until('stream.down', i + 1);
    assert.equal(down.place, `${place}-in`);
    assert.match(String(down.cause), new RegExp(`a frame of ${length} bytes was announced`));
    await all[place].closed();
    all[place] = await Peer.connect(t, { path: join(all.path, name) });
    await all.colo.until('stream.up', 4 + i);
    await matches(all, udp(`after ${length}`));
  }
  await all.colo.stop();
});

test('the largest frame is released whole', async (t) => {
  const all = await rig(t);
  const header = udp('').length;
  // An IP datagram has at most 65535 bytes; the rest of the largest frame that QEMU accepts may be padding.
  const frame = Buffer.alloc(4096 + 65536);
  udp('x'.repeat(65535 - (header - 14))).copy(frame);
  await matches(all, frame);
  await all.colo.stop();
});

test('without --notify and --qmp a warning is emitted, and one event per second while output is held', async (t) => {
  const { colo, primary, secondary, out } = await rig(t);
  assert.match(String((await colo.until('compare.unasked')).message), /neither --notify nor --qmp/);
  // The SVM first: otherwise the reason could be that a PVM frame has had no counterpart for some milliseconds.
  secondary.send(udp('other'));
  await colo.reached(1, 'secondaryFrames');
  primary.send(udp('left'), udp('right'));
  const { reason, flow } = await colo.until('checkpoint.asked');
  assert.equal(reason, 'diverged-length');
  assert.match(String(flow), /^udp 10\.0\.2\.15:53 <-> /);
  await colo.until('checkpoint.asked', 2);
  assert.equal(out.unread, 0);
  const last = colo.stop();
  assert.deepEqual([await out.next(), await out.next()], [udp('left'), udp('right')], 'leaves at the end');
  assert.equal((await last).releasedFrames, 2);
});

test('with --vnet-hdr the header is released unchanged and not compared', async (t) => {
  const { colo, primary, secondary, out } = await rig(t, '--vnet-hdr');
  const vnet = (frame: Buffer, header: number[]): Buffer =>
    Buffer.concat([u32(header.length + frame.length, header.length), Buffer.from(header), frame]);
  // GSO: one frame of 64 000 bytes, whose header has the segment size and the place of the checksum.
  const large = tcp({ seq: 1, payload: Buffer.alloc(64_000, 'x') });
  const frames: [Buffer, number[], number[]][] = [
    [tcp({ seq: 0, flags: 0x12 }), Array(12).fill(0), Array(12).fill(0)],
    [large, [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0], [1, 1, 66, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]],
    [udp('no header at all'), [], []],
    [udp('the largest header'), Array(20).fill(0), Array(20).fill(0)],
  ];
  for (const [frame, ofPrimary, ofSecondary] of frames) {
    await secondary.write(vnet(frame, ofSecondary));
    // In pieces: the second number of a frame may arrive after the first.
    for (const byte of vnet(frame, ofPrimary).subarray(0, 9)) await primary.write(Buffer.from([byte]));
    await primary.write(vnet(frame, ofPrimary).subarray(9));
    assert.deepEqual(await out.next(8), vnet(frame, ofPrimary).subarray(4));
  }
  await primary.write(u32(60, 25));
  assert.match(String((await colo.until('stream.down')).cause), /a virtio-net header of 25 bytes/);
  await colo.stop();
});

test('a consumer that does not read does not slow the primary down; no frame is reordered or cut', async (t) => {
  const { colo, primary, secondary, out } = await rig(t);
  out.socket.pause();
  const count = 400;
  const frame = (i: number): Buffer => udp(`${i} `.padEnd(60_000, '.'));
  // 24 MB, below every limit.
  for (let i = 0; i < count; i++) {
    await secondary.write(framed(frame(i)));
    await primary.write(framed(frame(i)));
  }
  await colo.reached(count, 'releasedFrames');
  out.socket.resume();
  for (let i = 0; i < count; i++) assert.deepEqual(await out.next(), frame(i));
  out.socket.pause();
  // 96 MB more: the newest are dropped when 64 MiB wait.
  const many = 4 * count;
  for (let i = 0; i < many; i++) {
    await secondary.write(framed(frame(i)));
    await primary.write(framed(frame(i)));
  }
  await colo.until('frames.dropping');
  const released = Number((await colo.reached(count + many, 'releasedFrames', 'noRoomOut')).releasedFrames);
  await colo.until('frames.dropped');
  out.socket.resume();
  // All of them, before it is stopped: a process that stops waits for its consumer for one second only.
  const waited = released - count;
  assert.ok((waited + 1) * frame(0).length > LIMITS.dropInUnsentBytesMax, `${waited} frames waited`);
  for (let i = 0; i < waited; i++) assert.deepEqual(await out.next(), frame(i));
  const { droppedFrames, noRoomPrimary, noRoomSecondary, noRoomOut, divergences, releasedFrames } =
    await colo.stop();
  assert.deepEqual([droppedFrames, noRoomPrimary, noRoomSecondary, divergences], [0, 0, 0, 0]);
  assert.deepEqual([releasedFrames, Number(noRoomOut) + released], [released, count + many]);
});

for (const framing of ['plain', 'vnet'] as const) {
  for (const kind of ['unix', 'tcp'] as const) {
    test(`a tool stack over ${kind}, ${framing}: greeted, asked, and what it has committed leaves`, async (t) => {
      const listener = await Listener.open(t, kind === 'tcp' ? undefined : join(tempFolder(t), 'notify'));
      const at = kind === 'tcp' ? `tcp:127.0.0.1:${listener.port}` : `unix:${listener.path}`;
      const more = framing === 'vnet' ? ['--vnet-hdr'] : [];
      const { colo, primary, secondary, out } = await rig(t, '--notify', at, ...more);
      const numbers = (length: number): Buffer => (framing === 'vnet' ? u32(length, 0) : u32(length));
      const message = (bytes: Buffer): Buffer => Buffer.concat([numbers(bytes.length), bytes]);
      // It leaves within a word and comes back.
      for (const [i, cut] of [7, 0].entries()) {
        const toolStack = await listener.accept(i + 1);
        for (const byte of message(Buffer.from('COLO_USERSPACE_PROXY_INIT')))
          await toolStack.write(Buffer.from([byte]));
        assert.equal((await toolStack.next()).toString(), 'COLO_COMPARE_GET_XEN_INIT');
        // What both VMs had sent before this connection is not known.
        assert.equal((await toolStack.next()).toString(), 'DO_CHECKPOINT');
        await toolStack.write(message(Buffer.from('COLO_CHECKPOINT')));
        await colo.until('checkpoint.committed', 2 * i + 1);
        await primary.write(message(udp(`left ${i}`)));
        await secondary.write(message(udp(`right ${i}`)));
        assert.equal((await toolStack.next()).toString(), 'DO_CHECKPOINT');
        assert.equal(out.unread, 0);
        await toolStack.write(message(Buffer.from('COLO_CHECKPOINT')));
        assert.deepEqual(
          await out.next(framing === 'vnet' ? 8 : 4),
          framing === 'vnet' ? message(udp(`left ${i}`)).subarray(4) : udp(`left ${i}`),
        );
        await toolStack.write(message(Buffer.from('COLO_CHECKPOINT')).subarray(0, cut));
        if (cut > 0) toolStack.socket.end();
      }
      const { asked, committed, divergences } = await colo.stop();
      assert.deepEqual([asked, committed, divergences], [4, 4, 2]);
    });
  }
}

test('no socket is left behind, and one that a killed process left is replaced', async (t) => {
  const first = await rig(t);
  first.colo.child.kill('SIGKILL');
  await once(first.colo.child, 'close');
  assert.deepEqual(readdirSync(first.path).sort(), ['out', 'pri', 'sec']);
  const places = ['--primary-in', `unix-listen:${first.path}/pri`, '--secondary-in'];
  places.push(`unix-listen:${first.path}/sec`, '--out', `unix-listen:${first.path}/out`);
  const second = new DropInProcess(t, 'compare', ...places);
  await second.until('compare.started');
  await second.stop();
  assert.deepEqual(readdirSync(first.path), []);
});

test('wrong usage ends with exit code 2 and the reason', async () => {
  const three = ['compare', '--primary-in', 'unix:/a', '--secondary-in', 'unix:/b', '--out'];
  for (const [args, message] of [
    [['compare'], /required option '--primary-in <endpoint>' not specified/],
    [[...three, 'unix'], /--out <endpoint>' argument 'unix' is invalid.*unix-listen:PATH/],
    [[...three, 'unix:/a'], /--primary-in and --out are both unix:\/a/],
    [[...three, 'unix-listen:/x/../a'], /--primary-in and --out are both unix-listen:\/x\/\.\.\/a/],
    [[...three, 'unix:/c', '--qmp', 'unix-listen:/d'], /QEMU listens here and this process connects/],
    [
      [...three, 'unix:/c', '--notify', 'unix:/d', '--qmp', 'unix:/e'],
      /--notify and --qmp both take checkpoints/,
    ],
  ] as const) {
    const { code, out, err } = await runColo(args);
    assert.deepEqual([code, out], [2, ''], err);
    assert.match(err, /^COLO_USAGE: /);
    assert.match(err, message);
    assert.equal(err.trim().split('\n').length, 1);
  }
});

test('a place that is taken ends the process with exit code 1, and the other places are freed', async (t) => {
  const path = tempFolder(t);
  writeFileSync(join(path, 'out'), 'a file');
  for (const command of ['compare', 'rewrite']) {
    const places =
      command === 'compare'
        ? ['--primary-in', `unix-listen:${path}/a`, '--secondary-in', `unix-listen:${path}/out`, '--out']
        : [
            '--in',
            `unix-listen:${path}/out`,
            '--guest-in',
            `unix-listen:${path}/a`,
            '--guest-out',
            'unix:/n',
            '--out',
          ];
    const { code, out, err } = await runColo([command, ...places, `unix-listen:${path}/b`, '--json']);
    assert.equal(code, 1, err);
    const { error } = JSON.parse(out.trim().split('\n').at(-1)!) as {
      error: { code: string; message: string };
    };
    assert.equal(error.code, 'COLO_ENDPOINT_LISTEN');
    assert.match(error.message, /cannot listen on unix-listen:.*out: the file there is not a socket;/);
    assert.deepEqual(readdirSync(path), ['out']);
  }
});

test('a place in a folder that is not there says so', async (t) => {
  const places = comparePlaces(join(tempFolder(t), 'none'));
  const { code, err } = await runColo(['compare', ...places]);
  assert.equal(code, 1);
  assert.match(err, /^COLO_ENDPOINT_LISTEN: cannot listen on unix-listen:.*: there is no folder .*none; /);
});

test('it continues when its standard output is closed', async (t) => {
  const path = tempFolder(t);
  const child = startColo(['compare', ...comparePlaces(path)]);
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  child.stdout.destroy();
  // Without its output nothing shows when it listens, and a socket's path exists before it accepts.
  const peers = await comparePeers(t, path);
  for (let i = 0; i < 5; i++) await matches(peers, udp(`${i}`));
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});
