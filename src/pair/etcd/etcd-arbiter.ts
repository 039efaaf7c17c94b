/**
 * The arbiter for two hosts: one key in etcd, whose value is the pair's record and whose mod_revision is its revision.
 *
 * A change is one transaction that compares the mod_revision, so of two nodes exactly one wins. Reads are linearizable. No lease of
 * etcd's is needed: the pair's own lease says when a node may claim.
 *
 * A question goes to the members in turn (in-turn.ts), first to the one that replied last, and has a deadline far below the seven
 * seconds after which etcd itself gives up. **Only a reply says anything**: etcd may carry out a transaction after it has reported an
 * error, and after we have given it up; then its compare is judged as of that time. A question that is asked twice is therefore
 * the same one: each change carries a claim of its own, and whoever finds that claim stored has won.
 *
 * Refused: replies of another cluster, of a store that is older than one seen before (a backup), and values that are not ours.
 * Failure: a ColoError with a code that begins with COLO_ARBITER_; the outcome of a change is then unknown.
 */
import { randomUUID } from 'node:crypto';
import { ColoError } from '../../error.ts';
import { systemTimers, type Timers } from '../../io/clock.ts';
import type { Arbiter, PairRecord, Stored } from '../arbiter.ts';
import { clusterName, learnCluster } from './cluster.ts';
import { EtcdHttp, type TlsFiles, TlsSecrets } from './http.ts';
import { askInTurn } from './in-turn.ts';
import { EtcdMember, EtcdUser } from './member.ts';
import {
  changeRequest,
  decodeValue,
  type EtcdRequest,
  encodeValue,
  type Header,
  type Held,
  probeRequest,
  readRequest,
  type StoredValue,
} from './requests.ts';

export type EtcdOptions = {
  /** As in https://10.0.0.1:2379. */
  readonly endpoints: readonly string[];
  readonly key: string;
  readonly tls: TlsFiles;
  readonly user: { readonly name: string; readonly passwordFile: string } | null;
  readonly timers?: Timers;
};

/** Three times a write to a slow disk, and far below etcd's own seven seconds. */
export const QUESTION_MS_MAX = 1500;
/** Several times what a healthy member takes, and little of a failover. */
const PATIENCE_MS = 100;

/** From what an operator has to do most about, on. */
const CODES_BY_RANK = [
  'COLO_ARBITER_CLUSTER',
  'COLO_ARBITER_AUTH',
  'COLO_ARBITER_TLS',
  'COLO_ARBITER_VERSION',
  'COLO_ARBITER_NOT_ETCD',
  'COLO_ARBITER_SPACE',
] as const;

export class EtcdArbiter implements Arbiter {
  private readonly members: readonly EtcdMember[];
  private readonly key: string;
  private readonly timers: Timers;
  /** asked first */
  private preferred = 0;
  private cluster: Promise<string> | null = null;
  /** the newest revision of the store that a reply had */
  private seenRevision = 0;

  /** Throws COLO_SECRET_FILE or COLO_ARBITER_TLS if a file of the options cannot be used. */
  constructor(options: EtcdOptions) {
    this.members = membersOf(options);
    this.key = options.key;
    this.timers = options.timers ?? systemTimers;
  }

  async read(): Promise<Stored> {
    const { held } = await this.ask(readRequest(this.key));
    return this.storedIn(held);
  }

  async compareAndSwap(revision: number, record: PairRecord): Promise<Stored & { won: boolean }> {
    const claim = randomUUID();
    const { succeeded, held } = await this.ask(
      changeRequest(this.key, revision, encodeValue({ claim, record })),
    );
    if (succeeded) return { revision: held.revision, record, won: true };
    const value = this.decode(held);
    return { revision: held.revision, record: value?.record ?? null, won: value?.claim === claim };
  }

  async probe(): Promise<Stored> {
    const { held } = await this.ask(probeRequest(this.key));
    return this.storedIn(held);
  }

