/**
 * What QMP says of a VM's block nodes, jobs and connections: the replies, read once and checked.
 *
 * Each disk is a quorum under the guest's device (disk/nodes.ts). Its children change with the role of the VM:
 *   alone       [parent]
 *   primary     [parent, leader -> remote]   the leader sends each write to the secondary's image
 *   secondary   [follower -> active -> hidden -> parent]
 *   promoted    [follower -> parent], once QEMU has written the overlays into the image
 */
import { isObject, type JsonObject, QMP_TIMEOUT_MS, type Qmp } from './qmp.ts';

/** Children of the block nodes that have a name: each child's name in its parent, and its node. */
export type BlockChildren = ReadonlyMap<string, readonly { readonly child: string; readonly node: string }[]>;

/** Asks for the block nodes. */
export async function queryBlockNodes(qmp: Qmp, timeoutMs: number): Promise<BlockChildren> {
  const reply = await qmp.execute('query-named-block-nodes', { flat: true }, { timeoutMs });
  const nodes = new Map<string, { child: string; node: string }[]>();
  for (const entry of objects(reply)) {
    const name = entry['node-name'];
    if (typeof name !== 'string') continue;
    nodes.set(
      name,
      objects(entry.children).map((one) => ({ child: String(one.child), node: String(one['node-name']) })),
    );
  }
  return nodes;
}

/** A mirror job. */
export type DiskJob = {
  readonly id: string;
  readonly isReady: boolean;
  /** every write of the guest goes to both images, and nothing else is to be copied */
  readonly isSynced: boolean;
  readonly doneBytes: number;
  readonly totalBytes: number;
};

/** Asks for the jobs that are not over. */
export async function queryJobs(qmp: Qmp, timeoutMs = QMP_TIMEOUT_MS): Promise<ReadonlyMap<string, DiskJob>> {
  const jobs = new Map<string, DiskJob>();
  for (const job of objects(await qmp.execute('query-block-jobs', undefined, { timeoutMs }))) {
    const id = String(job.device);
    const doneBytes = Number(job.offset);
    const totalBytes = Number(job.len);
    jobs.set(id, {
      id,
      isReady: job.ready === true,
      isSynced: job.ready === true && job['actively-synced'] === true && doneBytes === totalBytes,
      doneBytes,
      totalBytes,
    });
  }
  return jobs;
}

/** Asks, out of band, which of these block nodes have a connection that `yank` breaks, and for the migration's. */
export async function queryYank(
  qmp: Qmp,
  nodes: readonly string[],
  timeoutMs: number,
): Promise<JsonObject[]> {
  const reply = await qmp.executeOob('query-yank', undefined, { timeoutMs });
  return objects(reply).filter(
    (one) =>
      one.type === 'migration' || (one.type === 'block-node' && nodes.includes(String(one['node-name']))),
  );
}

function objects(reply: unknown): JsonObject[] {
  return Array.isArray(reply) ? reply.filter((one) => isObject(one)) : [];
}
