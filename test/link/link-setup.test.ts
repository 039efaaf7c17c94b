import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, mock, test } from 'node:test';
import type { Endpoint } from '../../src/endpoint.ts';
import { ColoError } from '../../src/error.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { IGNORE_LINK, type LinkChannel } from '../../src/link/link-channel.ts';
import { type Hello, LINK_VERSION, MESSAGE } from '../../src/link/link-protocol.ts';
import { dialLink, dialStream, type LinkHost, listenLink, NAMELESS_MAX } from '../../src/link/link-setup.ts';
import { framed } from '../io/fake-stream.ts';

const folder = await mkdtemp(join(tmpdir(), 'colo-link-'));
after(() => rm(folder, { recursive: true }));

let sockets = 0;
const HELLO: Hello = {
  version: LINK_VERSION,
  channel: 'data',
  pair: 'web',
  node: 'b',
  generation: 1,
  role: 'candidate',
  leaseMs: 250,
};
const ANSWER: Hello = { ...HELLO, node: 'a', role: 'primary' };

function place(): { listen: Endpoint; connect: Endpoint; path: string } {
  const path = join(folder, `${sockets++}.sock`);
  return {
    path,
    listen: { kind: 'unix', mode: 'listen', path },
    connect: { kind: 'unix', mode: 'connect', path },
  };
}

const slabs = () => new SlabPool(256 * 1024, 8);

/** A listener of this code; `dial` dials it. */
async function listening(alone: (hello: Hello) => void = () => {}) {
  const { listen, connect, path } = place();
  const accepted: { channel: LinkChannel; hello: Hello }[] = [];
  const host: LinkHost = {
    hello: (channel) => ({ ...ANSWER, channel }),
    admit: { alone, copy() {} },
    open: { alone: (channel, hello) => accepted.push({ channel, hello }), copy() {} },
  };
  const listener = await listenLink(listen, slabs(), host);
  return {
    path,
    accepted,
    close: () => listener.close(),
    dial: (hello: Hello) => dialLink(connect, slabs(), hello),
  };
}

/** A listener that sends these bytes to each connection. */
async function strange(bytes: Buffer): Promise<{ connect: Endpoint; server: net.Server }> {
  const { connect, path } = place();
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', () => {});
    if (bytes.length > 0) socket.write(bytes);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { connect, server };
}

const message = (type: number, text: string) => framed(Buffer.from([type, 0, 0, 0, ...Buffer.from(text)]));

test('each side gets the HELLO of the other and the channel', async () => {
  const { accepted, close, dial } = await listening();
  const { channel, hello } = await dial(HELLO);
  assert.deepEqual(hello, ANSWER);
  assert.equal(accepted.length, 1);
  assert.deepEqual(accepted[0].hello, HELLO);
  const received = await new Promise((resolve) => {
    accepted[0].channel.listen({
      ...IGNORE_LINK,
      control: ({ type, body }) => resolve([type, body]),
    });
    channel.send(MESSAGE.gated, { epoch: 5, drained: true });
  });
  assert.deepEqual(received, [MESSAGE.gated, { epoch: 5, drained: true }]);
  channel.close();
  await close();
});

test('what the listener sends right after its HELLO is not lost', async () => {
  const { connect, server } = await strange(
    Buffer.concat([
      message(MESSAGE.hello, JSON.stringify(ANSWER)),
      message(MESSAGE.startSync, '{"generation":4,"channels":["state"]}'),
    ]),
  );
  const { channel } = await dialLink(connect, slabs(), HELLO);
  await new Promise((resolve) => setTimeout(resolve, 5));
  const received = await new Promise((resolve) => {
    channel.listen({
      ...IGNORE_LINK,
      control: ({ type, body }) => resolve([type, body]),
    });
  });
  assert.deepEqual(received, [MESSAGE.startSync, { generation: 4, channels: ['state'] }]);
  channel.close();
  server.close();
});

