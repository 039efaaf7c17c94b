/**
 * Which cluster the endpoints belong to. A wrong endpoint of another cluster replies just as politely, and has no record of the
 * pair: a node that believed it would start a second VM. So a cluster is known once more than half of the endpoints belong to it;
 * half are enough if all others fail and none belongs to another one.
 */
import { ColoError } from '../../error.ts';
import type { Timers } from '../../io/clock.ts';
import type { EtcdMember } from './member.ts';
import { statusRequest } from './requests.ts';

type Seen = { readonly member: EtcdMember; readonly cluster: string };

/** Returns the cluster_id. Rejects with COLO_ARBITER_CLUSTER, or as `failureOf` words that too few reply. */
export function learnCluster(
  members: readonly EtcdMember[],
  failureOf: (failures: readonly (ColoError | null)[]) => ColoError,
  deadlineMs: number,
  timers: Timers,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const ending = new AbortController();
    const seen: Seen[] = [];
    const failures: (ColoError | null)[] = members.map(() => null);
    let pending = members.length;
    const end = (): void => {
      cancel();
      ending.abort();
    };
    const decide = (): void => {
      const clusters = new Set(seen.map(({ cluster }) => cluster));
      if (clusters.size > 1) reject(severalClusters(seen));
      else if (2 * seen.length >= members.length) resolve(seen[0].cluster);
      else reject(failureOf(failures));
      end();
    };
    const cancel = timers.after(deadlineMs, decide);
    for (const [place, member] of members.entries()) {
      member.askAnybody(statusRequest(), ending.signal).then(
        ({ header }) => {
          if (ending.signal.aborted) return;
          seen.push({ member, cluster: header.cluster });
          pending--;
          const same = seen.filter(({ cluster }) => cluster === header.cluster).length;
          if (2 * same > members.length) {
            resolve(header.cluster);
            end();
          } else if (pending === 0) decide();
        },
        (cause: unknown) => {
          if (ending.signal.aborted) return;
          failures[place] = cause instanceof ColoError ? cause : null;
          if (--pending === 0) decide();
        },
      );
    }
  });
}

function severalClusters(seen: readonly Seen[]): ColoError {
  const each = seen.map(({ member, cluster }) => `${member.name} belongs to ${clusterName(cluster)}`);
  return new ColoError(
    'COLO_ARBITER_CLUSTER',
    `the endpoints are of several etcd clusters: ${each.join(', ')}; give those of one`,
  );
}

/** As etcdctl prints it. */
export function clusterName(cluster: string): string {
  return `cluster ${BigInt(cluster).toString(16)}`;
}
