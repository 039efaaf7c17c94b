import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { SlabPool } from '../../src/frames/slabs.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import { LIMITS } from '../../src/limits.ts';
import { type Hello, LINK_VERSION } from '../../src/link/link-protocol.ts';
import { type LinkSurroundings, listenLink } from '../../src/link/link-setup.ts';
import { TlsConnections } from '../../src/link/tls-connections.ts';
import type { NodeParts } from '../../src/node/parts.ts';
import { findTwin } from '../../src/node/twin.ts';
import { credentialsOf, newCa } from '../link/certificates.ts';
import { tempFolder } from '../temp-folder.ts';

const hello = (node: string, channel: Hello['channel'], role: Hello['role']): Hello => ({
  version: LINK_VERSION,
  channel,
  pair: 'web',
  node,
  generation: 1,
  role,
  leaseMs: 250,
});

const ca = await newCa();
const folder = tempFolder();
let folders = 0;

/** The link inside TLS, as `node` of the pair. */
async function insideTls(node: string): Promise<LinkSurroundings> {
  const credentials = await credentialsOf(join(folder, `${folders++}`), ca, { pair: 'web', node });
  const transports = new TlsConnections({ credentials, wall: () => Date.now(), refused() {} });
  return { ...systemSurroundings, transports };
}

for (const [name, wanted] of [
  ['a', /^COLO_LINK_TWIN: a node that calls itself "a", as this one, runs at link\.peer/],
  ['b', null],
] as const)
  for (const [how, linkOf] of [
    ['', async () => systemSurroundings],
    [', inside TLS', insideTls],
  ] as const)
    test(`a node "a" whose peer is "${name}"${how}`, async (t) => {
      const slabs = new SlabPool(LIMITS.slabBytes, 16);
      const peer = { kind: 'unix', mode: 'listen', path: join(tempFolder(t), 'peer') } as const;
      const refuse = () => assert.fail('a node that only asks was admitted');
      const host = {
        hello: (channel: Hello['channel']) => hello(name, channel, 'primary'),
        admit: { alone: refuse, copy: refuse },
        open: { alone: refuse, copy: refuse },
      };
      const listener = await listenLink(peer, slabs, host, await linkOf(name));
      t.after(() => listener.close());
      const parts = {
        config: { node: 'a', link: { peer: { ...peer, mode: 'connect' } } },
        hello: (channel: Hello['channel'], role: Hello['role']) => hello('a', channel, role),
        link: await linkOf('a'),
        slabs,
      } as unknown as NodeParts;
      const found = await findTwin(parts);
      if (wanted === null) assert.equal(found, null);
      else assert.match(found ?? '', wanted);
    });

test('a peer that is not reached is no twin', async () => {
  const parts = {
    config: { node: 'a', link: { peer: { kind: 'unix', mode: 'connect', path: '/no/such/socket' } } },
    hello: (channel: Hello['channel'], role: Hello['role']) => hello('a', channel, role),
    link: systemSurroundings,
    slabs: new SlabPool(LIMITS.slabBytes, 16),
  } as unknown as NodeParts;
  assert.equal(await findTwin(parts), null);
});