  close(): void {
    for (const member of this.members) member.close();
  }

  private async ask<Reply extends { readonly header: Header }>(request: EtcdRequest<Reply>): Promise<Reply> {
    const cluster = await this.knownCluster();
    const { preferred, seenRevision } = this;
    const members = [...this.members.slice(preferred), ...this.members.slice(0, preferred)];
    const outcome = await askInTurn(
      members.map((member) => async (signal) => {
        const reply = await member.ask(request, signal);
        checkHeader(member, reply.header, cluster, seenRevision);
        return reply;
      }),
      { patienceMs: PATIENCE_MS, deadlineMs: QUESTION_MS_MAX, timers: this.timers },
    );
    if (outcome.kind === 'none') throw failureOf(members, outcome.failures);
    this.preferred = (preferred + outcome.by) % this.members.length;
    this.seenRevision = Math.max(this.seenRevision, outcome.value.header.revision);
    return outcome.value;
  }

  private async knownCluster(): Promise<string> {
    const { members, timers } = this;
    this.cluster ??= learnCluster(
      members,
      (failures) => failureOf(members, failures),
      QUESTION_MS_MAX,
      timers,
    );
    try {
      return await this.cluster;
    } catch (cause) {
      this.cluster = null;
      throw cause;
    }
  }

  private storedIn(held: Held): Stored {
    return { revision: held.revision, record: this.decode(held)?.record ?? null };
  }

  private decode({ value }: Held): StoredValue | null {
    if (value === null) return null;
    try {
      return decodeValue(value);
    } catch (cause) {
      throw new ColoError(
        'COLO_ARBITER_RECORD',
        `the key ${this.key} in etcd holds something other than a record of this version of colo-proxy; give another arbiter.etcd.prefix`,
        { cause },
      );
    }
  }
}

/** Returns the members that the options name. Throws COLO_SECRET_FILE or COLO_ARBITER_TLS. */
export function membersOf({ endpoints, tls, user }: Omit<EtcdOptions, 'key'>): EtcdMember[] {
  const urls = endpoints.map((endpoint) => new URL(endpoint));
  const secrets = urls.some(({ protocol }) => protocol === 'https:') ? new TlsSecrets(tls) : null;
  const etcdUser = user === null ? null : new EtcdUser(user.name, user.passwordFile);
  return urls.map((url) => {
    const own = url.protocol === 'https:' ? secrets : null;
    return new EtcdMember(new EtcdHttp(url, own), own, etcdUser);
  });
}

function checkHeader(member: EtcdMember, header: Header, cluster: string, seenRevision: number): void {
  if (header.cluster !== cluster)
    throw new ColoError(
      'COLO_ARBITER_CLUSTER',
      `${member.name} belongs to etcd's ${clusterName(header.cluster)}, the others to ${clusterName(cluster)}; correct arbiter.etcd.endpoints`,
    );
  if (header.revision < seenRevision)
    throw new ColoError(
      'COLO_ARBITER_CLUSTER',
      `${member.name} is at revision ${header.revision} and was at ${seenRevision}: etcd was set up again or restored from a backup, and its record may be wrong; see docs/operation.md`,
    );
}

/** Returns one error for those of all members; null: no reply by the deadline. */
function failureOf(members: readonly EtcdMember[], failures: readonly (ColoError | null)[]): ColoError {
  const codes = new Set(failures.map((failure) => failure?.code));
  const code = CODES_BY_RANK.find((one) => codes.has(one)) ?? 'COLO_ARBITER_UNREACHABLE';
  const each = members.map(
    ({ name }, place) => failures[place]?.message ?? `${name}: no reply within ${QUESTION_MS_MAX} ms`,
  );
  return new ColoError(code, `etcd cannot be asked, so no failover is possible: ${each.join('; ')}`, {
    cause: failures.find((failure) => failure !== null),
  });
}
