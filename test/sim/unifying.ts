/**
 * Every sixth world has clients of a web service whose replies differ in the time of their header, and often in nothing else; in most of
 * these, a rule lets that differ.
 *
 * All of it is drawn from a die of its own: what a seed means otherwise does not depend on it.
 */
import { Die } from './guest/die.ts';
import { GUEST_ADDRESS4, GUEST_ADDRESS6, type HostSpec, hostAt } from './guest/mix.ts';
import { WEB_PORT, WebClient } from './guest/web.ts';

export type Unifying = {
  readonly rule: 'unify' | 'none';
  readonly clients: number;
  readonly restMsMax: number;
  readonly ackDelayMsMax: number;
  readonly splitChance: number;
  /** For so long nobody hears them when a node ends: what they were sent last they do not acknowledge. */
  readonly unheardMs: number;
};

/** Of a node's configuration, as YAML. */
export const UNIFY_RULE = `{ match: { tcp: ${WEB_PORT} }, unify: http-date }`;

const SEED_SALT = 0x27d4eb2f;
const FROM_MS = 2000;
const REQUESTS = 400;

export function drawUnifying(seed: number): Unifying | null {
  const die = new Die(seed ^ SEED_SALT);
  if (!die.chance(1 / 6)) return null;
  return {
    rule: die.chance(0.85) ? 'unify' : 'none',
    clients: die.within(1, 3),
    restMsMax: die.pick([40, 100, 400]),
    ackDelayMsMax: die.pick([0, 40, 200]),
    splitChance: die.pick([0, 0.1]),
    unheardMs: die.pick([0, 1500, 3000, 8000]),
  };
}

/** The host of these clients, as faults reach it. */
export class Web {
  readonly host: HostSpec | null;
  private readonly clients: readonly WebClient[];
  readonly unheardMs: number;
  private unheardUntilMs = 0;

  constructor(drawn: Unifying | null) {
    this.clients = drawn === null ? [] : Array.from({ length: drawn.clients }, (_, i) => webClient(drawn, i));
    this.host = drawn === null ? null : hostOf(drawn, this.clients);
    this.unheardMs = drawn?.unheardMs ?? 0;
  }

  /** All of them ask now. */
  hurry(): void {
    for (const client of this.clients) client.hurry();
  }

  /** A node ends. */
  lose(nowMs: number): void {
    this.unheardUntilMs = nowMs + this.unheardMs;
  }

  isHeard(nowMs: number): boolean {
    return nowMs >= this.unheardUntilMs;
  }
}

function webClient({ restMsMax }: Unifying, i: number): WebClient {
  return new WebClient({
    name: `web ${i}`,
    address: i === 0 ? GUEST_ADDRESS4 : GUEST_ADDRESS6,
    startMs: FROM_MS,
    requests: REQUESTS,
    requestsPerConnection: 50,
    depth: i === 2 ? 2 : 1,
    restMsMax,
  });
}

function hostOf({ ackDelayMsMax, splitChance }: Unifying, clients: readonly WebClient[]): HostSpec {
  return hostAt(203, '203', clients, { ackDelayMsMax, splitChance });
}
