/** A process that stops, or is killed, while its peer does not read: the peer must not be left with half a frame unknowingly. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { udp } from '../compare/rig.ts';
import { framed } from '../io/fake-stream.ts';
import { tempFolder } from '../temp-folder.ts';
import { DropInProcess, Listener, Peer } from './dropin-process.ts';

/** More than fits into a socket's buffers on both sides. */
const COUNT = 10_000;
/** Of differing lengths, so that a cut falls anywhere. */
const frame = (i: number): Buffer => udp(`${i} `.padEnd(1000 + ((i * 37) % 800), '.'));
const FRAMES = Array.from({ length: COUNT }, (_, i) => frame(i));

type Route = { colo: DropInProcess; from: Peer; to: Peer; other: Peer | null };

/** A consumer that dials, or is dialled over TCP. */
async function consumer(t: TestContext, kind: 'unix' | 'tcp', path: string) {
  const listener = await Listener.open(t, kind === 'tcp' ? undefined : path);
  return { listener, endpoint: kind === 'tcp' ? `tcp:127.0.0.1:${listener.port}` : `unix:${path}` };
}

async function compareRoute(t: TestContext, kind: 'unix' | 'tcp'): Promise<Route> {
  const path = tempFolder(t);
  const { listener, endpoint } = await consumer(t, kind, join(path, 'out'));
  const places = ['--primary-in', `unix-listen:${path}/pri`, '--secondary-in', `unix-listen:${path}/sec`];
  const colo = new DropInProcess(t, 'compare', ...places, '--out', endpoint);
  const to = await listener.accept();
  await colo.until('compare.started');
  const from = await Peer.connect(t, { path: join(path, 'pri') });
  const other = await Peer.connect(t, { path: join(path, 'sec') });
  await colo.until('stream.up', 3);
  return { colo, from, to, other };
}

async function rewriteRoute(t: TestContext, kind: 'unix' | 'tcp', way: 'input' | 'output'): Promise<Route> {
  const path = tempFolder(t);
  const { listener, endpoint } = await consumer(t, kind, join(path, 'end'));
  const places = ['in', 'guest-in', 'guest-out', 'out'].flatMap((name) => [
    `--${name}`,
    name === (way === 'input' ? 'guest-in' : 'out') ? endpoint : `unix-listen:${path}/${name}`,
  ]);
  const colo = new DropInProcess(t, 'rewrite', ...places);
  const to = await listener.accept();
  await colo.until('rewrite.started');
  const from = await Peer.connect(t, { path: join(path, way === 'input' ? 'in' : 'guest-out') });
  await colo.until('stream.up', 2);
  return { colo, from, to, other: null };
}

const ROUTES = {
  'compare: out': compareRoute,
  'rewrite: guest-in': (t: TestContext, kind: 'unix' | 'tcp') => rewriteRoute(t, kind, 'input'),
  'rewrite: out': (t: TestContext, kind: 'unix' | 'tcp') => rewriteRoute(t, kind, 'output'),
} as const;

for (const [name, route] of Object.entries(ROUTES)) {
  for (const kind of ['unix', 'tcp'] as const) {
    test(`colo ${name}, ${kind}: stopped while its consumer does not read, it ends at a frame and says what was dropped`, async (t) => {
      const { colo, from, to, other } = await route(t, kind);
      to.socket.pause();
      if (other !== null) await other.write(framed(...FRAMES));
      await from.write(framed(...FRAMES));
      const seen = name.startsWith('compare')
        ? 'primaryFrames'
        : name.endsWith('out')
          ? 'outputFrames'
          : 'inputFrames';
      await colo.reached(COUNT, seen);
      const last = await colo.stop();
      const { frames, cutBytes } = await to.rest();
      t.diagnostic(`${frames.length} frames arrived`);
      assert.equal(cutBytes, 0);
      assert.deepEqual(frames, FRAMES.slice(0, frames.length));
      const dropped = Number(
        last.droppedFrames ?? (name.endsWith('out') ? last.droppedOutput : last.droppedInput),
      );
      if (name.startsWith('compare')) {
        assert.equal(last.releasedFrames, frames.length);
        assert.equal(
          last.releasedBytes,
          frames.reduce((sum, { length }) => sum + length, 0),
        );
      }
      assert.equal(dropped, COUNT - frames.length);
      assert.ok(dropped > 0, 'the consumer had room for everything');
      assert.deepEqual(colo.of('stream.cut'), []);
    });
  }
}

test('a consumer that goes away with frames on their way: they count as dropped, and the cut is notified of', async (t) => {
  const { colo, from, to, other } = await compareRoute(t, 'unix');
  to.socket.pause();
  await other?.write(framed(...FRAMES));
  await from.write(framed(...FRAMES));
  await colo.reached(COUNT, 'primaryFrames');
  to.socket.destroy();
  const { place, message } = await colo.until('stream.cut');
  assert.equal(place, 'out');
  assert.match(String(message), /may have ended within a frame/);
  const { releasedFrames, droppedFrames } = await colo.stop();
  assert.equal(Number(releasedFrames) + Number(droppedFrames), COUNT);
  assert.ok(Number(droppedFrames) > 0);
});

test('a peer that reads all and leaves in order is no cut', async (t) => {
  const { colo, from, to, other } = await compareRoute(t, 'tcp');
  await other?.write(framed(udp('one')));
  from.send(udp('one'));
  assert.deepEqual(await to.next(), udp('one'));
  to.socket.end();
  await colo.until('stream.down');
  const ended = once(colo.child, 'close');
  colo.child.kill('SIGTERM');
  await ended;
  assert.deepEqual(colo.of('stream.cut'), []);
});
