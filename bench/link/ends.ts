/** One end of a link without a node, for the process that sends frames and for the one that receives them. */
import { join } from 'node:path';
import type { LinkKind } from '../../lab/pair.ts';
import { makeCertificates } from '../../src/cli/certs.ts';
import type { Endpoint } from '../../src/endpoint.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import { loadCredentials } from '../../src/link/credentials.ts';
import { type Hello, LINK_VERSION } from '../../src/link/link-protocol.ts';
import type { LinkSurroundings } from '../../src/link/link-setup.ts';
import { TlsConnections } from '../../src/link/tls-connections.ts';

const PAIR = 'bench';

export async function makeBenchCertificates(folder: string): Promise<void> {
  await makeCertificates({ pair: PAIR, nodes: ['a', 'b'], out: folder, days: 1 }, Date.now());
}

export function surroundingsOf(kind: LinkKind, node: 'a' | 'b', folder: string): LinkSurroundings {
  const { timers, transports } = systemSurroundings;
  if (kind === 'plain') return { timers, transports };
  const files = {
    ca: join(folder, 'ca.crt'),
    certificate: join(folder, `${node}.crt`),
    key: join(folder, `${node}.key`),
  };
  const credentials = loadCredentials(files, { pair: PAIR, node });
  return {
    timers,
    transports: new TlsConnections({
      credentials,
      wall: () => Date.now(),
      refused: ({ cause }) => {
        throw cause;
      },
    }),
  };
}

export function helloOf(node: 'a' | 'b'): Hello {
  const role = node === 'a' ? 'primary' : 'candidate';
  return { version: LINK_VERSION, channel: 'data', pair: PAIR, node, generation: 1, role, leaseMs: 250 };
}

export function endpointOf(mode: 'listen' | 'connect', port: number): Endpoint {
  return { kind: 'tcp', mode, host: '127.0.0.1', port };
}
