import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { StreamKeeper, type StreamPlace } from '../../src/dropin/stream-keeper.ts';
import { NEWCOMER_MS_MAX, NEWCOMERS_MAX, readsFrames, WRITES } from '../../src/dropin/waiting-room.ts';
import { parseEndpoint } from '../../src/endpoint.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import { Listener, Peer } from '../cli/dropin-process.ts';
import { udp } from '../compare/rig.ts';
import { u32 } from '../frames.ts';
import { framed } from '../io/fake-stream.ts';
import { tempFolder } from '../temp-folder.ts';

/** A place that collects the streams that are attached to it. */
class Place implements StreamPlace {
  onClosed: (cause: Error | null) => void = () => {};
  readonly lastEnd = 'whole';
  readonly streams: KernelStream[] = [];
  /** What was read of each. */
  readonly read: Buffer[] = [];
  private current: KernelStream | null = null;

  attach(stream: KernelStream): void {
    const at = this.streams.push(stream) - 1;
    this.read[at] = Buffer.alloc(0);
    this.current = stream;
    const buffer = Buffer.alloc(16);
    stream.start({
      buffer: () => buffer,
      read: (bytes) => {
        this.read[at] = Buffer.concat([this.read[at], buffer.subarray(0, bytes)]);
      },
      closed: (cause) => {
        if (this.current === stream) this.end(cause);
      },
    });
  }

  closeWhole(): void {
    this.current?.close();
    if (this.current !== null) this.end(null);
  }

  private end(cause: Error | null): void {
    this.current = null;
    this.onClosed(cause);
  }
}

function kept(t: TestContext, text: string, admission = readsFrames('plain')) {
  const place = new Place();
  const notified: string[] = [];
  const events = {
    up: () => notified.push('up'),
    down: (_: string, cause: string) => notified.push(cause),
    cut: () => {},
    refused: (_: string, cause: string, count: number) => notified.push(`refused ${count} ${cause}`),
  };
  const endpoint = parseEndpoint(text);
  const keeper = new StreamKeeper({
    name: 'place',
    endpoint,
    place,
    admission,
    surroundings: systemSurroundings,
    events,
  });
  t.after(() => keeper.close());
  return { place, notified, keeper };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(2);
}

test('it dials until the endpoint accepts, notifies once while it does not, and dials again after a loss', async (t) => {
  const path = join(tempFolder(t), 's');
  const { notified, keeper } = kept(t, `unix:${path}`);
  await keeper.start();
  await until(() => notified.length > 0);
  await sleep(300);
  assert.equal(notified.length, 1);
  assert.match(notified[0], /^cannot connect to unix:/);
  const listener = await Listener.open(t, path);
  const peer = await listener.accept();
  await until(() => notified.length > 1);
  peer.socket.end();
  await listener.accept(2);
  await until(() => notified.length > 3);
  assert.deepEqual(notified.slice(1), ['up', `unix:${path}: the peer closed it`, 'up']);
});

/** A listening place with a peer. */
async function taken(t: TestContext, admission = readsFrames('plain')) {
  const path = `${tempFolder(t)}/s`;
  const all = kept(t, `unix-listen:${path}`, admission);
  await all.keeper.start();
  const join = () => Peer.connect(t, { path });
  const first = await join();
  await until(() => all.notified.length === 1);
  return { ...all, path, join, first };
}

test('a newcomer replaces the peer before it with its first whole frame, however that is cut', async (t) => {
  const bytes = framed(udp('first'), udp('second'));
  for (const cut of [0, 1, 3, 4, 5, 30, framed(udp('first')).length - 1, framed(udp('first')).length]) {
    const { notified, place, keeper, path, join, first } = await taken(t);
    const second = await join();
    await second.write(bytes.subarray(0, cut));
    await sleep(10);
    if (cut < framed(udp('first')).length) assert.deepEqual(notified, ['up'], `cut at ${cut}`);
    await second.write(bytes.subarray(cut));
    await first.closed();
    await until(() => place.read[1]?.length === bytes.length);
    assert.deepEqual(notified, ['up', `unix-listen:${path}: a newer peer took its place`, 'up']);
    assert.deepEqual(place.read[1], bytes);
    await second.write(framed(udp('third')));
    await until(() => place.read[1].length > bytes.length);
    await keeper.close();
    assert.equal(notified.length, 3, 'an end that was requested is not notified of');
  }
});

