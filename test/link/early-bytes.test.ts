/** A stream channel whose other end sends before its user is there: an NBD server greets at once. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../lab/free-port.ts';
import type { Endpoint } from '../../src/endpoint.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { ByteStream } from '../../src/io/byte-stream.ts';
import { systemTimers } from '../../src/io/clock.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import { type Hello, LINK_VERSION } from '../../src/link/link-protocol.ts';
import { dialStream, type LinkHost, type LinkSurroundings, listenLink } from '../../src/link/link-setup.ts';
import { TlsConnections } from '../../src/link/tls-connections.ts';
import { credentialsOf, newCa } from './certificates.ts';

const folder = mkdtempSync(join(tmpdir(), 'colo-early-'));
after(() => rmSync(folder, { recursive: true }));
const ca = await newCa();

/** Both ends of a link: the candidate's and the primary's. */
async function tls(): Promise<LinkSurroundings[]> {
  const ends: LinkSurroundings[] = [];
  for (const node of ['b', 'a']) {
    const credentials = await credentialsOf(join(folder, node), ca, { pair: 'web', node });
    const transports = new TlsConnections({ credentials, wall: () => Date.now(), refused() {} });
    ends.push({ transports, timers: systemTimers });
  }
  return ends;
}

const hello = (node: string): Hello => ({
  ...{ version: LINK_VERSION, channel: 'state', pair: 'web', node, generation: 1, leaseMs: 250 },
  role: node === 'a' ? 'primary' : 'candidate',
});

const LINKS = {
  plain: async () => [systemSurroundings, systemSurroundings],
  tls,
} as const;

for (const [name, ends] of Object.entries(LINKS)) {
  test(`${name}: what arrives before a stream has its user is not lost, and a second start gets the rest`, async () => {
    const [candidate, primary] = await ends();
    const listen: Endpoint = { kind: 'tcp', mode: 'listen', host: '127.0.0.1', port: await freePort() };
    const opened = Promise.withResolvers<ByteStream>();
    const host: LinkHost = {
      hello: () => hello('a'),
      admit: { alone() {}, copy() {} },
      open: { alone() {}, copy: (stream) => opened.resolve(stream) },
    };
    const listener = await listenLink(listen, new SlabPool(256 * 1024, 8), host, primary);
    const dialled = await dialStream(
      { ...listen, mode: 'connect' },
      new SlabPool(256 * 1024, 8),
      hello('b'),
      candidate,
    );
    dialled.write(Buffer.from('greeting'), () => {});
    const stream = await opened.promise;
    await sleep(100);
    const first = Buffer.alloc(5);
    let have = 0;
    const half = Promise.withResolvers<void>();
    stream.start({
      buffer: () => (have < first.length ? first.subarray(have) : null),
      read: (bytes) => {
        have += bytes;
        if (have === first.length) half.resolve();
      },
      closed: () => {},
    });
    await Promise.race([half.promise, sleep(2000, undefined, { ref: false })]);
    assert.equal(first.toString(), 'greet');
    dialled.write(Buffer.from(' more'), () => {});
    await sleep(50);
    const rest = Buffer.alloc(64);
    const texts: string[] = [];
    const all = Promise.withResolvers<void>();
    stream.start({
      buffer: () => rest,
      read: (bytes) => {
        texts.push(rest.toString('utf8', 0, bytes));
        if (texts.join('').length === 8) all.resolve();
      },
      closed: () => {},
    });
    await Promise.race([all.promise, sleep(2000, undefined, { ref: false })]);
    assert.equal(texts.join(''), 'ing more');
    stream.close();
    dialled.close();
    await listener.close();
  });
}
