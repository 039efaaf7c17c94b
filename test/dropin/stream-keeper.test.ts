import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { StreamKeeper, type StreamPlace } from '../../src/dropin/stream-keeper.ts';
import { parseEndpoint } from '../../src/endpoint.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import { Listener, Peer } from '../cli/dropin-process.ts';
import { tempFolder } from '../temp-folder.ts';

/** A place that collects the streams that are attached to it. */
class Place implements StreamPlace {
  onClosed: (cause: Error | null) => void = () => {};
  readonly streams: KernelStream[] = [];
  private current: KernelStream | null = null;

  attach(stream: KernelStream): void {
    this.streams.push(stream);
    this.current = stream;
    stream.start({
      buffer: () => new Uint8Array(16),
      read: () => {},
      closed: (cause) => {
        if (this.current === stream) this.end(cause);
      },
    });
  }

  close(): void {
    this.current?.close();
    if (this.current !== null) this.end(null);
  }

  private end(cause: Error | null): void {
    this.current = null;
    this.onClosed(cause);
  }
}

function kept(t: TestContext, text: string) {
  const place = new Place();
  const notified: string[] = [];
  const events = { up: () => notified.push('up'), down: (_: string, cause: string) => notified.push(cause) };
  const endpoint = parseEndpoint(text);
  const keeper = new StreamKeeper({
    name: 'place',
    endpoint,
    place,
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

test('it accepts one peer after the other; each replaces the one before', async (t) => {
  const path = tempFolder(t);
  const { notified, place, keeper } = kept(t, `unix-listen:${path}/s`);
  await keeper.start();
  const first = await Peer.connect(t, { path: `${path}/s` });
  await until(() => notified.length === 1);
  await Peer.connect(t, { path: `${path}/s` });
  await first.closed();
  await until(() => notified.length === 3);
  assert.deepEqual(notified, ['up', `unix-listen:${path}/s: a newer peer took its place`, 'up']);
  assert.equal(place.streams.length, 2);
  await keeper.close();
  assert.deepEqual(readdirSync(path), []);
  assert.equal(notified.length, 3, 'an end that was requested is not notified of');
});

test('an endpoint that is taken is refused', async (t) => {
  const path = tempFolder(t);
  await Listener.open(t, `${path}/s`);
  await assert.rejects(kept(t, `unix-listen:${path}/s`).keeper.start(), { code: 'COLO_ENDPOINT_LISTEN' });
});
