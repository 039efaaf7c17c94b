/**
 * Makes the certificates of a pair: a CA of its own, and one certificate for each node (link/certified-node.ts).
 *
 * Keys are ECDSA with P-256: every TLS 1.3 has it, and a handshake costs less than a millisecond. A node's certificate is good for
 * both ends of a TLS connection, since a node dials as candidate and listens as primary. All are valid from a day before they
 * are made: clocks that differ by hours refuse no new certificate.
 *
 * Node's own crypto makes keys and signatures; pkijs writes X.509 around them.
 */
import { createPrivateKey, randomBytes, webcrypto, X509Certificate } from 'node:crypto';
import { type AsnType, BitString, Integer, OctetString, Utf8String } from 'asn1js';
import {
  AltName,
  AttributeTypeAndValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  Extension,
  ExtKeyUsage,
  GeneralName,
  Time,
  TimeType,
} from 'pkijs';
import { type CertifiedNode, nodeUri } from '../link/certified-node.ts';
import { DAY_MS } from '../link/validity.ts';

type CryptoKeyPair = webcrypto.CryptoKeyPair;

/** PEM. */
export type Made = { readonly certificate: string; readonly key: string };

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const HASH = 'SHA-256';
const EXTRACTABLE = true;
const SERIAL_BYTES = 16;
const GENERAL_NAME_URI = 6;

