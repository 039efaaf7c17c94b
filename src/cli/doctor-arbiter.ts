/** What `colo doctor` checks of the arbiter: the file system of a directory; each member of an etcd, and all of them together. */
import { statfsSync } from 'node:fs';
import type { EtcdConfig } from '../config/arbiter.ts';
import type { NodeConfig } from '../config/node-config.ts';
import { ColoError, errorText } from '../error.ts';
import { arbiterOf } from '../node/arbiter-of.ts';
import type { Stored } from '../pair/arbiter.ts';
import { clusterName } from '../pair/etcd/cluster.ts';
import { membersOf } from '../pair/etcd/etcd-arbiter.ts';
import type { EtcdMember } from '../pair/etcd/member.ts';
import { type MemberStatus, statusRequest } from '../pair/etcd/requests.ts';
import { type Check, good, problem, warning } from './check.ts';

/** Longer than a node waits: a slow member is better seen than given up. */
const MEMBER_MS_MAX = 3000;
/** A cluster with fewer members stops with one of them. */
const MEMBERS_MIN = 3;

/** The types of statfs(2) of file systems that another machine serves: their hard links and flushes may mean less. */
const NETWORK_FILE_SYSTEMS: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xfe534d42, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0x00c36400, 'Ceph'],
  [0x5346414f, 'AFS'],
  [0x6b414653, 'AFS'],
  [0x73757245, 'Coda'],
  [0x01021997, '9P'],
  [0x0bd00bd0, 'Lustre'],
  [0x47504653, 'GPFS'],
  [0x01161970, 'GFS2'],
  [0x7461636f, 'OCFS2'],
  [0x786f4256, 'a shared folder of VirtualBox'],
]);
/** sshfs, GlusterFS and virtiofs have it, and file systems of this machine as well. */
const FUSE = 0x65735546;

/** Returns a check if the file system of `path` is none for an arbiter's directory, or may be none. */
export function checkFileSystem(
  name: string,
  path: string,
  typeOf: (path: string) => number = (folder) => statfsSync(folder).type,
): Check | null {
  // A 32-bit number, whose sign depends on the machine.
  const type = typeOf(path) >>> 0;
  const network = NETWORK_FILE_SYSTEMS.get(type);
  const advice = 'the directory is for two nodes on one machine: use its own disk, or etcd for two hosts';
  if (network !== undefined) return problem(name, `${path} is on a network file system (${network})`, advice);
  if (type === FUSE)
    return warning(name, `${path} is on a FUSE file system, which may be of a network`, advice);
  return null;
}

/** Asks each member who it is, and all of them together whether a change could be made now. */
export async function checkEtcd(config: NodeConfig, etcd: EtcdConfig): Promise<Check[]> {
  let members: EtcdMember[];
  try {
    members = membersOf(etcd);
  } catch (cause) {
    return [problem('arbiter', errorText(cause), adviceOf(cause))];
  }
  const replies = await Promise.all(members.map(memberStatus));
  for (const member of members) member.close();
  const clusters = new Set(
    replies.flatMap((reply) => (reply instanceof ColoError ? [] : [reply.header.cluster])),
  );
  return [
    ...members.map((member, place) => memberCheck(member, replies[place])),
    ...(clusters.size > 1
      ? [problem('etcd', 'the endpoints are of several clusters', 'give the members of one')]
      : []),
    ...checkSafety(etcd),
    await checkChange(config),
  ];
}

async function memberStatus(member: EtcdMember): Promise<MemberStatus | ColoError> {
  const signal = AbortSignal.timeout(MEMBER_MS_MAX);
  try {
    return await member.askAnybody(statusRequest(), signal);
  } catch (cause) {
    if (signal.aborted)
      return new ColoError('COLO_ARBITER_UNREACHABLE', `${member.name}: no reply within ${MEMBER_MS_MAX} ms`);
    return cause instanceof ColoError ? cause : new ColoError('COLO_ARBITER_UNREACHABLE', errorText(cause));
  }
}

function memberCheck(member: EtcdMember, reply: MemberStatus | ColoError): Check {
  if (reply instanceof ColoError) return problem('etcd', errorText(reply), adviceOf(reply));
  const { header, version, hasLeader, alarms } = reply;
  const found = `${member.name}: etcd ${version}, ${clusterName(header.cluster)}`;
  if (!hasLeader)
    return problem('etcd', `${found}, WITHOUT QUORUM`, 'start the other members, and see their logs');
  if (alarms.length > 0) return problem('etcd', `${found}, ${alarms.join(', ')}`, 'see "etcdctl alarm list"');
  return good('etcd', found);
}

/** What is weaker than it could be. */
function checkSafety({ endpoints, user }: EtcdConfig): Check[] {
  const checks: Check[] = [];
  if (endpoints.length < MEMBERS_MIN)
    checks.push(
      warning(
        'etcd',
        `${endpoints.length === 1 ? 'one endpoint' : 'two endpoints'}`,
        'give all members, three or more, on hosts of their own: an arbiter has to outlive either node',
      ),
    );
  const open = endpoints.find((endpoint) => endpoint.startsWith('http:') && !isOnLoopback(endpoint));
  if (open !== undefined)
    checks.push(
      warning(
        'etcd',
        `${open} has no TLS`,
        `who can write to that network decides who speaks${user === null ? '' : ', and reads the password'}; use https://`,
      ),
    );
  return checks;
}

async function checkChange(config: NodeConfig): Promise<Check> {
  const beginMs = performance.now();
  let stored: Stored;
  try {
    const arbiter = arbiterOf(config);
    try {
      stored = await arbiter.probe();
    } finally {
      arbiter.close();
    }
  } catch (cause) {
    return problem('arbiter', errorText(cause), adviceOf(cause));
  }
  const ms = Math.ceil(performance.now() - beginMs);
  return good('arbiter', `etcd can be read and written, in ${ms} ms; it has ${describe(stored)}`);
}

function describe({ record }: Stored): string {
  if (record === null) return 'no record of this pair';
  const { generation, state, primary, secondary } = record;
  const who = {
    alone: `${primary} alone`,
    pair: `a pair of ${primary} and ${secondary}`,
    fencing: `${primary}, which fences ${secondary}`,
  };
  return `generation ${generation}, ${who[state]}`;
}

function isOnLoopback(endpoint: string): boolean {
  const { hostname } = new URL(endpoint);
  return hostname === 'localhost' || hostname === '[::1]' || hostname.startsWith('127.');
}

function adviceOf(cause: unknown): string {
  const code = cause instanceof ColoError ? cause.code : '';
  switch (code) {
    case 'COLO_SECRET_FILE':
      return 'correct that file';
    case 'COLO_ARBITER_UNREACHABLE':
      return 'start etcd there, or correct arbiter.etcd.endpoints; without a quorum etcd does not reply';
    default:
      return 'see docs/errors.md';
  }
}
