/** The link inside TLS: who is let in, who is not and why, and what a listener of the cable sees. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import tls from 'node:tls';
import type { Endpoint } from '../../src/endpoint.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { systemTimers } from '../../src/io/clock.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import type { TlsStream } from '../../src/io/tls-stream.ts';
import type { ChannelName } from '../../src/link/channels.ts';
import type { Credentials } from '../../src/link/credentials.ts';
import { IGNORE_LINK, type LinkChannel } from '../../src/link/link-channel.ts';
import { type Hello, LINK_VERSION, MESSAGE } from '../../src/link/link-protocol.ts';
import { dialLink, type LinkHost, listenLink } from '../../src/link/link-setup.ts';
import { HANDSHAKES_MAX, TlsConnections } from '../../src/link/tls-connections.ts';
import { framed } from '../io/fake-stream.ts';
import { hasNoDelay } from '../io/no-delay.ts';
import { credentialsOf, DAYS, newCa } from './certificates.ts';

const folder = mkdtempSync(join(tmpdir(), 'colo-tls-'));
after(() => rmSync(folder, { recursive: true }));
let folders = 0;
const ca = await newCa();

const made = (node: string, { pair = 'web', issuer = ca, ageDays = 0 } = {}) =>
  credentialsOf(join(folder, `${folders++}`), issuer, { pair, node }, ageDays);
const A = await made('a');
const B = await made('b');

const hello = (channel: ChannelName, node: string): Hello => ({
  version: LINK_VERSION,
  channel,
  pair: 'web',
  node,
  generation: 1,
  role: node === 'a' ? 'primary' : 'candidate',
  leaseMs: 250,
});

function ends(credentials: Credentials) {
  const refused: { code: string; message: string; from: string }[] = [];
  const transports = new TlsConnections({
    credentials,
    wall: () => Date.now(),
    refused: ({ cause, from }) => refused.push({ code: cause.code, message: cause.message, from }),
  });
  return { transports, refused, surroundings: { transports, timers: systemTimers } };
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A primary that listens with these credentials. */
async function primary(credentials: Credentials, t: { after(call: () => unknown): void }) {
  const port = await freePort();
  const listen: Endpoint = { kind: 'tcp', mode: 'listen', host: '127.0.0.1', port };
  const peer: Endpoint = { ...listen, mode: 'connect' };
  const { transports, refused, surroundings } = ends(credentials);
  const opened: LinkChannel[] = [];
  const host: LinkHost = {
    hello: (channel) => hello(channel, 'a'),
    admit: { alone() {}, copy() {} },
    open: { alone: (channel) => opened.push(channel), copy() {} },
  };
  const slabs = new SlabPool(256 * 1024, 64);
  const listener = await listenLink(listen, slabs, host, surroundings);
  const dialled: LinkChannel[] = [];
  const dial = async (by: Credentials, as = 'b', to: Endpoint = peer): Promise<LinkChannel> => {
    const { channel } = await dialLink(to, slabs, hello('data', as), ends(by).surroundings);
    dialled.push(channel);
    return channel;
  };
  t.after(async () => {
    for (const channel of [...opened, ...dialled]) channel.close();
    await listener.close();
  });
  return { port, peer, slabs, transports, refused, opened, dial };
}