test('both sides refuse another version', async () => {
  const { accepted, close, dial } = await listening();
  await assert.rejects(dial({ ...HELLO, version: 99 }), {
    code: 'COLO_LINK_REFUSED',
    message: /COLO_LINK_VERSION/,
  });
  assert.equal(accepted.length, 0);
  await close();
  const { connect, server } = await strange(message(MESSAGE.hello, '{"version":99,"new":true}'));
  await assert.rejects(dialLink(connect, slabs(), HELLO), {
    code: 'COLO_LINK_VERSION',
    message: /version 99/,
  });
  server.close();
});

test('both sides refuse another pair', async () => {
  const { accepted, close, dial } = await listening();
  await assert.rejects(dial({ ...HELLO, pair: 'mail' }), {
    code: 'COLO_LINK_REFUSED',
    message: /COLO_LINK_PAIR.*"mail"/,
  });
  assert.equal(accepted.length, 0);
  await close();
  const { connect, server } = await strange(
    message(MESSAGE.hello, JSON.stringify({ ...ANSWER, pair: 'mail' })),
  );
  await assert.rejects(dialLink(connect, slabs(), HELLO), { code: 'COLO_LINK_PAIR' });
  server.close();
});

test('a listener that replies with a HELLO of another channel is garbled', async () => {
  const { connect, server } = await strange(
    message(MESSAGE.hello, JSON.stringify({ ...ANSWER, channel: 'state' })),
  );
  await assert.rejects(dialLink(connect, slabs(), HELLO), { code: 'COLO_LINK_GARBLED' });
  server.close();
});

test('a channel may be opened in its stage alone', async () => {
  const { listen, connect } = place();
  const opened: string[] = [];
  const refuse = () => {
    throw new ColoError('COLO_LINK_BUSY', 'no first copy');
  };
  const host: LinkHost = {
    hello: (channel) => ({ ...ANSWER, channel }),
    admit: { alone() {}, copy: refuse },
    open: { alone: () => opened.push('a session'), copy: () => opened.push('a copy') },
  };
  const listener = await listenLink(listen, slabs(), host);
  await assert.rejects(dialStream(connect, slabs(), { ...HELLO, channel: 'state' }), {
    code: 'COLO_LINK_REFUSED',
    message: 'the peer refuses: COLO_LINK_BUSY no first copy',
  });
  (await dialLink(connect, slabs(), HELLO)).channel.close();
  assert.deepEqual(opened, ['a session']);
  await listener.close();
});

test('a listener refuses with a reason', async () => {
  const { close, dial } = await listening(() => {
    throw new ColoError('COLO_LINK_BUSY', 'has one already');
  });
  await assert.rejects(dial(HELLO), {
    code: 'COLO_LINK_REFUSED',
    message: 'the peer refuses: COLO_LINK_BUSY has one already',
  });
  await close();
});

for (const body of [
  'null',
  '7',
  '[]',
  '{}',
  `{"version":${LINK_VERSION}}`,
  '{"version":"1"}',
  JSON.stringify({ ...HELLO, pair: 3 }),
  JSON.stringify({ ...HELLO, channel: 'migration' }),
]) {
  test(`neither side takes ${body} for a HELLO`, async () => {
    const { accepted, close, path } = await listening(() => assert.fail('the node was asked about garbage'));
    const socket = net.connect(path);
    socket.write(message(MESSAGE.hello, body));
    socket.resume();
    await new Promise((resolve) => socket.on('close', resolve));
    assert.equal(accepted.length, 0);
    await close();
    const { connect, server } = await strange(message(MESSAGE.hello, body));
    await assert.rejects(dialLink(connect, slabs(), HELLO), { code: 'COLO_LINK_GARBLED' });
    server.close();
  });
}

