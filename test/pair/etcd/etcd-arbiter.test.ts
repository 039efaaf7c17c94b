/** Who replies, and who does not: members that hang, lie elsewhere, or are of another cluster. Real etcd: etcd.e2e.ts. */
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { freePort } from '../../../lab/free-port.ts';
import { EtcdArbiter, type EtcdOptions, QUESTION_MS_MAX } from '../../../src/pair/etcd/etcd-arbiter.ts';
import { tempFolder } from '../../temp-folder.ts';
import { alone, noReply } from '../arbiter-conformance.ts';
import {
  certificatePath,
  emptyMember,
  fakeEtcd,
  header,
  type Reply,
  replyJson,
  replyText,
} from './fake-etcd.ts';
import { ETCD_OPTIONS } from './real.ts';

const NOTHING = { revision: 0, record: null };
/** A busy machine adds to each time. */
const SLACK_MS = 1000;

function open(t: TestContext, endpoints: readonly string[], options: Partial<EtcdOptions> = {}): EtcdArbiter {
  const arbiter = new EtcdArbiter({ ...ETCD_OPTIONS, endpoints, key: '/colo/web', ...options });
  t.after(() => arbiter.close());
  return arbiter;
}

async function timed<T>(promise: Promise<T>): Promise<[T, number]> {
  const beginMs = performance.now();
  const value = await promise;
  return [value, performance.now() - beginMs];
}

/** A member that knows its cluster and then never replies. */
const hangs =
  (cluster: string): Reply =>
  (path, body, response, request) =>
    path.startsWith('/v3/maintenance') ? emptyMember(cluster)(path, body, response, request) : undefined;

test('a member that hangs costs little, and the one that replied is asked first from then on', async (t) => {
  let asked = 0;
  const slow = await fakeEtcd(t, (...all) => {
    asked++;
    return hangs('7')(...all);
  });
  const arbiter = open(t, [slow, await fakeEtcd(t, emptyMember('7'))]);
  const [first, firstMs] = await timed(arbiter.read());
  assert.deepEqual(first, NOTHING);
  assert.ok(firstMs < QUESTION_MS_MAX / 2, `${firstMs} ms`);
  const before = asked;
  await arbiter.read();
  assert.equal(asked, before, 'the member that hangs is not asked again');
});

test('a member that is merely slow is still taken', async (t) => {
  const slow: Reply = (path, body, response, request) => {
    setTimeout(() => replyJson(response, 200, emptyMember('7')(path, body, response, request)), 600);
    return undefined;
  };
  const arbiter = open(t, [await fakeEtcd(t, slow), await fakeEtcd(t, hangs('7'))]);
  assert.deepEqual(await arbiter.read(), NOTHING);
});

test('without any reply a question ends far below seven seconds, and says who was asked', async (t) => {
  const endpoints = [await fakeEtcd(t, hangs('7')), await fakeEtcd(t, hangs('7'))];
  const arbiter = open(t, endpoints);
  const [cause, ms] = await timed(noReply(arbiter.compareAndSwap(0, alone(1, 'a'))));
  assert.ok(ms >= QUESTION_MS_MAX - 10 && ms < QUESTION_MS_MAX + SLACK_MS, `${ms} ms`);
  assert.equal(cause.code, 'COLO_ARBITER_UNREACHABLE');
  for (const endpoint of endpoints) assert.ok(cause.message.includes(`${endpoint}: no reply within`));
  assert.ok(!cause.message.includes('\n'));
});

test('the end of the arbiter ends a question to members that hang', async (t) => {
  const arbiter = open(t, [await fakeEtcd(t, hangs('7')), await fakeEtcd(t, hangs('7'))]);
  const asked = noReply(arbiter.read());
  await new Promise((resolve) => setTimeout(resolve, 250));
  arbiter.close();
  const [cause, ms] = await timed(asked);
  assert.equal(cause.code, 'COLO_ARBITER_UNREACHABLE');
  assert.ok(ms < QUESTION_MS_MAX / 3, `${ms} ms`);
});