for (const [name, bytes, cause] of [
  ['sends nothing', Buffer.alloc(0), /it sent nothing within 1 s/],
  ['sends half a frame', framed(udp('half')).subarray(0, 30), /it sent no whole frame within 1 s/],
  ['sends a web request', Buffer.from('GET / HTTP/1.1\r\n\r\n'), /it announced a frame of 1195725856 bytes/],
  ['announces a frame of no bytes', u32(0), /it announced a frame of 0 bytes/],
  ['announces the longest frame', u32(69632), /no whole frame/],
  ['announces a longer one', u32(69633), /it announced a frame of 69633 bytes/],
  ['sends a frame without a source address', framed(Buffer.alloc(60)), /none that belongs here/],
  ['sends a frame without a whole header', framed(Buffer.alloc(13, 2)), /none that belongs here/],
] as const) {
  test(`a newcomer that ${name} is dropped, and the peer keeps its place`, async (t) => {
    const { notified, place, join, first } = await taken(t);
    const beginMs = performance.now();
    const stray = await join();
    stray.socket.write(bytes);
    await stray.closed();
    assert.ok(performance.now() - beginMs < NEWCOMER_MS_MAX + 500);
    assert.equal(notified.length, 2);
    assert.match(notified[1], /^refused 1 /);
    assert.match(notified[1], cause);
    await first.write(framed(udp('still here')));
    await until(() => place.read[0].length > 0);
  });
}

test('a flood of connections neither harms the peer nor keeps the one that comes back out', async (t) => {
  const { notified, place, join, first } = await taken(t);
  const flood = await Promise.all(Array.from({ length: 300 }, join));
  await until(() => flood.filter((one) => one.socket.destroyed).length >= 300 - NEWCOMERS_MAX);
  await first.write(framed(udp('still here')));
  await until(() => place.read[0].length > 0);
  const back = await join();
  await back.write(framed(udp('back')));
  await until(() => place.read.length === 2);
  assert.deepEqual(
    notified.filter((text) => !text.startsWith('refused')),
    ['up', notified[2], 'up'],
    'one event for all that were refused',
  );
});

test('when the peer leaves, the newcomer that has waited longest takes the place, with what it has sent', async (t) => {
  for (const admission of [readsFrames('plain'), WRITES]) {
    const { notified, place, path, join, first } = await taken(t, admission);
    const second = await join();
    const sent = admission === WRITES ? Buffer.alloc(0) : framed(udp('half')).subarray(0, 20);
    await second.write(sent);
    await join();
    await sleep(50);
    first.socket.end();
    await until(() => place.streams.length === 2);
    assert.deepEqual(notified.slice(1, 3), [`unix-listen:${path}: the peer closed it`, 'up']);
    await until(() => place.read[1].length === sent.length);
    await sleep(NEWCOMER_MS_MAX + 100);
    assert.equal(second.socket.destroyed, false);
  }
});

test('a place that is only written to keeps a peer that is alive', async (t) => {
  const { notified, join, first } = await taken(t, WRITES);
  const mute = await join();
  const sends = await join();
  await sends.write(framed(udp('a frame')));
  await Promise.all([mute.closed(), sends.closed()]);
  assert.equal(first.socket.destroyed, false);
  assert.match(notified[1], /^refused 1 .*it sends, and nothing is read here$/);
});

test('it leaves nothing behind', async (t) => {
  const { keeper, path, join, notified } = await taken(t);
  const waiting = await join();
  await sleep(20);
  await keeper.close();
  await waiting.closed();
  assert.deepEqual(readdirSync(dirname(path)), []);
  assert.equal(notified.length, 1);
});

test('an endpoint that is taken is refused', async (t) => {
  const path = tempFolder(t);
  await Listener.open(t, `${path}/s`);
  await assert.rejects(kept(t, `unix-listen:${path}/s`).keeper.start(), { code: 'COLO_ENDPOINT_LISTEN' });
});
