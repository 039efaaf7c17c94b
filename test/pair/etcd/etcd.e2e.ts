/** The requests, and what goes wrong, on a real etcd. */
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabEtcd, type LabEtcdOptions } from '../../../lab/etcd.ts';
import {
  EtcdArbiter,
  type EtcdOptions,
  membersOf,
  QUESTION_MS_MAX,
} from '../../../src/pair/etcd/etcd-arbiter.ts';
import type { EtcdMember } from '../../../src/pair/etcd/member.ts';
import {
  changeRequest,
  encodeValue,
  probeRequest,
  readRequest,
  statusRequest,
  tokenRequest,
} from '../../../src/pair/etcd/requests.ts';
import { tempFolder } from '../../temp-folder.ts';
import { alone, noReply } from '../arbiter-conformance.ts';
import { certificatePath } from './fake-etcd.ts';
import { ETCD_OPTIONS } from './real.ts';

const KEY = '/colo/web';
/** Well above an election of etcd, which takes one to two seconds. */
const ELECTED_MS_MAX = 10_000;

async function start(t: TestContext, options: Partial<LabEtcdOptions> = {}): Promise<LabEtcd> {
  const etcd = await LabEtcd.start({ directory: tempFolder(t), members: 1, ...options });
  t.after(() => etcd.stop());
  return etcd;
}

function open(t: TestContext, etcd: LabEtcd, options: Partial<EtcdOptions> = {}): EtcdArbiter {
  const arbiter = new EtcdArbiter({ ...ETCD_OPTIONS, endpoints: etcd.endpoints, key: KEY, ...options });
  t.after(() => arbiter.close());
  return arbiter;
}

function onlyMember(t: TestContext, etcd: LabEtcd): EtcdMember {
  const [member] = membersOf({ ...ETCD_OPTIONS, endpoints: etcd.endpoints });
  t.after(() => member.close());
  return member;
}

/** Until the first reply; the time that it took. */
async function untilReply(arbiter: EtcdArbiter): Promise<number> {
  const beginMs = performance.now();
  for (;;) {
    try {
      await arbiter.probe();
      return performance.now() - beginMs;
    } catch (cause) {
      assert.ok(performance.now() - beginMs < ELECTED_MS_MAX, String(cause));
    }
  }
}

test('etcd understands each field of each request', async (t) => {
  const etcd = await start(t);
  const member = onlyMember(t, etcd);
  const { signal } = new AbortController();
  const ask = <Reply>(request: Parameters<typeof member.ask<Reply>>[0]) => member.ask(request, signal);

  // A compare that must fail, of a key that does not exist: a misspelt field would let it succeed.
  const missing = await ask(changeRequest(KEY, 7, 'never'));
  assert.deepEqual([missing.succeeded, missing.held], [false, { revision: 0, value: null }]);
  assert.deepEqual((await ask(probeRequest(KEY))).succeeded, false);
  assert.deepEqual((await ask(readRequest(KEY))).held, { revision: 0, value: null });

  const first = await ask(changeRequest(KEY, 0, 'one: ä'));
  assert.equal(first.succeeded, true);
  assert.deepEqual((await ask(readRequest(KEY))).held, { revision: first.held.revision, value: 'one: ä' });
  // Of a key that exists: 0, another revision, and the key's version, which is 1.
  await ask(changeRequest('/colo/other', 0, 'x'));
  for (const revision of [0, 1, first.held.revision + 1]) {
    const refused = await ask(changeRequest(KEY, revision, 'never'));
    assert.deepEqual([refused.succeeded, refused.held], [false, first.held], `revision ${revision}`);
  }
  const second = await ask(changeRequest(KEY, first.held.revision, 'two'));
  assert.equal(second.succeeded, true);
  assert.ok(
    second.held.revision > first.held.revision + 1,
    'the revision is the store’s, not the key’s version',
  );
  const probed = await ask(probeRequest(KEY));
  assert.deepEqual([probed.succeeded, probed.held], [false, second.held]);
  assert.equal((await etcd.ctl('get', '--print-value-only', KEY)).trim(), 'two');

  const status = await ask(statusRequest());
  assert.match(status.version, /^3\.\d+\.\d+$/);
  assert.deepEqual([status.hasLeader, status.alarms], [true, []]);
  assert.equal(status.header.cluster, second.header.cluster);
  await assert.rejects(ask(tokenRequest('nobody', 'x')), { code: 'COLO_ARBITER_AUTH' });
});

test('the probe asks the cluster, and leaves its history as it was', async (t) => {
  const etcd = await start(t);
  const arbiter = open(t, etcd);
  const before = (await onlyMember(t, etcd).ask(statusRequest(), new AbortController().signal)).header
    .revision;
  for (let i = 0; i < 10; i++) await arbiter.probe();
  const after = (await onlyMember(t, etcd).ask(statusRequest(), new AbortController().signal)).header
    .revision;
  assert.equal(after, before);
});

