/**
 * The requests to etcd's JSON gateway, and what its replies mean: the only place that names a field of etcd.
 *
 * etcd ignores fields that it does not know without a word: a compare with a misspelt field compares with zero, which a
 * missing key passes, and then the writes are done. So each request here has a test against a real etcd with a compare
 * that must fail. In replies, what is false, zero or empty is left out, and 64-bit integers are texts.
 *
 * Keys and values are base64. Nothing here does I/O.
 */
import { z } from 'zod';
import { type PairRecord, recordSchema } from '../arbiter.ts';

export type EtcdRequest<Reply> = {
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
  /** Throws if the reply is not of etcd's shape. */
  readonly parse: (body: unknown) => Reply;
};

/** What a key holds. `revision`: the key's mod_revision, 0 if there is no such key. */
export type Held = { readonly revision: number; readonly value: string | null };

/** `cluster`: etcd's cluster_id. `revision`: of the whole store, which never becomes smaller. */
export type Header = { readonly cluster: string; readonly revision: number };

/** `version`: as in "3.4.23". `hasLeader`: as far as this member knows. `alarms`: as etcd words them. */
export type MemberStatus = {
  readonly header: Header;
  readonly version: string;
  readonly hasLeader: boolean;
  readonly alarms: readonly string[];
};

/** Returns the request for what `key` holds. It is linearizable: etcd replies only with a quorum. */
export function readRequest(key: string): EtcdRequest<{ header: Header; held: Held }> {
  return {
    path: '/v3/kv/range',
    body: { key: base64(key) },
    parse: (body) => {
      const { header, kvs } = rangeReply.extend({ header: headerReply }).parse(body);
      return { header, held: heldIn(kvs) };
    },
  };
}

/** Returns the request that stores `value` if the mod_revision of `key` is `revision` when it is carried out; 0: no such key. */
export function changeRequest(
  key: string,
  revision: number,
  value: string,
): EtcdRequest<{ header: Header; held: Held; succeeded: boolean }> {
  return transaction(
    key,
    { key: base64(key), target: 'MOD', result: 'EQUAL', mod_revision: String(revision) },
    value,
  );
}

/**
 * Returns a request that never changes anything, and succeeds only if a change could be made: etcd refuses it without a quorum, without
 * the right to write, and without space.
 */
export function probeRequest(key: string): EtcdRequest<{ header: Header; held: Held; succeeded: boolean }> {
  // No version is below zero, and none would be if etcd did not know the field.
  return transaction(
    key,
    { key: base64(key), target: 'VERSION', result: 'LESS', version: '0' },
    'never stored',
  );
}

export function statusRequest(): EtcdRequest<MemberStatus> {
  return {
    path: '/v3/maintenance/status',
    body: {},
    parse: (body) => {
      const { header, version, leader, errors } = statusReply.parse(body);
      return { header, version, hasLeader: leader !== '0', alarms: errors };
    },
  };
}

/** Returns the request for a token; it passes through etcd's log, and so needs a quorum. */
export function tokenRequest(name: string, password: string): EtcdRequest<{ token: string }> {
  return { path: '/v3/auth/authenticate', body: { name, password }, parse: (body) => tokenReply.parse(body) };
}

/** The error of a reply that is not 200, with the code of gRPC. Throws if it is not of etcd's shape. */
export function parseFailure(body: unknown): { code: number; message: string } {
  const { code, message, error } = failureReply.parse(body);
  return { code, message: message === '' ? error : message };
}

export function parseVersion(body: unknown): string {
  return versionReply.parse(body).etcdserver;
}

/** The value of a key: `claim` is drawn for each change, so that a node knows its own of which it lost the reply. */
export type StoredValue = { readonly claim: string; readonly record: PairRecord };

export function encodeValue({ claim, record }: StoredValue): string {
  return JSON.stringify({ format: 1, claim, record });
}

/** Throws if the value is not one of ours. */
export function decodeValue(text: string): StoredValue {
  return storedValue.parse(JSON.parse(text));
}

function transaction(
  key: string,
  compare: Readonly<Record<string, string>>,
  value: string,
): EtcdRequest<{ header: Header; held: Held; succeeded: boolean }> {
  return {
    path: '/v3/kv/txn',
    body: {
      compare: [compare],
      success: [{ request_put: { key: base64(key), value: base64(value) } }],
      failure: [{ request_range: { key: base64(key) } }],
    },
    parse: (body) => {
      const { header, succeeded, responses } = transactionReply.parse(body);
      if (succeeded) return { header, succeeded, held: { revision: header.revision, value } };
      return { header, succeeded, held: heldIn(responses[0]?.response_range?.kvs ?? []) };
    },
  };
}

function heldIn(kvs: z.output<typeof rangeReply>['kvs']): Held {
  const [first] = kvs;
  if (first === undefined) return { revision: 0, value: null };
  return { revision: first.mod_revision, value: Buffer.from(first.value, 'base64').toString('utf8') };
}

const base64 = (text: string): string => Buffer.from(text, 'utf8').toString('base64');

/** A revision counts changes: it stays far below the integers that a number cannot hold. */
const revision = z
  .union([z.string().regex(/^\d+$/).transform(Number), z.number()])
  .pipe(z.int().nonnegative());
const wholeNumber = z.union([z.string().regex(/^\d+$/), z.number().transform(String)]);

const headerReply = z
  .object({ cluster_id: wholeNumber, revision: revision.default(0) })
  .transform((header): Header => ({ cluster: header.cluster_id, revision: header.revision }));
const rangeReply = z.object({
  kvs: z.array(z.object({ mod_revision: revision, value: z.string().default('') })).default([]),
});
const transactionReply = z.object({
  header: headerReply,
  succeeded: z.boolean().default(false),
  responses: z.array(z.object({ response_range: rangeReply.optional() })).default([]),
});
const statusReply = z.object({
  header: headerReply,
  version: z.string(),
  leader: wholeNumber.default('0'),
  errors: z.array(z.string()).default([]),
});
const tokenReply = z.object({ token: z.string() });
const failureReply = z.object({
  code: z.number().default(2),
  message: z.string().default(''),
  error: z.string().default('no reason given'),
});
const versionReply = z.object({ etcdserver: z.string() });
const storedValue = z.strictObject({ format: z.literal(1), claim: z.string(), record: recordSchema });
