/**
 * A node's own certificate, its key, and the CA that its peer's certificate has to be from: read from files and checked
 * before they are used.
 *
 * What is checked: the key is closed to other users, it belongs to the certificate, OpenSSL takes both, the certificate names
 * this node of this pair, and one of the CA's certificates, or one that follows in the same file, has issued it. The dates are
 * not: a node whose clock is wrong has to start, and its VM with it. Only connections are refused while a date is wrong.
 *
 * Failure: COLO_SECRET_FILE, COLO_CONFIG_TLS_FILE, COLO_CONFIG_TLS_KEY, COLO_CONFIG_TLS_NAME, COLO_CONFIG_TLS_CA.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { ColoError, messageOf } from '../error.ts';
import { readSecretFile } from '../io/secret-file.ts';
import { type CertifiedNode, certifiedNode, nodeUri } from './certified-node.ts';

/** Paths of PEM files. `certificate` may be followed by intermediate ones, `ca` may have several. */
export type CredentialFiles = { readonly ca: string; readonly certificate: string; readonly key: string };

export type Credentials = {
  readonly node: CertifiedNode;
  /** PEM, as `node:tls` takes it */
  readonly pem: { readonly ca: string; readonly cert: string; readonly key: string };
  /** the node's own certificate */
  readonly own: X509Certificate;
  readonly ca: readonly X509Certificate[];
};

/** A thousand certificates: a wrong path, such as a disk image, is refused before it is parsed. */
const FILE_BYTES_MAX = 4 * 1024 * 1024;
const BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

export function loadCredentials(files: CredentialFiles, node: CertifiedNode): Credentials {
  const pem = {
    ca: readPem(files.ca),
    cert: readPem(files.certificate),
    key: readSecretFile(files.key),
  };
  const [own, ...chain] = certificatesOf(pem.cert, files.certificate);
  const ca = certificatesOf(pem.ca, files.ca);
  checkKey(own, privateKey(pem.key, files.key), files);
  checkStrength(pem, files.certificate);
  checkName(own, node, files.certificate);
  if (![...chain, ...ca].some((issuer) => own.checkIssued(issuer) && own.verify(issuer.publicKey))) {
    throw new ColoError(
      'COLO_CONFIG_TLS_CA',
      `${files.certificate}: no certificate in ${files.ca} has issued it; give the CA that has, or have it issued by that one`,
    );
  }
  return { node, pem, own, ca };
}

function readPem(path: string): string {
  try {
    if (statSync(path).size > FILE_BYTES_MAX) throw new Error('it is far too large');
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw badFile(path, messageOf(cause), cause);
  }
}

function certificatesOf(text: string, path: string): X509Certificate[] {
  const blocks = text.match(BLOCK) ?? [];
  if (blocks.length === 0) throw badFile(path, 'there is no certificate in it');
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (cause) {
    throw badFile(path, `a certificate in it cannot be read: ${messageOf(cause)}`, cause);
  }
}

function privateKey(text: string, path: string): KeyObject {
  // OpenSSL would ask for the password on the terminal.
  if (/ENCRYPTED/.test(text)) throw badFile(path, 'the key is encrypted, and a node has nobody to ask');
  try {
    return createPrivateKey(text);
  } catch (cause) {
    throw badFile(path, `there is no private key in it: ${messageOf(cause)}`, cause);
  }
}

function badFile(path: string, why: string, cause?: unknown): ColoError {
  return new ColoError(
    'COLO_CONFIG_TLS_FILE',
    `${path}: ${why}; give a PEM file in link.tls, as "colo certs" makes them`,
    { cause },
  );
}

function checkKey(own: X509Certificate, key: KeyObject, files: CredentialFiles): void {
  if (own.checkPrivateKey(key)) return;
  throw new ColoError(
    'COLO_CONFIG_TLS_KEY',
    `${files.key}: this key does not belong to ${files.certificate}; give the two that were made together`,
  );
}

/** OpenSSL takes no certificate whose key or signature is weak. */
function checkStrength(pem: Credentials['pem'], path: string): void {
  try {
    createSecureContext(pem);
  } catch (cause) {
    throw badFile(path, `OpenSSL refuses it: ${messageOf(cause)}`, cause);
  }
}

function checkName(own: X509Certificate, expected: CertifiedNode, path: string): void {
  const named = certifiedNode(own);
  if (named?.pair === expected.pair && named.node === expected.node) return;
  throw new ColoError(
    'COLO_CONFIG_TLS_NAME',
    `${path}: this certificate is of ${named === null ? 'no node' : nodeUri(named)}, and this node is ${nodeUri(expected)}; ` +
      'give its own certificate, or correct "pair" and "node"',
  );
}