/** RFC 5280 sections 4.2.1 and 4.1.2.4. */
const OID = {
  commonName: '2.5.4.3',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;
/** Bits of keyUsage, from the left: digitalSignature is 0, keyCertSign 5, cRLSign 6. */
const MAY_SIGN_DATA = { bits: 0x80, unused: 7 } as const;
const MAY_SIGN_CERTIFICATES = { bits: 0x06, unused: 1 } as const;

/** Makes a CA for the certificates of one pair. */
export async function makeCa(pair: string, days: number, nowMs: number): Promise<Made> {
  const keys = await newKeys();
  // The name is unlike that of every other CA of the pair, so that several of them fit into one file.
  const id = Buffer.from(await keyIdOf(keys.publicKey)).toString('hex', 0, 4);
  const name = `colo ${pair} CA ${id}`;
  return issue({ name, keys, days, nowMs, issuer: { name, keys }, node: null });
}

/** Makes a node's certificate. `ca`: the files of one that `makeCa` has made. */
export async function makeNode(ca: Made, node: CertifiedNode, days: number, nowMs: number): Promise<Made> {
  const issuer = await readCa(ca);
  const made = await issue({
    name: `colo ${node.pair} ${node.node}`,
    keys: await newKeys(),
    days,
    nowMs,
    issuer,
    node,
  });
  const [certificate, of] = [made.certificate, ca.certificate].map((text) => new X509Certificate(text));
  if (!certificate.checkIssued(of) || !certificate.verify(of.publicKey))
    throw new Error('its certificate and its key do not belong together, or "colo certs" has not made them');
  return made;
}

type Issuer = { readonly name: string; readonly keys: CryptoKeyPair };
type Issued = {
  readonly name: string;
  readonly keys: CryptoKeyPair;
  readonly days: number;
  readonly nowMs: number;
  readonly issuer: Issuer;
  /** null for a CA */
  readonly node: CertifiedNode | null;
};

async function issue({ name, keys, days, nowMs, issuer, node }: Issued): Promise<Made> {
  const certificate = new Certificate();
  certificate.version = 2;
  const serial = randomBytes(SERIAL_BYTES);
  // Positive, and of this length.
  serial[0] = (serial[0] & 0x7f) | 0x40;
  certificate.serialNumber = new Integer({ valueHex: serial });
  certificate.subject.typesAndValues.push(commonName(name));
  certificate.issuer.typesAndValues.push(commonName(issuer.name));
  certificate.notBefore = timeOf(nowMs - DAY_MS);
  certificate.notAfter = timeOf(nowMs + days * DAY_MS);
  await certificate.subjectPublicKeyInfo.importKey(keys.publicKey);
  certificate.extensions = [
    extension(
      OID.basicConstraints,
      'critical',
      new BasicConstraints(node === null ? { cA: true, pathLenConstraint: 0 } : {}),
    ),
    extension(OID.keyUsage, 'critical', keyUsage(node === null ? MAY_SIGN_CERTIFICATES : MAY_SIGN_DATA)),
    extension(
      OID.subjectKeyIdentifier,
      'optional',
      new OctetString({ valueHex: await keyIdOf(keys.publicKey) }),
    ),
    extension(
      OID.authorityKeyIdentifier,
      'optional',
      new AuthorityKeyIdentifier({
        keyIdentifier: new OctetString({ valueHex: await keyIdOf(issuer.keys.publicKey) }),
      }),
    ),
    ...(node === null ? [] : nodeExtensions(node)),
  ];
  await certificate.sign(issuer.keys.privateKey, HASH);
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return {
    certificate: pem('CERTIFICATE', certificate.toSchema(true).toBER()),
    key: pem('PRIVATE KEY', pkcs8),
  };
}

function nodeExtensions(node: CertifiedNode): Extension[] {
  const uri = new GeneralName({ type: GENERAL_NAME_URI, value: nodeUri(node) });
  return [
    extension(OID.subjectAltName, 'optional', new AltName({ altNames: [uri] })),
    extension(
      OID.extKeyUsage,
      'optional',
      new ExtKeyUsage({ keyPurposes: [OID.serverAuth, OID.clientAuth] }),
    ),
  ];
}

function extension(
  extnID: string,
  use: 'critical' | 'optional',
  value: { toSchema(): AsnType } | AsnType,
): Extension {
  const extnValue = 'toSchema' in value ? value.toSchema() : value;
  return new Extension({ extnID, critical: use === 'critical', extnValue: extnValue.toBER() });
}

function keyUsage({ bits, unused }: typeof MAY_SIGN_DATA | typeof MAY_SIGN_CERTIFICATES): BitString {
  return new BitString({ valueHex: new Uint8Array([bits]), unusedBits: unused });
}

function commonName(value: string): AttributeTypeAndValue {
  return new AttributeTypeAndValue({ type: OID.commonName, value: new Utf8String({ value }) });
}

/** Times until 2049 are UTCTime, later ones GeneralizedTime (RFC 5280 section 4.1.2.5). */
function timeOf(ms: number): Time {
  const value = new Date(Math.floor(ms / 1000) * 1000);
  return new Time({
    type: value.getUTCFullYear() < 2050 ? TimeType.UTCTime : TimeType.GeneralizedTime,
    value,
  });
}

async function readCa({ certificate, key }: Made): Promise<Issuer> {
  const { subject, publicKey } = new X509Certificate(certificate);
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const pkcs8 = createPrivateKey(key).export({ type: 'pkcs8', format: 'der' });
  const name = /^CN=(.+)$/m.exec(subject)?.[1] ?? '';
  return {
    name,
    keys: {
      publicKey: await webcrypto.subtle.importKey('spki', spki, KEY, EXTRACTABLE, ['verify']),
      privateKey: await webcrypto.subtle.importKey('pkcs8', pkcs8, KEY, EXTRACTABLE, ['sign']),
    },
  };
}

function newKeys(): Promise<CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY, EXTRACTABLE, ['sign', 'verify']);
}

/** RFC 5280 section 4.2.1.2, method 1, with the hash of RFC 7093. */
async function keyIdOf(publicKey: webcrypto.CryptoKey): Promise<ArrayBuffer> {
  const point = await webcrypto.subtle.exportKey('raw', publicKey);
  return (await webcrypto.subtle.digest('SHA-256', point)).slice(0, 20);
}

function pem(label: string, der: ArrayBuffer): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
