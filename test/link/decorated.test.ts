/** The link over connections that are not the kernel's own sockets: a decorator, for instance TLS, can stand beneath it. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Endpoint, unixEndpoint } from '../../src/endpoint.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { ByteStream } from '../../src/io/byte-stream.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import type { ChannelName } from '../../src/link/channels.ts';
import { CopyChannels, dialCopy } from '../../src/link/copy.ts';
import { IGNORE_LINK, type LinkChannel } from '../../src/link/link-channel.ts';
import { type Hello, LINK_VERSION, MESSAGE } from '../../src/link/link-protocol.ts';
import { dialLink, dialStream, type LinkHost, listenLink } from '../../src/link/link-setup.ts';
import { framed } from '../io/fake-stream.ts';
import { scrambled } from '../io/scrambled.ts';

const folder = await mkdtemp(join(tmpdir(), 'colo-link-'));
after(() => rm(folder, { recursive: true }));

const SURROUNDINGS = {
  timers: systemSurroundings.timers,
  transports: scrambled(systemSurroundings.transports),
};
let sockets = 0;

const hello = (channel: ChannelName, node: string): Hello => ({
  version: LINK_VERSION,
  channel,
  pair: 'web',
  node,
  generation: 1,
  role: node === 'a' ? 'primary' : 'candidate',
  leaseMs: 250,
});

/** Both ends of a data channel and of a copy, opened over scrambled sockets. */
async function opened() {
  const path = join(folder, `${sockets++}.sock`);
  const listen: Endpoint = { kind: 'unix', mode: 'listen', path };
  const slabs = new SlabPool(256 * 1024, 8);
  const copy = new CopyChannels(['state']);
  const data = Promise.withResolvers<LinkChannel>();
  const host: LinkHost = {
    hello: (channel) => hello(channel, 'a'),
    admit: { alone() {}, copy: (theirs) => assert.ok(copy.awaits(theirs.channel)) },
    open: {
      alone: (channel) => data.resolve(channel),
      copy: (stream, { channel }) => copy.add(channel, stream),
    },
  };
  const listener = await listenLink(listen, slabs, host, SURROUNDINGS);
  const dial = (name: ChannelName, surroundings: Parameters<typeof dialLink>[3]) =>
    dialLink(unixEndpoint(path), slabs, hello(name, 'b'), surroundings);
  const candidate = (await dial('data', SURROUNDINGS)).channel;
  const candidateCopy = await dialCopy(['state'], (name) =>
    dialStream(unixEndpoint(path), slabs, hello(name, 'b'), SURROUNDINGS),
  );
  return {
    slabs,
    dial,
    candidate,
    primary: await data.promise,
    states: [candidateCopy.state, (await copy.whole).state] as const,
    close: () => listener.close(),
  };
}

test('messages and frames pass in both directions, however slowly they are taken', async () => {
  const { slabs, candidate, primary, states, close } = await opened();
  const received: string[] = [];
  const done = Promise.withResolvers<void>();
  primary.listen({ ...IGNORE_LINK, control: ({ type }) => primary.send(type, {} as never) });
  const frames = 4000;
  candidate.listen({
    ...IGNORE_LINK,
    input: (epoch, index, _slab, _at, length) => received.push(`${epoch}/${index} ${length}`),
    control: ({ type }) => {
      assert.equal(type, MESSAGE.takeover);
      done.resolve();
    },
  });
  const slab = slabs.acquire();
  framed(Buffer.alloc(1400, 7)).copy(slabs.buffer(slab));
  for (let index = 0; index < frames; index++) {
    primary.pushInput(3, index, slab, 4, 1400);
    if (index % 10 === 9) primary.flush();
  }
  slabs.unref(slab);
  candidate.send(MESSAGE.takeover, {});
  await done.promise;
  assert.equal(received.length, frames);
  assert.equal(received.at(-1), `3/${frames - 1} 1400`);
  candidate.close();
  primary.close();
  for (const stream of states) stream.close();
  await close();
});

test('a stream channel carries bytes both ways after its HELLOs, and its end', async () => {
  const { candidate, primary, states, close } = await opened();
  const [near, far] = states;
  const sent = Buffer.from(Array.from({ length: 500_000 }, (_, i) => i & 0xff));
  const collect = (stream: ByteStream, onRead: () => void) => {
    const buffer = new Uint8Array(3000);
    const parts: Buffer[] = [];
    const ended = Promise.withResolvers<Buffer>();
    stream.start({
      buffer: () => buffer,
      read: (bytes) => {
        parts.push(Buffer.from(buffer.subarray(0, bytes)));
        onRead();
      },
      closed: () => ended.resolve(Buffer.concat(parts)),
    });
    return ended.promise;
  };
  const atNear = collect(near, () => near.write(sent, () => near.close()));
  const atFar = collect(far, () => {});
  far.write(Buffer.from('question'), () => {});
  assert.ok((await atFar).equals(sent));
  assert.equal((await atNear).toString(), 'question');
  candidate.close();
  primary.close();
  await close();
});

test('a node without the decorator cannot open a channel', async () => {
  const { candidate, primary, states, dial, close } = await opened();
  await assert.rejects(dial('data', systemSurroundings), { code: /^COLO_LINK_(CLOSED|GARBLED)$/ });
  for (const one of [candidate, primary, ...states]) one.close();
  await close();
});
