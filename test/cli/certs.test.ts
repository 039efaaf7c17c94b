import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadCredentials } from '../../src/link/credentials.ts';
import { tempFolder } from '../temp-folder.ts';
import { type Result, runColo } from './colo.ts';

const folder = tempFolder();
const certs = (...args: string[]): Promise<Result> => runColo(['certs', ...args], folder);
const PAIR = ['--pair', 'web', '--nodes', 'a', 'b'];
const DAY_MS = 86_400_000;

const filesOf = (out: string, node: string) => ({
  ca: join(folder, out, 'ca.crt'),
  certificate: join(folder, out, `${node}.crt`),
  key: join(folder, out, `${node}.key`),
});
const daysOf = (path: string): number => {
  const { validFrom, validTo } = new X509Certificate(readFileSync(path));
  return (Date.parse(validTo) - Date.parse(validFrom)) / DAY_MS;
};

test('colo certs makes what both nodes accept, with keys for one user', async () => {
  const made = await certs(...PAIR, '--out', 'new');
  assert.equal(made.code, 0, made.err);
  assert.match(
    made.out,
    /^Node a \(colo:\/\/web\/a, 730 days\): copy new\/ca\.crt, new\/a\.crt, new\/a\.key to its host\.$/m,
  );
  assert.deepEqual(readdirSync(join(folder, 'new')).toSorted(), [
    'a.crt',
    'a.key',
    'b.crt',
    'b.key',
    'ca.crt',
    'ca.key',
  ]);
  assert.equal(statSync(join(folder, 'new')).mode & 0o777, 0o700);
  for (const name of ['ca', 'a', 'b'])
    assert.equal(statSync(join(folder, 'new', `${name}.key`)).mode & 0o777, 0o600);
  for (const node of ['a', 'b']) loadCredentials(filesOf('new', node), { pair: 'web', node });
  // From a day before they were made, against clocks that differ.
  assert.equal(daysOf(filesOf('new', 'a').certificate), 731);
  const ca = new X509Certificate(readFileSync(filesOf('new', 'a').ca));
  assert.ok(ca.ca && ca.verify(ca.publicKey));
});

test('no file is overwritten, and the files before it are not touched', async () => {
  await certs(...PAIR, '--out', 'once');
  const before = readFileSync(join(folder, 'once', 'a.key'), 'utf8');
  const again = await certs(...PAIR, '--out', 'once', '--json');
  assert.equal(again.code, 1);
  assert.match(
    again.out,
    /^\{"error":\{"code":"COLO_CERTS_EXISTS","message":"once\/ca\.key is there already/,
  );
  assert.equal(readFileSync(join(folder, 'once', 'a.key'), 'utf8'), before);
  mkdirSync(join(folder, 'some'));
  writeFileSync(join(folder, 'some', 'b.crt'), 'mine');
  assert.match((await certs(...PAIR, '--out', 'some')).err, /^COLO_CERTS_EXISTS: some\/b\.crt/);
  assert.deepEqual(readdirSync(join(folder, 'some')), ['b.crt']);
});

test('a CA issues the next certificates of its pair, and no other folder is taken for one', async () => {
  await certs(...PAIR, '--out', 'first');
  const next = await certs(...PAIR, '--out', 'next', '--ca', 'first', '--days', '90', '--json');
  assert.equal(next.code, 0, next.err);
  assert.deepEqual(JSON.parse(next.out), { files: ['next/a.key', 'next/a.crt', 'next/b.key', 'next/b.crt'] });
  loadCredentials({ ...filesOf('next', 'b'), ca: filesOf('first', 'b').ca }, { pair: 'web', node: 'b' });
  assert.equal(daysOf(filesOf('next', 'b').certificate), 91);
  await certs(...PAIR, '--out', 'mixed');
  copyFileSync(join(folder, 'first', 'ca.key'), join(folder, 'mixed', 'ca.key'));
  for (const [ca, key] of [
    ['nothing', null],
    ['garbled', 'no key'],
    ['mixed', null],
  ] as const) {
    if (key !== null) {
      mkdirSync(join(folder, ca));
      writeFileSync(join(folder, ca, 'ca.key'), key);
      writeFileSync(join(folder, ca, 'ca.crt'), key);
    }
    assert.match(
      (await certs(...PAIR, '--out', `from-${ca}`, '--ca', ca)).err,
      /^COLO_CERTS_CA: the CA in (nothing|garbled|mixed)/,
    );
  }
});

test('wrong names, days and folders are refused before anything is written', async () => {
  for (const [args, why] of [
    [['--pair', 'a/b', '--nodes', 'a', 'b'], /COLO_USAGE: .*"a\/b" is no name; use 1 to 63/],
    [['--pair', 'web', '--nodes', 'a'], /COLO_USAGE: a pair has two nodes of different names/],
    [['--pair', 'web', '--nodes', 'a', 'a'], /COLO_USAGE: a pair has two nodes of different names/],
    [['--pair', 'web', '--nodes', 'a', 'b', 'c'], /COLO_USAGE: a pair has two nodes/],
    [['--pair', 'web', '--nodes', 'a', '../b'], /COLO_USAGE: .*"\.\.\/b" is no name/],
    [['--pair', 'web', '--nodes', 'a', 'ca'], /COLO_USAGE: a node cannot be called "ca" here/],
    [[...PAIR, '--days', '0'], /COLO_USAGE: .*from 1 to 3650/],
  ] as const) {
    const { code, err } = await certs(...args, '--out', 'wrong');
    assert.equal(code, 2, err);
    assert.match(err, why);
  }
  assert.ok(!readdirSync(folder).includes('wrong'));
  const file = join(folder, 'file');
  writeFileSync(file, '');
  chmodSync(file, 0o444);
  assert.match((await certs(...PAIR, '--out', 'file/x')).err, /^COLO_CERTS_WRITE: cannot write to file\/x/);
});