test('when nothing listens, that is known at once', async (t) => {
  const arbiter = open(t, [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`]);
  const [cause, ms] = await timed(noReply(arbiter.read()));
  assert.equal(cause.code, 'COLO_ARBITER_UNREACHABLE');
  assert.match(cause.message, /ECONNREFUSED/);
  assert.ok(ms < SLACK_MS, `${ms} ms`);
});

test('a connection that the member has closed meanwhile is opened again', async (t) => {
  let port = 0;
  const endpoint = await fakeEtcd(t, (path, body, response, request) => {
    port = request.socket.remotePort ?? 0;
    // Once the reply has left, and before the next request.
    response.once('close', () => setImmediate(() => request.socket.resetAndDestroy()));
    return emptyMember('7')(path, body, response, request);
  });
  const arbiter = open(t, [endpoint]);
  const ports = new Set<number>();
  for (let i = 0; i < 20; i++) {
    assert.deepEqual(await arbiter.read(), NOTHING);
    ports.add(port);
  }
  assert.ok(ports.size > 1);
});

test('an endpoint of another cluster is refused, and the others are believed', async (t) => {
  const foreign = await fakeEtcd(t, emptyMember('99'));
  const ours = [await fakeEtcd(t, emptyMember('7')), await fakeEtcd(t, emptyMember('7'))];
  for (const endpoints of [
    [foreign, ...ours],
    [...ours, foreign],
  ])
    assert.deepEqual(await open(t, endpoints).read(), NOTHING);
  const holder = await fakeEtcd(t, (path, body, response, request) =>
    path === '/v3/kv/range'
      ? { ...header('99'), kvs: [{ mod_revision: '5', value: '' }] }
      : emptyMember('99')(path, body, response, request),
  );
  const arbiter = open(t, [holder, ...ours]);
  assert.deepEqual(await arbiter.read(), NOTHING, 'the others reply');
});

test('of two clusters none is believed', async (t) => {
  const [one, other] = [await fakeEtcd(t, emptyMember('255')), await fakeEtcd(t, emptyMember('99'))];
  const cause = await noReply(open(t, [one, other]).read());
  assert.equal(cause.code, 'COLO_ARBITER_CLUSTER');
  assert.ok(cause.message.includes(`${one} belongs to cluster ff`), cause.message);
});

test('one of three endpoints is not enough to know the cluster, one of two is', async (t) => {
  const dead = async () => `http://127.0.0.1:${await freePort()}`;
  const alive = await fakeEtcd(t, emptyMember('7'));
  const cause = await noReply(open(t, [alive, await dead(), await dead()]).read());
  assert.equal(cause.code, 'COLO_ARBITER_UNREACHABLE');
  assert.deepEqual(await open(t, [alive, await dead()]).read(), NOTHING);
});

test('a member that changes its cluster is refused from then on', async (t) => {
  let cluster = '7';
  const arbiter = open(t, [await fakeEtcd(t, (...all) => emptyMember(cluster)(...all))]);
  await arbiter.read();
  cluster = '8';
  assert.equal((await noReply(arbiter.read())).code, 'COLO_ARBITER_CLUSTER');
  cluster = '7';
  assert.deepEqual(await arbiter.read(), NOTHING);
});

test('a store that has become older is refused', async (t) => {
  let revision = 50;
  const arbiter = open(t, [await fakeEtcd(t, (...all) => emptyMember('7', revision)(...all))]);
  await arbiter.read();
  revision = 49;
  const cause = await noReply(arbiter.compareAndSwap(0, alone(1, 'a')));
  assert.equal(cause.code, 'COLO_ARBITER_CLUSTER');
  assert.match(cause.message, /at revision 49 and was at 50/);
  revision = 50;
  assert.deepEqual(await arbiter.read(), NOTHING);
});

test('a change whose reply got lost, and that is asked for again, has won', async (t) => {
  let stored: { claim: string; text: string } | null = null;
  let hung = 0;
  // The first request is carried out, and its reply never arrives.
  const member: Reply = (path, body, response, request) => {
    if (path !== '/v3/kv/txn') return emptyMember('7')(path, body, response, request);
    const { success } = body as { success: [{ request_put: { value: string } }] };
    const text = success[0].request_put.value;
    const { claim } = JSON.parse(Buffer.from(text, 'base64').toString()) as { claim: string };
    if (stored === null) {
      stored = { claim, text };
      hung++;
      return undefined;
    }
    const kvs = [{ mod_revision: '2', value: stored.text }];
    return { ...header('7', 2), responses: [{ response_range: { kvs } }] };
  };
  const arbiter = open(t, [await fakeEtcd(t, member), await fakeEtcd(t, member)]);
  assert.deepEqual(await arbiter.compareAndSwap(0, alone(1, 'a')), {
    won: true,
    revision: 2,
    record: alone(1, 'a'),
  });
  assert.equal(hung, 1);
  assert.equal((await arbiter.compareAndSwap(0, alone(1, 'a'))).won, false, 'another claim, the same record');
});

test('a key that holds something else is not overwritten', async (t) => {
  const values = [
    'hello',
    '{}',
    '{"format":2,"claim":"x","record":{"generation":1,"state":"alone","primary":"a","secondary":null}}',
    '{"format":1,"claim":"x","record":{"generation":0,"state":"alone","primary":"a","secondary":null}}',
  ];
  for (const value of values) {
    const kvs = [{ mod_revision: '5', value: Buffer.from(value).toString('base64') }];
    const arbiter = open(t, [
      await fakeEtcd(t, (path, body, response, request) =>
        path === '/v3/kv/range'
          ? { ...header('7', 9), kvs }
          : emptyMember('7')(path, body, response, request),
      ),
    ]);
    const cause = await noReply(arbiter.read());
    assert.equal(cause.code, 'COLO_ARBITER_RECORD');
    assert.match(cause.message, /the key \/colo\/web in etcd/);
  }
});

test('what is no etcd is told from it', async (t) => {
  const html = '<html><body>It works</body></html>';
  const cases: [reply: Reply, code: string, text: RegExp][] = [
    [
      (_, __, response) => replyText(response, 200, 'text/html', html),
      'NOT_ETCD',
      /text\/html and status 200/,
    ],
    [
      (_, __, response) => replyText(response, 502, 'text/html', html),
      'NOT_ETCD',
      /text\/html and status 502/,
    ],
    [(_, __, response) => replyText(response, 200, '', ''), 'NOT_ETCD', /something and status 200/],
    [(_, __, response) => replyJson(response, 200, { ok: true }), 'NOT_ETCD', /another shape/],
    [(_, __, response) => replyJson(response, 200, [1, 2]), 'NOT_ETCD', /another shape/],
    [(_, __, response) => replyJson(response, 503, 'busy'), 'NOT_ETCD', /status 503/],
    [(_, __, response) => replyText(response, 404, 'text/plain', 'Not Found\n'), 'NOT_ETCD', /no path \/v3/],
    [(_, __, response) => replyText(response, 200, 'text/plain', 'x'.repeat(3e6)), 'UNREACHABLE', /too long/],
    [
      (_, __, response) => replyJson(response, 200, { ...header('-1'), version: '3.4.23' }),
      'NOT_ETCD',
      /another shape/,
    ],
  ];
  for (const [reply, code, text] of cases) {
    const cause = await noReply(open(t, [await fakeEtcd(t, reply)]).read());
    assert.equal(cause.code, `COLO_ARBITER_${code}`, cause.message);
    assert.match(cause.message, text);
  }
});

test('etcd 3.3 is named, whose paths are others', async (t) => {
  const old: Reply = (path, _, response) =>
    path === '/version'
      ? { etcdserver: '3.3.27', etcdcluster: '3.3.0' }
      : replyText(response, 404, 'text/plain; charset=utf-8', '404 page not found\n');
  const cause = await noReply(open(t, [await fakeEtcd(t, old)]).read());
  assert.equal(cause.code, 'COLO_ARBITER_VERSION');
  assert.match(cause.message, /is etcd 3\.3\.27, .* 3\.4 or later/);
});

test('a peer that speaks no HTTP, or ends each connection, is no reply', async (t) => {
  for (const greeting of ['SSH-2.0-OpenSSH_9.2p1\r\n', null]) {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      if (greeting === null) socket.destroy();
      else socket.end(greeting);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close());
    const { port } = server.address() as { port: number };
    assert.equal(
      (await noReply(open(t, [`http://127.0.0.1:${port}`]).read())).code,
      'COLO_ARBITER_UNREACHABLE',
    );
  }
});

/** The test's own copies: in a checkout everybody may read them. */
function secrets(t: TestContext, certificate: string | null, ca = 'ca'): EtcdOptions['tls'] {
  const folder = tempFolder(t);
  const copy = (name: string): string => {
    copyFileSync(certificatePath(name), join(folder, name));
    chmodSync(join(folder, name), 0o600);
    return join(folder, name);
  };
  return {
    ca: copy(`${ca}.pem`),
    certificate: certificate === null ? null : copy(`${certificate}.pem`),
    key: certificate === null ? null : copy(`${certificate}.key`),
  };
}

test('a certificate that is not valid is refused, with the reason', async (t) => {
  const cases: [server: string, ca: string, text: RegExp][] = [
    ['expired', 'ca', /certificate has expired/],
    ['future', 'ca', /certificate is not yet valid/],
    ['elsewhere', 'ca', /IP: 127\.0\.0\.1 is not in the cert's list/],
    ['server', 'other-ca', /unable to verify|unable to get local issuer|self-signed/],
  ];
  for (const [certificate, ca, text] of cases) {
    const endpoint = await fakeEtcd(t, emptyMember('7'), { certificate });
    const cause = await noReply(open(t, [endpoint], { tls: secrets(t, null, ca) }).read());
    assert.equal(cause.code, 'COLO_ARBITER_TLS', cause.message);
    assert.match(cause.message, text);
  }
});

test('a member that asks for certificates takes those of its authority alone', async (t) => {
  const endpoint = await fakeEtcd(t, emptyMember('7'), {
    certificate: 'server',
    asksClients: 'asks-clients',
  });
  assert.deepEqual(await open(t, [endpoint], { tls: secrets(t, 'client') }).read(), NOTHING);
  for (const certificate of [null, 'other-client']) {
    const cause = await noReply(open(t, [endpoint], { tls: secrets(t, certificate) }).read());
    assert.match(cause.code, /^COLO_ARBITER_(TLS|UNREACHABLE)$/);
  }
});

test('only one side has TLS: the message says which', async (t) => {
  const plain = new URL(await fakeEtcd(t, emptyMember('7')));
  const cause = await noReply(open(t, [`https://127.0.0.1:${plain.port}`], { tls: secrets(t, null) }).read());
  assert.equal(cause.code, 'COLO_ARBITER_TLS');
  assert.match(cause.message, /has no TLS; write http:\/\//);
});

test('certificates that were renewed are used without a restart', async (t) => {
  const endpoint = await fakeEtcd(t, emptyMember('7'), { certificate: 'server' });
  const tls = secrets(t, null, 'other-ca');
  const arbiter = open(t, [endpoint], { tls });
  assert.equal((await noReply(arbiter.read())).code, 'COLO_ARBITER_TLS');
  copyFileSync(certificatePath('ca.pem'), tls.ca ?? '');
  assert.deepEqual(await arbiter.read(), NOTHING);
});

test('so they are if several members are asked at once, as before the cluster is known', async (t) => {
  const member = () => fakeEtcd(t, emptyMember('7'), { certificate: 'server' });
  const tls = secrets(t, null, 'other-ca');
  const arbiter = open(t, [await member(), await member(), await member()], { tls });
  assert.equal((await noReply(arbiter.read())).code, 'COLO_ARBITER_TLS');
  copyFileSync(certificatePath('ca.pem'), tls.ca ?? '');
  assert.deepEqual(await arbiter.read(), NOTHING);
});

test('keys and passwords that others may read are refused before anything is asked', (t) => {
  const tls = secrets(t, 'client');
  chmodSync(tls.key ?? '', 0o644);
  assert.throws(() => open(t, ['https://127.0.0.1:1'], { tls }), { code: 'COLO_SECRET_FILE' });
  const passwordFile = join(tempFolder(t), 'password');
  writeFileSync(passwordFile, 'x', { mode: 0o644 });
  assert.throws(() => open(t, ['http://127.0.0.1:1'], { user: { name: 'colo', passwordFile } }), {
    code: 'COLO_SECRET_FILE',
  });
  assert.throws(() => open(t, ['https://127.0.0.1:1'], { tls: { ...tls, ca: '/nonexistent', key: null } }), {
    code: 'COLO_ARBITER_TLS',
  });
});

/** A member that takes the token of `auth`, and gives it after a while; null: it asks nobody who they are. */
const asksForToken =
  (auth: { token: string | null }): Reply =>
  (path, body, response, request) => {
    const refuse = (code: number, message: string) =>
      replyJson(response, 400, { code, message: `etcdserver: ${message}` });
    const { token } = auth;
    if (path === '/v3/auth/authenticate') {
      if (token === null) return refuse(9, 'authentication is not enabled');
      setTimeout(() => replyJson(response, 200, { token }), 50);
      return undefined;
    }
    const given = request.headers.authorization;
    if (token === null || path.startsWith('/v3/maintenance') || given === token)
      return emptyMember('7')(path, body, response, request);
    return given === undefined ? refuse(3, 'user name is empty') : refuse(16, 'invalid auth token');
  };

function asUser(t: TestContext): Pick<EtcdOptions, 'user'> {
  const passwordFile = join(tempFolder(t), 'password');
  writeFileSync(passwordFile, 'x', { mode: 0o600 });
  return { user: { name: 'colo', passwordFile } };
}

test('a user authenticates when etcd begins to ask for that, and goes on when it no longer does', async (t) => {
  const auth: { token: string | null } = { token: null };
  const arbiter = open(t, [await fakeEtcd(t, asksForToken(auth))], asUser(t));
  for (const token of [null, 'one', null, 'two']) {
    auth.token = token;
    assert.deepEqual(await arbiter.read(), NOTHING, String(token));
  }
});

test('two questions at once with a token that etcd has forgotten both get their reply', async (t) => {
  const auth = { token: 'one' };
  const arbiter = open(t, [await fakeEtcd(t, asksForToken(auth))], asUser(t));
  await arbiter.read();
  auth.token = 'two';
  assert.deepEqual(await Promise.all([arbiter.read(), arbiter.probe()]), [NOTHING, NOTHING]);
});