test('a history that was compacted does not matter', async (t) => {
  const etcd = await start(t);
  const arbiter = open(t, etcd);
  const { revision } = await arbiter.compareAndSwap(0, alone(1, 'a'));
  for (let i = 0; i < 20; i++) await etcd.ctl('put', 'other', String(i));
  await etcd.ctl('compact', String(revision + 20));
  await etcd.ctl('defrag');
  assert.deepEqual(await arbiter.read(), { revision, record: alone(1, 'a') });
  assert.equal((await arbiter.compareAndSwap(revision, alone(2, 'a'))).won, true);
});

test('without space etcd is read, and the probe says that it cannot be written', async (t) => {
  const etcd = await start(t, { args: ['--quota-backend-bytes', '131072'] });
  const arbiter = open(t, etcd);
  const { revision } = await arbiter.compareAndSwap(0, alone(1, 'a'));
  await assert.rejects(async () => {
    for (let i = 0; i < 40; i++) await etcd.ctl('put', `big-${i}`, 'x'.repeat(50_000));
  }, /database space exceeded/);
  assert.deepEqual(await arbiter.read(), { revision, record: alone(1, 'a') });
  for (const refused of [arbiter.probe(), arbiter.compareAndSwap(revision, alone(2, 'a'))]) {
    const cause = await noReply(refused);
    assert.equal(cause.code, 'COLO_ARBITER_SPACE');
    assert.match(cause.message, /etcdctl alarm disarm/);
  }
  await etcd.ctl('del', '--prefix', 'big');
  const now = await etcd.ctl('get', KEY, '--write-out', 'json');
  await etcd.ctl('compact', String((JSON.parse(now) as { header: { revision: number } }).header.revision));
  await etcd.ctl('defrag');
  await etcd.ctl('alarm', 'disarm');
  assert.equal((await arbiter.compareAndSwap(revision, alone(2, 'a'))).won, true);
});

test('a user, a wrong password, a missing right, and a token that expires', async (t) => {
  const etcd = await start(t, { args: ['--auth-token-ttl', '1'] });
  const asRoot = (...args: string[]) => etcd.ctl('--user', 'root:secret', ...args);
  await etcd.ctl('user', 'add', 'root:secret');
  await etcd.ctl('user', 'grant-role', 'root', 'root');
  await etcd.ctl('user', 'add', 'colo:pass word');
  await etcd.ctl('user', 'add', 'guest:guest');
  await etcd.ctl('role', 'add', 'colo');
  await etcd.ctl('role', 'grant-permission', 'colo', '--prefix=true', 'readwrite', '/colo/');
  await etcd.ctl('user', 'grant-role', 'colo', 'colo');
  const passwordFile = join(tempFolder(t), 'password');
  const password = (text: string): void => writeFileSync(passwordFile, `${text}\n`, { mode: 0o600 });
  password('pass word');
  const colo = open(t, etcd, { user: { name: 'colo', passwordFile } });
  // As etcd's own clients do, before authentication is switched on.
  assert.deepEqual(await colo.read(), { revision: 0, record: null });
  const nobody = open(t, etcd);
  await nobody.read();
  await etcd.ctl('auth', 'enable');

  const refusal = await noReply(nobody.read());
  assert.equal(refusal.code, 'COLO_ARBITER_AUTH');
  assert.match(refusal.message, /give arbiter\.etcd\.user/);
  assert.deepEqual(await colo.read(), { revision: 0, record: null }, 'switched on while a node runs');
  const colo2 = open(t, etcd, { user: { name: 'colo', passwordFile } });
  const { won, revision } = await colo2.compareAndSwap(0, alone(1, 'a'));
  assert.equal(won, true);
  // Tokens are looked at once a second.
  await sleep(2500);
  assert.equal((await colo2.probe()).revision, revision, 'a token that etcd has forgotten is replaced');

  const elsewhere = open(t, etcd, { key: '/other/web', user: { name: 'colo', passwordFile } });
  const denied = await noReply(elsewhere.read());
  assert.equal(denied.code, 'COLO_ARBITER_AUTH');
  assert.match(denied.message, /permission denied; give the user a role/);

  password('wrong');
  const wrong = await noReply(open(t, etcd, { user: { name: 'colo', passwordFile } }).read());
  assert.equal(wrong.code, 'COLO_ARBITER_AUTH');
  assert.match(wrong.message, /check arbiter\.etcd\.user and passwordFile/);
  assert.ok(!wrong.message.includes('wrong;'), 'no password in a message');

  // The password is changed while a node runs.
  await asRoot('user', 'delete', 'colo');
  await asRoot('user', 'add', 'colo:other');
  await asRoot('user', 'grant-role', 'colo', 'colo');
  password('other');
  await sleep(2500);
  assert.equal((await colo2.probe()).revision, revision);
});

test('a token that another member does not know is replaced there', async (t) => {
  const etcd = await start(t, { members: 3 });
  const passwordFile = join(tempFolder(t), 'password');
  writeFileSync(passwordFile, 'secret', { mode: 0o600 });
  await etcd.ctl('user', 'add', 'root:secret');
  await etcd.ctl('user', 'grant-role', 'root', 'root');
  await etcd.ctl('auth', 'enable');
  const [member] = etcd.members;
  const arbiter = open(t, etcd, { endpoints: [member.clientUrl], user: { name: 'root', passwordFile } });
  const { revision } = await arbiter.compareAndSwap(0, alone(1, 'a'));
  // It forgets the tokens that it has given.
  await member.kill();
  member.start();
  await untilReply(arbiter);
  assert.equal((await arbiter.read()).revision, revision);
});