/** The listener's record of a refusal may come after the dialler's. */
async function until(holds: () => boolean): Promise<void> {
  for (const endMs = performance.now() + 3000; !holds(); ) {
    assert.ok(performance.now() < endMs, 'not reached in 3 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function sendFrames(from: LinkChannel, slabs: SlabPool, frames: number, text: string): void {
  const slab = slabs.acquire();
  const frame = framed(Buffer.from(text));
  frame.copy(slabs.buffer(slab));
  for (let index = 0; index < frames; index++) {
    from.pushInput(1, index, slab, 4, frame.length - 4);
    if (index % 10 === 9) from.flush();
  }
  from.flush();
  slabs.unref(slab);
}

test('frames pass in order, and the end of the connection arrives', async (t) => {
  const { slabs, opened, dial } = await primary(A, t);
  const candidate = await dial(B);
  const received: number[] = [];
  const ended = Promise.withResolvers<void>();
  opened[0].listen(IGNORE_LINK);
  candidate.listen({
    ...IGNORE_LINK,
    input: (_epoch, index) => received.push(index),
    closed: () => ended.resolve(),
  });
  sendFrames(opened[0], slabs, 5000, 'x'.repeat(1400));
  await until(() => received.length === 5000);
  assert.deepEqual(
    received,
    Array.from({ length: 5000 }, (_, index) => index),
  );
  opened[0].close();
  await ended.promise;
});

test('nothing readable crosses the cable, and nothing that was not encrypted', async (t) => {
  const { port, slabs, opened, dial } = await primary(A, t);
  const passed: Buffer[] = [];
  const relay = net.createServer((near) => {
    const far = net.connect(port, '127.0.0.1');
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on('data', (bytes: Buffer) => passed.push(bytes));
      from.on('error', () => {});
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  t.after(() => relay.close());
  const to: Endpoint = {
    kind: 'tcp',
    mode: 'connect',
    host: '127.0.0.1',
    port: (relay.address() as net.AddressInfo).port,
  };
  const candidate = await dial(B, 'b', to);
  let frames = 0;
  candidate.listen({
    ...IGNORE_LINK,
    input: () => {
      frames++;
    },
  });
  opened[0].listen(IGNORE_LINK);
  const secret = 'GET /account HTTP/1.1 Cookie: session=4711';
  sendFrames(opened[0], slabs, 200, secret);
  await until(() => frames === 200);
  const cable = Buffer.concat(passed);
  assert.ok(cable.length > 200 * secret.length);
  // Of the certificates only the signed names; TLS 1.3 encrypts these, too.
  for (const text of ['GET /', 'Cookie', '4711', 'candidate', 'leaseMs', 'colo', 'web'])
    assert.equal(cable.indexOf(text), -1, text);
});

/** A peer that checks nothing: TLS of any version, with this certificate or none. */
function strangeServer(options: tls.TlsOptions, t: { after(call: () => unknown): void }): Promise<Endpoint> {
  const server = tls.createServer({ requestCert: true, rejectUnauthorized: false, ...options }, (socket) => {
    socket.on('error', () => {});
  });
  server.on('tlsClientError', () => {});
  return listening(server, t);
}

async function listening(server: net.Server, t: { after(call: () => unknown): void }): Promise<Endpoint> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as net.AddressInfo;
  return { kind: 'tcp', mode: 'connect', host: '127.0.0.1', port };
}

/** Resolves with all that the listener sends to a peer that checks nothing, until it closes. */
function strangeClient(port: number, options: tls.ConnectionOptions): Promise<string> {
  const socket = tls.connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
  let text = '';
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
  });
  socket.on('error', () => {});
  return new Promise((resolve) => socket.on('close', () => resolve(text)));
}

const BAD: [string, () => Promise<Credentials>, code: string, message: RegExp][] = [
  [
    'of another CA',
    async () => made('b', { issuer: await newCa() }),
    'COLO_TLS_CA',
    /colo:\/\/web\/b.*another CA/,
  ],
  [
    'of another pair',
    () => made('b', { pair: 'mail' }),
    'COLO_TLS_PAIR',
    /colo:\/\/mail\/b.*another pair than "web"/,
  ],
  ['that has expired', () => made('b', { ageDays: DAYS + 2 }), 'COLO_TLS_EXPIRED', /expired on .*clock says/],
  [
    'that is not valid yet',
    () => made('b', { ageDays: -3 }),
    'COLO_TLS_NOT_YET_VALID',
    /valid from .*clock says/,
  ],
];

for (const [what, credentials, code, message] of BAD) {
  test(`a listener refuses a certificate ${what}, says so to the peer, and reads nothing of it`, async (t) => {
    const { port, slabs, refused, opened, dial } = await primary(A, t);
    const sent = await strangeClient(port, { ...(await credentials()).pem });
    assert.match(sent, new RegExp(`"code":"${code}"`));
    assert.equal(slabs.inUse, 0);
    assert.deepEqual(
      refused.map((one) => one.code),
      [code],
    );
    assert.match(refused[0].message, message);
    assert.match(refused[0].from, /^127\.0\.0\.1 port \d+$/);
    await dial(B);
    assert.equal(opened.length, 1);
  });

  test(`a dialler refuses a listener with a certificate ${what}`, async (t) => {
    const { dial } = await primary(A, t);
    const to = await strangeServer((await credentials()).pem, t);
    await assert.rejects(dial(await made('a'), 'a', to), { code, message });
  });
}

test('a node refuses the certificate of its own name: both nodes are configured as the same one', async (t) => {
  const { port, refused, dial } = await primary(A, t);
  await assert.rejects(dial(A, 'a'), { code: 'COLO_LINK_TWIN', message: /of this node itself/ });
  assert.match(await strangeClient(port, A.pem), /COLO_LINK_TWIN/);
  assert.equal(refused[0].code, 'COLO_LINK_TWIN');
});

test('a node that calls itself otherwise than its certificate is refused', async (t) => {
  const { dial, opened } = await primary(A, t);
  const c = await made('c');
  await assert.rejects(dial(c, 'b'), {
    code: 'COLO_LINK_REFUSED',
    message: /COLO_TLS_NODE the peer calls itself "b", and its certificate is of "c"/,
  });
  assert.equal(opened.length, 0);
});

test('a refusal at the other end is shown at this one', async (t) => {
  const { dial } = await primary(A, t);
  // A listener of pair web that knows another CA.
  const other = await primary({ ...A, pem: { ...A.pem, ca: (await newCa()).certificate } }, t);
  await assert.rejects(dial(B, 'b', other.peer), {
    code: 'COLO_LINK_REFUSED',
    message: /the peer refuses: COLO_TLS_CA .*another CA/,
  });
});

test('peers without a certificate, of TLS 1.2 or without TLS are refused, each with its reason', async (t) => {
  const { port, refused, opened, dial } = await primary(A, t);
  await strangeClient(port, {});
  await strangeClient(port, { ...B.pem, maxVersion: 'TLSv1.2' });
  const plain = net.connect(port, '127.0.0.1');
  plain.on('error', () => {});
  plain.write(
    framed(Buffer.from([MESSAGE.hello, 0, 0, 0, ...Buffer.from(JSON.stringify(hello('data', 'b')))])),
  );
  plain.resume();
  await new Promise((resolve) => plain.on('close', resolve));
  await until(() => refused.length === 3);
  assert.deepEqual(
    refused.map(({ code }) => code),
    ['COLO_TLS_NO_CERTIFICATE', 'COLO_TLS_VERSION', 'COLO_TLS_PLAIN'],
  );
  await dial(B);
  assert.equal(opened.length, 1);
});

test('a dialler says what its peer speaks in place of TLS 1.3', async (t) => {
  const { dial } = await primary(A, t);
  const old = await strangeServer({ ...A.pem, maxVersion: 'TLSv1.2' }, t);
  await assert.rejects(dial(B, 'b', old), { code: 'COLO_TLS_VERSION' });
  const plain = await listening(
    net.createServer((socket) => {
      socket.on('error', () => {});
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
    }),
    t,
  );
  await assert.rejects(dial(B, 'b', plain), { code: 'COLO_TLS_PLAIN' });
  const closes = await listening(
    net.createServer((socket) => socket.destroy()),
    t,
  );
  await assert.rejects(dial(B, 'b', closes), { code: 'COLO_TLS_HANDSHAKE' });
  await assert.rejects(dial(B, 'b', { ...old, port: await freePort() } as Endpoint), {
    code: 'COLO_ENDPOINT_CONNECT',
  });
});

test('a plain node that dials a node with TLS fails, and its message names link.tls', async (t) => {
  const { peer, slabs } = await primary(A, t);
  await assert.rejects(dialLink(peer, slabs, hello('data', 'b'), systemSurroundings), {
    code: 'COLO_LINK_CLOSED',
    message: /do both nodes have link\.tls, or neither\?$/,
  });
});

test('peers that are mute in the handshake keep no node out, and are closed after two seconds', async (t) => {
  const { port, refused, opened, dial } = await primary(A, t);
  const strays = Array.from({ length: 3 * HANDSHAKES_MAX }, () => {
    const stray = net.connect(port, '127.0.0.1');
    stray.on('error', () => {});
    stray.resume();
    t.after(() => stray.destroy());
    return stray;
  });
  await until(() => strays.every((stray) => !stray.connecting));
  const beginMs = performance.now();
  await dial(B);
  assert.ok(performance.now() - beginMs < 1000, 'its handshake ended only when the others had been given up');
  assert.equal(opened.length, 1);
  const left = (): number => strays.filter((stray) => !stray.destroyed).length;
  await until(() => left() <= HANDSHAKES_MAX);
  assert.ok(performance.now() - beginMs < 1500, 'the oldest were closed only with the others');
  await until(() => left() === 0);
  assert.ok(refused.every(({ code }) => code === 'COLO_LINK_SILENT'));
});

test('a dialler gives a mute listener up after two seconds', async (t) => {
  const { dial } = await primary(A, t);
  const mute = await listening(
    net.createServer((socket) => {
      socket.on('error', () => {});
      t.after(() => socket.destroy());
    }),
    t,
  );
  await assert.rejects(dial(B, 'b', mute), { code: 'COLO_LINK_SILENT' });
});

test('new credentials are for new connections, and an open one stays', async (t) => {
  const { transports, slabs, opened, dial } = await primary(A, t);
  const before = await dial(B);
  let frames = 0;
  before.listen({ ...IGNORE_LINK, input: () => frames++ });
  opened[0].listen(IGNORE_LINK);
  const otherCa = await newCa();
  transports.use(await made('a', { issuer: otherCa }));
  await assert.rejects(dial(B), { code: 'COLO_TLS_CA' });
  await dial(await made('b', { issuer: otherCa }));
  sendFrames(opened[0], slabs, 10, 'still there');
  await until(() => frames === 10);
});

test('a node whose own certificate has expired does not dial, and says why', async (t) => {
  const { dial } = await primary(A, t);
  await assert.rejects(dial(await made('b', { ageDays: DAYS + 2 })), {
    code: 'COLO_TLS_EXPIRED',
    message: /^this node's own certificate has expired/,
  });
});

test("Nagle's algorithm is off at both ends: no message waits for the acknowledgement of the one before", async (t) => {
  const port = await freePort();
  const accepted = Promise.withResolvers<TlsStream>();
  const listen: Endpoint = { kind: 'tcp', mode: 'listen', host: '127.0.0.1', port };
  const listener = await ends(A).transports.listen(listen, accepted.resolve);
  t.after(() => listener.close());
  const near = await ends(B).transports.connect({ ...listen, mode: 'connect' });
  for (const stream of [near, await accepted.promise]) {
    const { socket } = stream as unknown as { socket: { _handle: { fd: number } } };
    assert.ok(hasNoDelay(socket._handle.fd));
    stream.close();
  }
});
