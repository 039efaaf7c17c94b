/** What tests with a real etcd share. */

/** Of a cluster without TLS and without users. */
export const ETCD_OPTIONS = {
  tls: { ca: null, certificate: null, key: null },
  user: null,
} as const;
