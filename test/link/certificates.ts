/** Certificates for tests, in files of a folder, and credentials from them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Made, makeCa, makeNode } from '../../src/cli/make-certificates.ts';
import type { CertifiedNode } from '../../src/link/certified-node.ts';
import { type CredentialFiles, type Credentials, loadCredentials } from '../../src/link/credentials.ts';

export const DAYS = 730;
export const DAY_MS = 86_400_000;

export type Files = CredentialFiles & { readonly node: CertifiedNode };

/** Writes a node's files, as `colo certs` does; `ageDays`: of the certificate. */
export async function writeFiles(folder: string, ca: Made, node: CertifiedNode, ageDays = 0): Promise<Files> {
  mkdirSync(folder, { recursive: true });
  const { certificate, key } = await makeNode(ca, node, DAYS, Date.now() - ageDays * DAY_MS);
  const files = {
    ca: join(folder, 'ca.crt'),
    certificate: join(folder, 'node.crt'),
    key: join(folder, 'node.key'),
  };
  writeFileSync(files.ca, ca.certificate);
  writeFileSync(files.certificate, certificate);
  writeFileSync(files.key, key, { mode: 0o600 });
  return { ...files, node };
}

export async function credentialsOf(
  folder: string,
  ca: Made,
  node: CertifiedNode,
  ageDays = 0,
): Promise<Credentials> {
  const files = await writeFiles(folder, ca, node, ageDays);
  return loadCredentials(files, node);
}

export const newCa = (pair = 'web'): Promise<Made> => makeCa(pair, DAYS, Date.now());
