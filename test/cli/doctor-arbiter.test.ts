import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { freePort } from '../../lab/free-port.ts';
import type { Check } from '../../src/cli/check.ts';
import { checkEtcd, checkFileSystem } from '../../src/cli/doctor-arbiter.ts';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { NODE_YAML } from '../config/node-yaml.ts';
import { emptyMember, fakeEtcd, header, type Reply, replyJson, replyText } from '../pair/etcd/fake-etcd.ts';
import { tempFolder } from '../temp-folder.ts';

test('an arbiter directory on a network file system is refused', () => {
  const check = (type: number) => checkFileSystem('arbiter', '/mnt', () => type);
  for (const [type, name] of [
    [0x6969, 'NFS'],
    [0x517b, 'SMB'],
    [0xff534d42, 'CIFS'],
    // As a signed 32-bit number.
    [0xff534d42 | 0, 'CIFS'],
    [0xfe534d42, 'SMB'],
    [0x00c36400, 'Ceph'],
    [0x01021997, '9P'],
    [0x01161970, 'GFS2'],
  ] as const) {
    const found = check(type);
    assert.equal(found?.ok, false, name);
    assert.match(found?.found ?? '', new RegExp(`/mnt is on a network file system \\(${name}\\)`));
  }
  const fuse = check(0x65735546);
  assert.deepEqual([fuse?.ok, /FUSE/.test(fuse?.found ?? ''), fuse?.advice === ''], [true, true, false]);
  // ext4, tmpfs, xfs, btrfs, overlayfs
  for (const type of [0xef53, 0x01021994, 0x58465342, 0x9123683e, 0x794c7630])
    assert.equal(check(type), null);
  assert.equal(checkFileSystem('arbiter', tempFolder()), null, 'the file system of this test');
});

function examine(t: TestContext, endpoints: readonly string[], more = ''): Promise<Check[]> {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'password'), 'x', { mode: 0o600 });
  const section = `arbiter: {etcd: {endpoints: [${endpoints.map((one) => `"${one}"`).join(', ')}]${more}}}\n`;
  const text = NODE_YAML.replace('arbiter: { directory: arbiter }\n', section);
  const config = parseNodeConfig(text, join(folder, 'a.yaml'));
  assert.ok(config.arbiter.kind === 'etcd');
  return checkEtcd(config, config.arbiter.etcd);
}

const three = (t: TestContext, reply: Reply): Promise<string[]> =>
  Promise.all([0, 1, 2].map(() => fakeEtcd(t, reply)));

/** A member whose status has more. */
const withStatus =
  (more: object): Reply =>
  (path, body, response, request) =>
    path.startsWith('/v3/maintenance')
      ? { ...header('255'), version: '3.4.23', leader: '1', ...more }
      : emptyMember('255')(path, body, response, request);

test('of a healthy cluster each member is shown, and that it can be written', async (t) => {
  const endpoints = await three(t, withStatus({}));
  const checks = await examine(t, endpoints);
  assert.ok(checks.every(({ ok, advice }) => ok && advice === ''));
  assert.deepEqual(
    checks.slice(0, 3).map(({ found }) => found),
    endpoints.map((endpoint) => `${endpoint}: etcd 3.4.23, cluster ff`),
  );
  assert.match(checks[3].found, /read and written, in \d+ ms; it has no record of this pair/);
});

test('the record that is stored is shown', async (t) => {
  for (const [state, found] of [
    ['pair', /it has generation 7, a pair of a and b$/],
    ['alone', /it has generation 7, a alone$/],
    ['fencing', /it has generation 7, a, which fences b$/],
  ] as const) {
    const record = { generation: 7, state, primary: 'a', secondary: state === 'alone' ? null : 'b' };
    const value = Buffer.from(JSON.stringify({ format: 1, claim: 'x', record })).toString('base64');
    const responses = [{ response_range: { kvs: [{ mod_revision: '5', value }] } }];
    const endpoints = await three(t, (path, body, response, request) =>
      path === '/v3/kv/txn'
        ? { ...header('255', 9), responses }
        : withStatus({})(path, body, response, request),
    );
    const checks = await examine(t, endpoints);
    assert.match(checks[3].found, found);
  }
});

test('each problem of a member is named', async (t) => {
  const cases: [reply: Reply, found: RegExp][] = [
    [withStatus({ leader: '0' }), /WITHOUT QUORUM/],
    [withStatus({ errors: ['memberID:1 alarm:NOSPACE '] }), /alarm:NOSPACE/],
    [(_, __, response) => replyText(response, 200, 'text/html', '<html>'), /COLO_ARBITER_NOT_ETCD/],
    [
      (path, _, response) =>
        path === '/version' ? { etcdserver: '3.3.27' } : replyText(response, 404, 'text/plain', 'Not Found'),
      /COLO_ARBITER_VERSION: .* is etcd 3\.3\.27/,
    ],
  ];
  for (const [reply, found] of cases) {
    const [bad] = await Promise.all([fakeEtcd(t, reply)]);
    const good = await three(t, withStatus({}));
    const checks = await examine(t, [...good, bad]);
    assert.deepEqual(
      checks.map(({ ok }) => ok),
      [true, true, true, false, true],
      String(found),
    );
    assert.match(checks[3].found, found);
    assert.notEqual(checks[3].advice, '');
  }
});

test('a dead endpoint, another cluster, and a refused change are problems', async (t) => {
  const good = await three(t, withStatus({}));
  const dead = `http://127.0.0.1:${await freePort()}`;
  const checks = await examine(t, [...good, dead]);
  assert.match(checks[3].found, /COLO_ARBITER_UNREACHABLE.*ECONNREFUSED/);
  assert.equal(checks[4].ok, true);

  const hung = await examine(t, [...good, await fakeEtcd(t, () => undefined)]);
  assert.match(hung[3].found, /no reply within 3000 ms/);

  const foreign = await examine(t, [...good, await fakeEtcd(t, emptyMember('99'))]);
  assert.ok(foreign.some(({ ok, found }) => !ok && found === 'the endpoints are of several clusters'));

  const full: Reply = (path, body, response, request) =>
    path === '/v3/kv/txn'
      ? replyJson(response, 429, { code: 8, message: 'etcdserver: mvcc: database space exceeded' })
      : withStatus({})(path, body, response, request);
  const refused = await examine(t, await three(t, full));
  assert.match(refused.at(-1)?.found ?? '', /^COLO_ARBITER_SPACE/);
  assert.equal(refused.at(-1)?.ok, false);
});

test('what is weaker than it could be is a warning', async (t) => {
  const one = await fakeEtcd(t, withStatus({}));
  const few = await examine(t, [one]);
  assert.ok(few.every(({ ok }) => ok));
  assert.ok(few.some(({ found, advice }) => found === 'one endpoint' && /three or more/.test(advice)));
  const open = await examine(
    t,
    [...(await three(t, withStatus({}))), 'http://192.0.2.1:2379'],
    ', user: u, passwordFile: password',
  );
  assert.ok(
    open.some(({ found, advice }) => /192\.0\.2\.1:2379 has no TLS/.test(found) && /password/.test(advice)),
  );
});

test('a password that others may read is a problem, and nothing is asked', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'open');
  writeFileSync(path, 'x', { mode: 0o644 });
  const checks = await examine(t, ['http://127.0.0.1:1'], `, user: u, passwordFile: ${path}`);
  assert.equal(checks.length, 1);
  assert.match(checks[0].found, /^COLO_SECRET_FILE/);
});
