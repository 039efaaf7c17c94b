/** What the clients of a row saw of a failover in the middle of their work. */
import { Arrivals, blackout } from '../../lab/clients/gaps.ts';
import { BrokenConnection, monotonicMs } from '../../lab/clients/net.ts';
import { messageOf } from '../../src/error.ts';
import { spread } from '../bench.ts';
import type { Client } from '../service/clients.ts';

/** Of one client, whichever connections it used; times by monotonicMs. */
export class Seen {
  readonly replies = new Arrivals();
  readonly requests: { readonly sentMs: number; readonly repliedMs: number }[] = [];
  readonly failures: { readonly why: string; readonly broken: boolean }[] = [];

  /** Returns the client, with each of its requests written down here. */
  of(client: Client): Client {
    return { ...client, request: () => this.note(client) };
  }

  private async note(client: Client): Promise<void> {
    const sentMs = monotonicMs();
    try {
      await client.request();
    } catch (error) {
      this.failures.push({ why: messageOf(error), broken: error instanceof BrokenConnection });
      throw error;
    }
    const repliedMs = monotonicMs();
    this.replies.arrive(repliedMs);
    this.requests.push({ sentMs, repliedMs });
  }
}

export type SeenFigures = {
  /** requests that were answered before the primary's machine died, had been sent but not answered, and were sent later */
  readonly before: number;
  readonly underWay: number;
  readonly after: number;
  /** the median latency of those before, in ms; null without any */
  readonly p50: number | null;
  /** the longest time between two replies to one client around the failover, in ms */
  readonly gapMs: number;
  readonly failed: number;
  /** connections that ended before their client had closed them */
  readonly broken: number;
};

export function figuresOf(seen: readonly Seen[], killMs: number): SeenFigures {
  const requests = seen.flatMap((one) => one.requests);
  const failures = seen.flatMap((one) => one.failures);
  const before = requests.filter(({ repliedMs }) => repliedMs <= killMs);
  const after = requests.filter(({ sentMs }) => sentMs > killMs);
  const clients = Object.fromEntries(seen.map(({ replies }, index) => [String(index), replies]));
  const longest = blackout(clients, killMs, monotonicMs());
  return {
    before: before.length,
    underWay: requests.length - before.length - after.length,
    after: after.length,
    p50: before.length === 0 ? null : spread(before.map(({ sentMs, repliedMs }) => repliedMs - sentMs)).p50,
    gapMs: longest?.gap.ms ?? 0,
    failed: failures.length,
    broken: failures.filter(({ broken }) => broken).length,
  };
}
