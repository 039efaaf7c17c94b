/** The process that receives: `receiver.ts KIND PORT FOLDER`. Notifies its parent of each message: ready, and what it has received. */
import type { LinkKind } from '../../lab/pair.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { LIMITS } from '../../src/limits.ts';
import { IGNORE_LINK } from '../../src/link/link-channel.ts';
import { type LinkHost, listenLink } from '../../src/link/link-setup.ts';
import { endpointOf, helloOf, surroundingsOf } from './ends.ts';

export type Received = { readonly frames: number; readonly processorUs: number };

const [kind, port, folder] = process.argv.slice(2);
let frames = 0;

const host: LinkHost = {
  hello: () => helloOf('a'),
  admit: { alone() {}, copy() {} },
  open: {
    alone: (link) =>
      link.listen({
        ...IGNORE_LINK,
        input() {
          frames++;
        },
        heartbeat() {
          const { user, system } = process.cpuUsage();
          process.send?.({ frames, processorUs: user + system } satisfies Received);
        },
      }),
    copy() {},
  },
};

const slabs = new SlabPool(LIMITS.slabBytes, LIMITS.slabsMax);
await listenLink(
  endpointOf('listen', Number(port)),
  slabs,
  host,
  surroundingsOf(kind as LinkKind, 'a', folder),
);
process.send?.('ready');
process.once('disconnect', () => process.exit());
