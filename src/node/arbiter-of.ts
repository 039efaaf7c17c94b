/** The arbiter that a node's configuration names. */
import type { NodeConfig } from '../config/node-config.ts';
import type { Arbiter } from '../pair/arbiter.ts';
import { DirectoryArbiter } from '../pair/directory-arbiter.ts';
import { EtcdArbiter } from '../pair/etcd/etcd-arbiter.ts';

/** Throws COLO_SECRET_FILE or COLO_ARBITER_TLS if a file that it names cannot be used. */
export function arbiterOf({ arbiter, pair }: NodeConfig): Arbiter {
  if (arbiter.kind === 'directory') return new DirectoryArbiter(arbiter.directory);
  const { prefix, ...options } = arbiter.etcd;
  return new EtcdArbiter({ ...options, key: `${prefix}${pair}` });
}
