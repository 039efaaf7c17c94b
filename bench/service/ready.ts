/** What rows need of the guest, and when it has it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Target } from '../../lab/clients/net.ts';
import type { ServiceName } from '../../lab/services/image.ts';
import { ColoError, messageOf } from '../../src/error.ts';
import type { Client } from './clients.ts';
import type { Machine } from './columns.ts';
import { type Around, clientsOf, rowOf } from './rows.ts';
import { READY_MS_MAX } from './side.ts';

const POLL_MS = 200;

export function machineFor(rows: readonly string[], processors: number): Machine {
  const services = rows.flatMap((name) => clientsOf(rowOf(name)).map(({ service }) => service));
  return { processors, postgres: services.includes('postgres') };
}

/** Resolves when a client of each row has had a reply. Throws COLO_LAB_GUEST for one that has none in time. */
export async function untilReplies(
  rows: readonly string[],
  target: (service: ServiceName) => Target,
  around: Around,
): Promise<void> {
  for (const name of rows)
    for (const { service, open } of clientsOf(rowOf(name)))
      await untilReply(() => open(target(service), 0, around));
}

async function untilReply(open: () => Promise<Client>): Promise<void> {
  const endMs = performance.now() + READY_MS_MAX;
  for (;;) {
    try {
      const client = await open();
      try {
        await client.request();
        return;
      } finally {
        // A client that is left keeps this process from its end.
        client.close();
      }
    } catch (cause) {
      if (performance.now() > endMs)
        throw new ColoError('COLO_LAB_GUEST', `the guest's service does not reply: ${messageOf(cause)}`, {
          cause,
        });
      await sleep(POLL_MS);
    }
  }
}
