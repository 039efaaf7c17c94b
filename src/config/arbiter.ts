/** The section `arbiter` of a node's file: a directory for two nodes on one machine, or etcd for two hosts. */
import { isIP } from 'node:net';
import { z } from 'zod';

/** Far above any real cluster: etcd advises seven at most. */
const ENDPOINTS_MAX = 16;

const path = z.string().min(1).max(4096);
const issue = (coloCode: string, message: string) => ({
  code: 'custom' as const,
  message,
  params: { coloCode },
});

/** Returns a member's address as an origin, as in https://10.0.0.1:2379. */
const etcdEndpoint = z.string().transform((text, context): string => {
  const why = endpointProblem(text);
  if (why === null) return new URL(text).origin;
  context.addIssue(issue('COLO_CONFIG_ENDPOINT', `endpoint ${JSON.stringify(text)}: ${why}`));
  return z.NEVER;
});

const tls = z
  .strictObject({
    ca: path.optional().describe("Who signs etcd's certificates; the system's authorities if not given."),
    certificate: path.optional().describe('What this node shows to etcd.'),
    key: path.optional().describe('Its private key; a file that no other user may read.'),
  })
  .superRefine(({ certificate, key }, context) => {
    if ((certificate === undefined) === (key === undefined)) return;
    const missing = key === undefined ? 'key' : 'certificate';
    context.addIssue({
      ...issue(
        'COLO_CONFIG_CONFLICT',
        `arbiter.etcd.tls.${missing} is missing: a certificate needs its key, and a key its certificate`,
      ),
      path: [missing],
    });
  });

const etcd = z
  .strictObject({
    endpoints: z
      .array(etcdEndpoint)
      .min(1)
      .max(ENDPOINTS_MAX)
      .describe('All members of the cluster, as in https://10.0.0.1:2379.'),
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9/._-]{1,256}$/, 'use 1 to 256 letters, digits, "/", ".", "_" or "-", as in /colo/')
      .default('/colo/')
      .describe("Of the key that holds the pair's record; the name of the pair follows it."),
    tls: tls.prefault({}),
    user: z.string().min(1).max(256).optional().describe('The user of etcd.'),
    passwordFile: path.optional().describe('A file with the password, that no other user may read.'),
  })
  .superRefine(({ endpoints, user, passwordFile, tls: files }, context) => {
    const conflict = (place: (string | number)[], message: string): void =>
      context.addIssue({ ...issue('COLO_CONFIG_CONFLICT', message), path: place });
    if ((user === undefined) !== (passwordFile === undefined)) {
      const missing = user === undefined ? 'user' : 'passwordFile';
      conflict(
        [missing],
        `arbiter.etcd.${missing} is missing: a user needs a passwordFile, and a passwordFile its user`,
      );
    }
    const hasTls = Object.values(files).some((file) => file !== undefined);
    for (const [place, endpoint] of endpoints.entries()) {
      if (endpoints.indexOf(endpoint) < place)
        conflict(['endpoints', place], `arbiter.etcd.endpoints has ${endpoint} twice; remove one`);
      if (hasTls && endpoint.startsWith('http:'))
        conflict(
          ['endpoints', place],
          `${endpoint} has no TLS, for which arbiter.etcd.tls gives files; write https://`,
        );
    }
  });

const section = z
  .strictObject({
    directory: path.optional().describe('A directory that both nodes use; both are on one machine.'),
    etcd: etcd.optional().describe('An etcd cluster, for nodes on two hosts.'),
  })
  .superRefine(({ directory, etcd: cluster }, context) => {
    if ((directory === undefined) === (cluster === undefined))
      context.addIssue(
        issue(
          'COLO_CONFIG_CONFLICT',
          `arbiter has ${directory === undefined ? 'neither' : 'both'} directory ${directory === undefined ? 'nor' : 'and'} etcd; give one of the two`,
        ),
      );
  });

/** Which arbiter a pair has. A path of etcd's that is not given is null. */
export type ArbiterConfig =
  | { readonly kind: 'directory'; readonly directory: string }
  | { readonly kind: 'etcd'; readonly etcd: EtcdConfig };

export type EtcdConfig = {
  readonly endpoints: readonly string[];
  readonly prefix: string;
  readonly tls: {
    readonly ca: string | null;
    readonly certificate: string | null;
    readonly key: string | null;
  };
  readonly user: { readonly name: string; readonly passwordFile: string } | null;
};

export const arbiter = section.transform(({ directory, etcd: cluster }): ArbiterConfig => {
  if (cluster === undefined) return { kind: 'directory', directory: directory ?? '' };
  const { endpoints, prefix, tls: files, user, passwordFile } = cluster;
  return {
    kind: 'etcd',
    etcd: {
      endpoints,
      prefix,
      tls: { ca: files.ca ?? null, certificate: files.certificate ?? null, key: files.key ?? null },
      user: user === undefined || passwordFile === undefined ? null : { name: user, passwordFile },
    },
  };
});

/** Returns the section with each path as `absolute` makes it. */
export function withArbiterPaths(config: ArbiterConfig, absolute: (path: string) => string): ArbiterConfig {
  if (config.kind === 'directory') return { ...config, directory: absolute(config.directory) };
  const { tls: files, user } = config.etcd;
  const orNull = (file: string | null): string | null => (file === null ? null : absolute(file));
  return {
    kind: 'etcd',
    etcd: {
      ...config.etcd,
      tls: { ca: orNull(files.ca), certificate: orNull(files.certificate), key: orNull(files.key) },
      user: user === null ? null : { ...user, passwordFile: absolute(user.passwordFile) },
    },
  };
}

/** Returns what is wrong with an address of a member, or null. */
function endpointProblem(text: string): string | null {
  const form = 'write https://HOST:PORT or http://HOST:PORT';
  if (/[\s,;]/.test(text)) return 'it is more than one address; write one per line, each with a dash';
  const parts = /^(https?):\/\/(\[[^[\]]*\]|[^:/?#@[\]]+):(\d{1,5})\/?$/.exec(text);
  if (parts === null) return /^https?:\/\/[^:/]+\/?$/.test(text) ? `the port is missing; ${form}` : form;
  const [, , host, port] = parts;
  if (Number(port) < 1 || Number(port) > 65535) return 'the port must be from 1 to 65535';
  if (host.startsWith('[') && isIP(host.slice(1, -1)) !== 6) return `${host} is not an IPv6 address`;
  if (/^[\d.]+$/.test(host) && isIP(host) !== 4) return `${host} is not an address`;
  return URL.canParse(text) ? null : form;
}
