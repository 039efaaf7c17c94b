/** The configuration of a node in a world. */
import { type NodeConfig, parseNodeConfig } from '../../src/config/node-config.ts';
import type { Side } from './faults.ts';
import type { Die } from './guest/die.ts';
import { type Ruled, rulesOf } from './ruled.ts';
import { UPLINK_PATH, type Uplinks } from './uplinks.ts';

export type Settings = {
  readonly waits: string;
  readonly ruled: Ruled | null;
  readonly rules: readonly string[];
  readonly uplinks: Uplinks | null;
};

/** Parsing takes longer than a short world's whole start. */
const parsed = new Map<string, NodeConfig>();

/**
 * `waits` of a checkpoint's settings as YAML, empty for the defaults; rules for flows, those that were drawn and others as YAML.
 * The link's network is the simulator's: nobody reads the files of `tls`, which the hosts' names only demand.
 */
export function configOf(side: Side, die: Die, { waits, ruled, rules, uplinks }: Settings): NodeConfig {
  const intervalMsMax = die.pick([500, 2000, 5000]);
  const other = side === 'a' ? 'b' : 'a';
  const yields = uplinks === null ? '' : `, failover: true, awayMsMax: ${uplinks.awayMsMax}`;
  const text = `
node: ${side}
pair: sim
link: { listen: "tcp-listen:${side}:7000", peer: "tcp:${other}:7000", tls: { ca: ca, certificate: own, key: key } }
uplink: { socket: "unix:${UPLINK_PATH}"${yields} }
arbiter: { directory: /arbiter }
vm: { command: [qemu], args: [], mac: "52:54:00:12:34:56", addresses: ["10.0.2.15", "fd00::15"] }
runDirectory: /run/${side}
checkpoint: { intervalMsMax: ${intervalMsMax}${waits} }
rules: [ ${[...rules, ...rulesOf(ruled, intervalMsMax)].join(', ')} ]
`;
  let config = parsed.get(text);
  if (config === undefined) {
    config = parseNodeConfig(text, '/sim.yaml');
    parsed.set(text, config);
  }
  return config;
}