test('the listener survives a HELLO whose names are as long as a message', async () => {
  const { accepted, close, dial, path } = await listening();
  const names = [
    Buffer.from(JSON.stringify({ ...HELLO, pair: 'x'.repeat(69_000) })),
    // As text, each of these bytes is three.
    Buffer.concat(
      JSON.stringify({ ...HELLO, node: '' })
        .split('"node":"')
        .flatMap((part, i) => [...(i === 0 ? [] : ['"node":"', Buffer.alloc(30_000, 0xff)]), part])
        .map((part) => Buffer.from(part)),
    ),
  ];
  for (const body of names) {
    const socket = net.connect(path);
    socket.on('error', () => {});
    socket.write(framed(Buffer.concat([Buffer.from([MESSAGE.hello, 0, 0, 0]), body])));
    socket.resume();
    await new Promise((resolve) => socket.on('close', resolve));
  }
  (await dial(HELLO)).channel.close();
  assert.equal(accepted.length, 1);
  await close();
});

test('a refusal of any length arrives, cut', async () => {
  const { close, dial } = await listening(() => {
    throw new ColoError('COLO_LINK_BUSY', `\u{fffd}${'x'.repeat(100_000)}`);
  });
  await assert.rejects(dial(HELLO), {
    code: 'COLO_LINK_REFUSED',
    message: /^the peer refuses: COLO_LINK_BUSY .x{999}$/u,
  });
  await close();
});

test('a dialler that speaks another protocol is closed, and the listener continues', async () => {
  const { accepted, close, dial, path } = await listening();
  const socket = net.connect(path);
  socket.on('error', () => {});
  socket.write('GET / HTTP/1.1\r\n\r\n');
  socket.resume();
  await new Promise((resolve) => socket.on('close', resolve));
  (await dial(HELLO)).channel.close();
  assert.equal(accepted.length, 1);
  await close();
});

test('a peer that closes at once is reported as closed', async () => {
  const { connect, path } = place();
  const server = net.createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  await assert.rejects(dialLink(connect, slabs(), HELLO), { code: 'COLO_LINK_CLOSED' });
  server.close();
});

test('a dial to an endpoint where no node listens fails', async () => {
  await assert.rejects(dialLink(place().connect, slabs(), HELLO), { code: 'COLO_ENDPOINT_CONNECT' });
});

test('a peer that sends nothing for two seconds is closed', async () => {
  const { connect, server } = await strange(Buffer.alloc(0));
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const dialled = dialLink(connect, slabs(), HELLO);
    await new Promise<void>((resolve) => server.once('connection', () => resolve()));
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    mock.timers.tick(2000);
    await assert.rejects(dialled, { code: 'COLO_LINK_SILENT' });
  } finally {
    mock.timers.reset();
    server.close();
  }
});

test('connections that send nothing, or half a message, keep no node out and take no more than their share of the slabs', async (t) => {
  const { listen, connect, path } = place();
  const accepted: LinkChannel[] = [];
  const host: LinkHost = {
    hello: (channel) => ({ ...ANSWER, channel }),
    admit: { alone() {}, copy() {} },
    open: { alone: (channel) => accepted.push(channel), copy() {} },
  };
  const pool = new SlabPool(256 * 1024, 64);
  const listener = await listenLink(listen, pool, host);
  t.after(() => listener.close());
  const strays = Array.from({ length: 200 }, (_, i) => {
    const stray = net.connect(
      { path },
      () => i % 2 === 0 && stray.write(framed(Buffer.alloc(100)).subarray(0, 4)),
    );
    stray.on('error', () => {});
    t.after(() => stray.destroy());
    return stray;
  });
  while (strays.some((stray) => stray.connecting)) await new Promise((resolve) => setTimeout(resolve, 5));
  const beginMs = performance.now();
  const { channel } = await dialLink(connect, slabs(), HELLO);
  assert.ok(performance.now() - beginMs < 1000, 'its HELLO was read only when the others had been given up');
  assert.equal(accepted.length, 1);
  assert.ok(pool.inUse <= NAMELESS_MAX + 1, `${pool.inUse} slabs`);
  for (const one of [channel, ...accepted]) one.close();
});
