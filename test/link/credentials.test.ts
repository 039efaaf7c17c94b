import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadCredentials } from '../../src/link/credentials.ts';
import { tempFolder } from '../temp-folder.ts';
import { DAYS, newCa, writeFiles } from './certificates.ts';

/** RSA of 512 bits, signed by itself: openssl req -x509 -newkey rsa:512 -nodes -addext subjectAltName=URI:colo://web/a */
const WEAK = {
  certificate: `-----BEGIN CERTIFICATE-----
MIIBkDCCATqgAwIBAgIURfNc8O3k6fd8V7haNvGVl0VxCOswDQYJKoZIhvcNAQEL
BQAwDzENMAsGA1UEAwwEd2VhazAgFw0yNjEyMDEwMzAzNThaGA8yMTI2MTEwNzAz
MDM1OFowDzENMAsGA1UEAwwEd2VhazBcMA0GCSqGSIb3DQEBAQUAA0sAMEgCQQDS
ZKCvYl3iVQ9BKU6X0blax2WXdluyDPbWb4isR3sZIC/h590LMArGGJ74Nwh452dJ
qT6yUbWHV5MNGjX2Q19ZAgMBAAGjbDBqMB0GA1UdDgQWBBQOX4yU1OHaq1JfT7dA
AV2U+pGiNTAfBgNVHSMEGDAWgBQOX4yU1OHaq1JfT7dAAV2U+pGiNTAPBgNVHRMB
Af8EBTADAQH/MBcGA1UdEQQQMA6GDGNvbG86Ly93ZWIvYTANBgkqhkiG9w0BAQsF
AANBAJ+O3O1uRrOmoY0L0GeMzH9TjVfy/9guKzkHYGSNZU98ZwRvF39MPTNX0QLU
94t1Q9doT5/fmFmeRZQ/cnM5jLs=
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MIIBVAIBADANBgkqhkiG9w0BAQEFAASCAT4wggE6AgEAAkEA0mSgr2Jd4lUPQSlO
l9G5Wsdll3Zbsgz21m+IrEd7GSAv4efdCzAKxhie+DcIeOdnSak+slG1h1eTDRo1
9kNfWQIDAQABAkEAymi5FkIiZH7EwEHHNNQ16JnwqPjbWr6SMtb2vBfA2/eWUviB
w+fxRoAdleMVrE1rvElUG2SAvPtCHbUdD08SIQIhAPMFprF3TCRXNJnyMYaFjJ5k
9exGAtWoar3ujkW8hb8dAiEA3aDoAwe5CP4M11qFaGwP32NxCEu+BRChhrpTeSDF
AG0CIG3+zc8fXwBH1FAllhL8GYSLz9+MZLYOD5o+Ank/9g1lAiAHGSc1KaMogZKB
tzl8nbFoczPkkyBz4xN5UDBqOb11hQIgDPLNUNfoBuruQEFeL8TSdt61T40uKPgX
Suuc4y2IYw0=
-----END PRIVATE KEY-----
`,
};

const folder = tempFolder();
const ca = await newCa();
const node = { pair: 'web', node: 'a' };
let folders = 0;
const files = (ageDays = 0) => writeFiles(join(folder, `${folders++}`), ca, node, ageDays);

test('the files of colo certs are accepted, also when they have expired', async () => {
  assert.deepEqual(loadCredentials(await files(), node).node, node);
  // A node whose clock is wrong has to start: only its connections are refused.
  assert.ok(loadCredentials(await files(DAYS + 2), node));
});

test('a key that other users may read is refused', async () => {
  const { key, ...rest } = await files();
  for (const mode of [0o604, 0o644, 0o602]) {
    chmodSync(key, mode);
    assert.throws(() => loadCredentials({ ...rest, key }, node), {
      code: 'COLO_SECRET_FILE',
      message: /chmod o= /,
    });
  }
  chmodSync(key, 0o400);
  assert.ok(loadCredentials({ ...rest, key }, node));
});

test('a certificate of another pair or node, or of another CA, and a key of another one are refused', async () => {
  const mine = await files();
  for (const other of [
    { ...node, pair: 'mail' },
    { ...node, node: 'b' },
    { ...node, node: 'A' },
  ])
    assert.throws(() => loadCredentials(mine, other), {
      code: 'COLO_CONFIG_TLS_NAME',
      message: /certificate is of colo:\/\/web\/a, and this node is colo:\/\//,
    });
  const others = await files();
  assert.throws(() => loadCredentials({ ...mine, key: others.key }, node), { code: 'COLO_CONFIG_TLS_KEY' });
  const strange = await writeFiles(join(folder, 'strange'), await newCa(), node);
  assert.throws(() => loadCredentials({ ...mine, ca: strange.ca }, node), { code: 'COLO_CONFIG_TLS_CA' });
  // A CA of the same file as another one, while the CA is changed.
  writeFileSync(strange.ca, `${readFileSync(strange.ca, 'utf8')}${ca.certificate}`);
  assert.equal(loadCredentials({ ...mine, ca: strange.ca }, node).ca.length, 2);
});

test('a file that is missing, or is no PEM file of the right kind, is named', async () => {
  const mine = await files();
  const bad = join(folder, 'bad');
  mkdirSync(bad);
  const at = (name: string, text: string): string => {
    const path = join(bad, name);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };
  const garbled = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  for (const [files, why] of [
    [{ key: '/no/such/key' }, /^\/no\/such\/key cannot be read: .*ENOENT/],
    [{ certificate: bad }, /EISDIR/],
    [{ ca: at('empty', '') }, /there is no certificate in it/],
    [{ certificate: at('garbled', garbled) }, /a certificate in it cannot be read/],
    [{ key: mine.ca }, /open to all users/],
    [
      { key: at('key', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n') },
      /there is no private key/,
    ],
    [{ key: at('locked', '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n') }, /the key is encrypted/],
    [{ ca: at('huge', 'x'.repeat(5 * 1024 * 1024)) }, /far too large/],
  ] as const)
    assert.throws(() => loadCredentials({ ...mine, ...files }, node), {
      code: /^COLO_(CONFIG_TLS|SECRET)_FILE$/,
      message: why,
    });
});

test('a key that OpenSSL takes for too weak is refused before it is used', () => {
  const weak = join(folder, 'weak');
  mkdirSync(weak);
  const [certificate, key] = [join(weak, 'node.crt'), join(weak, 'node.key')];
  writeFileSync(certificate, WEAK.certificate);
  writeFileSync(key, WEAK.key, { mode: 0o600 });
  assert.throws(() => loadCredentials({ ca: certificate, certificate, key }, node), {
    code: 'COLO_CONFIG_TLS_FILE',
    message: /OpenSSL refuses it: .*key too small/,
  });
});
