/** A node's own HELLO. */
import type { NodeConfig } from '../config/node-config.ts';
import { type Hello, LINK_VERSION } from '../link/link-protocol.ts';
import { TAKES_SUMMARY } from '../link/summary-message.ts';

/** `generation`: what this node believes to be the record's. */
export function helloOf(
  { pair, node, heartbeat }: NodeConfig,
  generation: number,
  { channel, role }: Pick<Hello, 'channel' | 'role'>,
): Hello {
  const { leaseMs } = heartbeat;
  return {
    version: LINK_VERSION,
    channel,
    pair,
    node,
    generation,
    role,
    leaseMs,
    takes: [TAKES_SUMMARY],
  };
}
