/**
 * Whether a peer's certificate proves that it is the other node of this pair.
 *
 * OpenSSL has checked the chain, the dates (by this machine's clock) and the purpose; its verdict is a word (x509_vfy.h).
 * The name is checked here: the same pair, and another node than this one. The HELLO has to give the same name
 * (link-setup.ts).
 *
 * Clocks: a certificate is refused before its first and after its last moment, as the machine that checks knows the time. Two
 * clocks that differ matter only near these moments.
 */
import type { X509Certificate } from 'node:crypto';
import { ColoError } from '../error.ts';
import { type CertifiedNode, certifiedNode, nodeUri } from './certified-node.ts';
import { isoOf } from './validity.ts';

export type Presented = {
  readonly certificate:
    | Pick<X509Certificate, 'subjectAltName' | 'validFrom' | 'validTo' | 'issuer'>
    | undefined;
  /** OpenSSL's word for what is wrong with it, or null */
  readonly verdict: string | null;
};

/** Verdicts of a certificate that no CA of this node has issued. */
const OTHER_CA: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'INVALID_CA',
]);

/** Returns the peer. Throws a COLO_TLS_ error that says what is wrong with its certificate; COLO_LINK_TWIN if it is this node's. */
export function checkPresented(
  { certificate, verdict }: Presented,
  own: CertifiedNode,
  wallMs: number,
): CertifiedNode {
  if (certificate === undefined)
    throw new ColoError(
      'COLO_TLS_NO_CERTIFICATE',
      'the peer gave no certificate; is it a colo node with link.tls?',
    );
  const named = certifiedNode(certificate);
  const whose = `the peer's certificate (${named === null ? 'of no node' : nodeUri(named)})`;
  if (verdict !== null) throw refusal(verdict, whose, certificate, wallMs);
  if (named === null)
    throw new ColoError('COLO_TLS_NODE', `${whose} names no node, or several; make it with "colo certs"`);
  if (named.pair !== own.pair) {
    throw new ColoError(
      'COLO_TLS_PAIR',
      `${whose} is of another pair than "${own.pair}"; check "link" and "pair" in both files`,
    );
  }
  if (named.node === own.node) {
    throw new ColoError(
      'COLO_LINK_TWIN',
      `${whose} is of this node itself; give each node its own name and certificate, and check link.peer`,
    );
  }
  return named;
}

function refusal(
  verdict: string,
  whose: string,
  { validFrom, validTo, issuer }: NonNullable<Presented['certificate']>,
  wallMs: number,
): ColoError {
  const clock = `this machine's clock says ${new Date(wallMs).toISOString()}`;
  if (verdict === 'CERT_HAS_EXPIRED')
    return new ColoError(
      'COLO_TLS_EXPIRED',
      `${whose} has expired on ${isoOf(validTo)}; ${clock}; renew it with "colo certs" and "colo reload"`,
    );
  if (verdict === 'CERT_NOT_YET_VALID')
    return new ColoError(
      'COLO_TLS_NOT_YET_VALID',
      `${whose} is valid from ${isoOf(validFrom)}; ${clock}; set the clocks of both machines`,
    );
  if (OTHER_CA.has(verdict))
    return new ColoError(
      'COLO_TLS_CA',
      `${whose} is from another CA (${issuer.replaceAll('\n', ', ')}) than those in link.tls.ca (${verdict}); ` +
        'give both nodes certificates of one CA',
    );
  return new ColoError('COLO_TLS_CERTIFICATE', `${whose} is refused: ${verdict}; make it with "colo certs"`);
}

/** Throws COLO_TLS_EXPIRED or COLO_TLS_NOT_YET_VALID if this node's own certificate would be refused now. */
export function checkOwnDates(own: Pick<X509Certificate, 'validFrom' | 'validTo'>, wallMs: number): void {
  const clock = `this machine's clock says ${new Date(wallMs).toISOString()}`;
  if (wallMs > Date.parse(own.validTo))
    throw new ColoError(
      'COLO_TLS_EXPIRED',
      `this node's own certificate has expired on ${isoOf(own.validTo)}; ${clock}; renew it with "colo certs" and "colo reload"`,
    );
  if (wallMs < Date.parse(own.validFrom))
    throw new ColoError(
      'COLO_TLS_NOT_YET_VALID',
      `this node's own certificate is valid from ${isoOf(own.validFrom)}; ${clock}; set the clock`,
    );
}