test('TLS with certificates on both sides', async (t) => {
  const folder = tempFolder(t);
  const copy = (name: string): string => {
    copyFileSync(certificatePath(name), join(folder, name));
    chmodSync(join(folder, name), 0o600);
    return join(folder, name);
  };
  const ca = copy('ca.pem');
  const etcd = await start(t, { tls: { ca, certificate: copy('server.pem'), key: copy('server.key') } });
  const tls = { ca, certificate: copy('client.pem'), key: copy('client.key') };
  const arbiter = open(t, etcd, { tls });
  assert.equal((await arbiter.compareAndSwap(0, alone(1, 'a'))).won, true);
  assert.deepEqual((await arbiter.probe()).record, alone(1, 'a'));

  // A member that refuses a certificate may end the connection before its reason arrives.
  const stranger = { ca, certificate: copy('other-client.pem'), key: copy('other-client.key') };
  for (const refused of [{ ca, certificate: null, key: null }, stranger]) {
    const { message } = await noReply(open(t, etcd, { tls: refused }).read());
    assert.match(
      message,
      /TLS fails: .*(certificate|alert)|is arbiter\.etcd\.tls\.certificate one that it takes/,
    );
  }
  const otherCa = { ...tls, ca: copy('other-ca.pem') };
  assert.equal((await noReply(open(t, etcd, { tls: otherCa }).read())).code, 'COLO_ARBITER_TLS');
  const plain = etcd.endpoints.map((endpoint) => endpoint.replace('https:', 'http:'));
  assert.match((await noReply(open(t, etcd, { endpoints: plain }).read())).message, /write https:/);
});

test('with one member down etcd replies, without quorum it does not, and then does again', async (t) => {
  const etcd = await start(t, { members: 3 });
  const arbiter = open(t, etcd);
  const { revision } = await arbiter.compareAndSwap(0, alone(1, 'a'));
  const [first, second] = etcd.members;
  await first.kill();
  const oneDownMs = await untilReply(arbiter);
  assert.equal((await arbiter.read()).revision, revision);
  await second.pause();
  for (const asked of [() => arbiter.read(), () => arbiter.probe()]) {
    const beginMs = performance.now();
    const cause = await noReply(asked());
    const ms = performance.now() - beginMs;
    assert.equal(cause.code, 'COLO_ARBITER_UNREACHABLE');
    assert.ok(ms < QUESTION_MS_MAX + 1500, `${ms} ms`);
  }
  second.resume();
  const quorumMs = await untilReply(arbiter);
  first.start();
  assert.deepEqual((await arbiter.read()).record, alone(1, 'a'));
  t.diagnostic(
    `reply after a member's death in ${Math.round(oneDownMs)} ms, with a quorum again in ${Math.round(quorumMs)} ms`,
  );
});

test('a leader that dies or hangs costs an election, and little more', async (t) => {
  // As docs/operation.md advises for a local network.
  const etcd = await start(t, {
    members: 3,
    args: ['--heartbeat-interval', '20', '--election-timeout', '200'],
  });
  const arbiter = open(t, etcd);
  await arbiter.probe();
  const leader = await etcd.leader();
  await leader.kill();
  const deadMs = await untilReply(arbiter);
  leader.start();
  await etcd.ready();
  const next = await etcd.leader();
  await next.pause();
  const hungMs = await untilReply(arbiter);
  next.resume();
  t.diagnostic(
    `reply after a leader's death in ${Math.round(deadMs)} ms, after its pause in ${Math.round(hungMs)} ms`,
  );
});

test('two real clusters are told apart, and so is one that was set up again with older contents', async (t) => {
  const [one, other] = [await start(t, { token: 'one' }), await start(t, { token: 'other' })];
  const mixed = open(t, one, { endpoints: [...one.endpoints, ...other.endpoints] });
  assert.equal((await noReply(mixed.read())).code, 'COLO_ARBITER_CLUSTER');

  const arbiter = open(t, one);
  await arbiter.compareAndSwap(0, alone(1, 'a'));
  const [{ clientUrl }] = one.members;
  await one.stop();
  // The same addresses and the same token give the same cluster_id.
  const again = await start(t, { token: 'one', at: one });
  assert.equal(again.members[0].clientUrl, clientUrl);
  const cause = await noReply(arbiter.read());
  assert.equal(cause.code, 'COLO_ARBITER_CLUSTER');
  assert.match(cause.message, /set up again or restored from a backup/);
});

test('a record of another program is left alone', async (t) => {
  const etcd = await start(t);
  await etcd.ctl('put', KEY, 'mine');
  assert.equal((await noReply(open(t, etcd).read())).code, 'COLO_ARBITER_RECORD');
  await etcd.ctl('put', KEY, encodeValue({ claim: 'by hand', record: alone(4, 'b') }));
  assert.deepEqual((await open(t, etcd).read()).record, alone(4, 'b'));
});
