/**
 * Every fourth world has rules in its nodes' configuration: one exempts a client host, whose service's replies always differ; one
 * delays the checkpoints of that service for all other clients. Both nodes have the same rules, or the world has none.
 *
 * All of it is drawn from a die of its own: what a seed means otherwise does not depend on it.
 */
import { Die } from './guest/die.ts';
import { SERVICE } from './guest/guest.ts';
import { TimeClient } from './guest/line-clients.ts';
import { GUEST_ADDRESS4, type HostSpec, hostAt } from './guest/mix.ts';

export type Ruled = {
  /** Whether the exempt rule names the service, or all that the client exchanges; null: no such rule and host. */
  readonly exempt: 'service' | 'client' | null;
  /** null: no such rule */
  readonly intervalMs: number | null;
  readonly clients: number;
};

const SEED_SALT = 0x081e4535;
const FROM_MS = 2000;
const REQUESTS = 300;
/** Longer than the longest wait without rules (rules/progress.ts), and short enough for clients that rest. */
const INTERVAL_MS = 1600;
/** The service whose replies always differ. */
export const RULED_PORT = SERVICE.time;
/** The last byte of the exempt client's address: of no other host. */
export const EXEMPT_HOST = 202;

export function drawRuled(seed: number): Ruled | null {
  const die = new Die(seed ^ SEED_SALT);
  if (!die.chance(0.25)) return null;
  const exempt = die.chance(0.7) ? die.pick(['service', 'client'] as const) : null;
  return {
    exempt,
    intervalMs: exempt === null || die.chance(0.6) ? die.pick([200, INTERVAL_MS]) : null,
    clients: die.within(1, 3),
  };
}

/** Returns each rule as YAML, for a node with this longest time between checkpoints. */
export function rulesOf(ruled: Ruled | null, intervalMsMax: number): string[] {
  if (ruled === null) return [];
  const client = `10.0.2.${EXEMPT_HOST}`;
  const rules: string[] = [];
  if (ruled.exempt === 'client') rules.push(`{ match: { client: ${client} }, exempt: true }`);
  if (ruled.exempt === 'service')
    rules.push(`{ match: { client: ${client}, tcp: ${RULED_PORT} }, exempt: true }`);
  if (ruled.intervalMs !== null)
    rules.push(
      `{ match: { tcp: ${RULED_PORT} }, intervalMsMin: ${Math.min(ruled.intervalMs, intervalMsMax)} }`,
    );
  return rules;
}

/** Returns the host of the exempt clients. After a failover anything may happen to them: nobody judges what they find. */
export function exemptHost({ clients: count }: Ruled): HostSpec {
  const clients = Array.from({ length: count }, (_, i) => {
    return new TimeClient({
      name: `exempt ${i}`,
      address: GUEST_ADDRESS4,
      startMs: FROM_MS,
      requests: REQUESTS,
      restMsMax: 200,
    });
  });
  return hostAt(EXEMPT_HOST, '202', clients);
}
