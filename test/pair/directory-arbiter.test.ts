import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { PairRecord } from '../../src/pair/arbiter.ts';
import { DirectoryArbiter } from '../../src/pair/directory-arbiter.ts';

const folder = await mkdtemp(join(tmpdir(), 'colo-arbiter-'));
after(() => rm(folder, { recursive: true }));

let directories = 0;
const fresh = () => join(folder, `${directories++}`);
const record = (generation: number, primary: string): PairRecord => ({
  generation,
  state: 'alone',
  primary,
  secondary: null,
});

test('an empty directory has no record, and a missing one is created', async () => {
  assert.deepEqual(await new DirectoryArbiter(join(fresh(), 'deeper')).read(), { revision: 0, record: null });
});

test('both nodes read a change, and a swap with an old revision changes nothing', async () => {
  const directory = fresh();
  const [one, two] = [new DirectoryArbiter(directory), new DirectoryArbiter(directory)];
  const { revision } = await one.read();
  assert.deepEqual(await one.compareAndSwap(revision, record(1, 'a')), {
    won: true,
    revision: 1,
    record: record(1, 'a'),
  });
  assert.deepEqual(await two.read(), { revision: 1, record: record(1, 'a') });
  assert.deepEqual(await two.compareAndSwap(0, record(1, 'b')), {
    won: false,
    revision: 1,
    record: record(1, 'a'),
  });
  const pair: PairRecord = { generation: 2, state: 'pair', primary: 'a', secondary: 'b' };
  assert.equal((await two.compareAndSwap(1, pair)).won, true);
  assert.deepEqual(await one.read(), { revision: 2, record: pair });
});

test('one of several concurrent swaps wins, and each returns the winner’s record', async () => {
  const directory = fresh();
  await new DirectoryArbiter(directory).read();
  for (let revision = 0; revision < 5; revision++) {
    const names = ['a', 'b', 'c', 'd'];
    const results = await Promise.all(
      names.map((name) =>
        new DirectoryArbiter(directory).compareAndSwap(revision, record(revision + 1, name)),
      ),
    );
    const won = results.flatMap((result, i) => (result.won ? [names[i]] : []));
    assert.equal(won.length, 1);
    for (const result of results) {
      assert.equal(result.revision, revision + 1);
      assert.equal(result.record?.primary, won[0]);
    }
  }
  assert.equal((await readdir(directory)).length, 5, 'no drafts are left');
});

test('a swap that won returns its own record, even if the other node has changed it since', async () => {
  const directory = fresh();
  const arbiter = new DirectoryArbiter(directory);
  await arbiter.read();
  // The other node's later change is already there when this one's directory is read again.
  await writeFile(join(directory, '00000002.json'), JSON.stringify(record(2, 'b')));
  assert.deepEqual(await arbiter.compareAndSwap(0, record(1, 'a')), {
    won: true,
    revision: 1,
    record: record(1, 'a'),
  });
});

test('files that a crash left are not records', async () => {
  const directory = fresh();
  const arbiter = new DirectoryArbiter(directory);
  await arbiter.read();
  await arbiter.compareAndSwap(0, record(1, 'a'));
  for (const name of ['draft-5b0c', '00000009.json.tmp', '9.json', '000000010.json', 'x00000007.json']) {
    await writeFile(join(directory, name), '{"half');
  }
  assert.deepEqual(await arbiter.read(), { revision: 1, record: record(1, 'a') });
  assert.equal((await arbiter.compareAndSwap(1, record(2, 'b'))).won, true);
});

test('the record has versions after the ninth', async () => {
  const arbiter = new DirectoryArbiter(fresh());
  await arbiter.read();
  for (let i = 0; i < 11; i++) assert.equal((await arbiter.compareAndSwap(i, record(i + 1, 'a'))).won, true);
  assert.equal((await arbiter.read()).revision, 11);
});

test('an unusable directory and a malformed record are COLO_ARBITER_UNREACHABLE', async () => {
  const file = fresh();
  await writeFile(file, '');
  const unreachable = { code: 'COLO_ARBITER_UNREACHABLE', message: new RegExp(file) };
  await assert.rejects(new DirectoryArbiter(file).read(), unreachable);
  await assert.rejects(new DirectoryArbiter(file).compareAndSwap(0, record(1, 'a')), unreachable);
  for (const text of ['', '{}', '{"generation":0,"state":"alone","primary":"a","secondary":null}']) {
    const directory = fresh();
    await mkdir(directory);
    await writeFile(join(directory, '00000001.json'), text);
    await assert.rejects(new DirectoryArbiter(directory).read(), { code: 'COLO_ARBITER_UNREACHABLE' });
  }
});
