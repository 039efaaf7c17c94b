import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { cached, cacheFolder, inCache, withLock } from '../../lab/cache.ts';
import { ColoError } from '../../src/error.ts';

const CACHE_MODULE = new URL('../../lab/cache.ts', import.meta.url).pathname;

function folder(t: { after(fn: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), 'colo-test-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test('COLO_CACHE comes before XDG_CACHE_HOME, and that before ~/.cache', () => {
  assert.equal(cacheFolder({ COLO_CACHE: '/a', XDG_CACHE_HOME: '/b' }), '/a');
  assert.equal(cacheFolder({ XDG_CACHE_HOME: '/b' }), '/b/colo-proxy');
  assert.match(cacheFolder({}), /\/\.cache\/colo-proxy$/);
});

test('a step is built once, and a failed one continues from what it had', async (t) => {
  const cache = folder(t);
  let builds = 0;
  const step = {
    name: 'thing',
    recipe: 3,
    megabytes: 1,
    build: async (into: string): Promise<void> => {
      builds += 1;
      if (builds === 2)
        assert.ok(existsSync(join(into, 'half')), 'the second attempt finds the files of the first');
      writeFileSync(join(into, 'half'), '');
      if (builds === 1) throw new Error('interrupted');
    },
  };
  await assert.rejects(cached(step, cache), /interrupted/);
  assert.equal(await cached(step, cache), join(cache, 'thing-3'));
  assert.equal(await cached(step, cache), join(cache, 'thing-3'));
  assert.equal(builds, 2);
  assert.deepEqual(readdirSync(cache), ['thing-3']);
});

test('a full disk and a read-only cache have an error of their own each', async () => {
  const failing = (code: string) =>
    inCache('/c', () => Promise.reject(Object.assign(new Error(code), { code })));
  await assert.rejects(failing('ENOSPC'), (e) => e instanceof ColoError && e.code === 'COLO_SETUP_SPACE');
  await assert.rejects(failing('EROFS'), (e) => e instanceof ColoError && e.code === 'COLO_SETUP_CACHE');
  await assert.rejects(failing('ECONNRESET'), (e) => !(e instanceof ColoError));
});

test('a step that needs more than the disk has is refused before it starts', async (t) => {
  const step = { name: 'huge', recipe: 1, megabytes: 1e9, build: () => assert.fail('it must not start') };
  await assert.rejects(cached(step, folder(t)), /COLO_CACHE/);
});

test('the lock of a dead process is free, also when another process has its number', async (t) => {
  const cache = folder(t);
  const lock = join(cache, 'lock');
  const dead = spawn('true');
  await once(dead, 'exit');
  for (const holder of [`${dead.pid} 1`, `${process.pid} 1`, 'garbage', '']) {
    writeFileSync(lock, holder);
    assert.equal(
      await withLock(lock, async () => readFileSync(lock, 'utf8').split(' ')[0]),
      `${process.pid}`,
    );
  }
  assert.deepEqual(readdirSync(cache), []);
});

test('only one of many processes has the lock at a time, even after a stale lock', async (t) => {
  const cache = folder(t);
  const lock = join(cache, 'lock');
  writeFileSync(lock, '1 1');
  // Each process slowly adds one to a number in a file: two at once would lose an addition.
  const program = `
    import { readFileSync, writeFileSync } from 'node:fs';
    import { setTimeout as sleep } from 'node:timers/promises';
    import { withLock } from ${JSON.stringify(CACHE_MODULE)};
    const file = ${JSON.stringify(join(cache, 'number'))};
    for (let i = 0; i < 3; i += 1) await withLock(${JSON.stringify(lock)}, async () => {
      const n = Number(readFileSync(file, 'utf8'));
      await sleep(5);
      writeFileSync(file, String(n + 1));
    });`;
  writeFileSync(join(cache, 'number'), '0');
  const children = Array.from({ length: 4 }, () => {
    return spawn(process.execPath, ['--input-type=module-typescript', '-e', program], { stdio: 'ignore' });
  });
  await Promise.all(children.map((child) => once(child, 'exit')));
  assert.equal(readFileSync(join(cache, 'number'), 'utf8'), '12');
});

test('the lock is free again after a failure', async (t) => {
  const lock = join(folder(t), 'lock');
  await assert.rejects(withLock(lock, () => Promise.reject(new Error('no'))));
  assert.equal(existsSync(lock), false);
  await Promise.race([withLock(lock, async () => {}), sleep(1000).then(() => assert.fail('still locked'))]);
});
