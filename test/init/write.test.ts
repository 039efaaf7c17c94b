/** All planned files or none, and never over another. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { PlannedFile } from '../../src/init/pair.ts';
import { writeAll } from '../../src/init/write.ts';
import { tempFolder } from '../temp-folder.ts';

const FILES: readonly PlannedFile[] = [
  { path: 'a/etc/key', text: 'secret', mode: 0o600 },
  { path: 'a/etc/yaml', text: 'node: a', mode: 0o644 },
  { path: 'b/etc/yaml', text: 'node: b', mode: 0o644 },
];
const modeOf = (path: string): number => statSync(path).mode & 0o777;

test('files are written with their modes, whatever the umask is', async (t) => {
  const out = join(tempFolder(t), 'deep/out');
  const before = process.umask(0o077);
  t.after(() => process.umask(before));
  const written = await writeAll(out, FILES);
  assert.deepEqual(written, { files: FILES.map(({ path }) => join(out, path)), kept: [] });
  assert.deepEqual(
    FILES.map(({ path }) => [readFileSync(join(out, path), 'utf8'), modeOf(join(out, path))]),
    FILES.map(({ text, mode }) => [text, mode]),
  );
  assert.deepEqual([modeOf(out), modeOf(join(out, 'a/etc'))], [0o700, 0o755]);
});

test('the folder of the keys is for its owner alone, however it is written', async (t) => {
  const parent = tempFolder(t);
  for (const [out, made] of [
    ['slash/', 'slash'],
    ['./dot//here/.', 'dot/here'],
  ]) {
    await writeAll(`${parent}/${out}`, FILES);
    assert.equal(modeOf(join(parent, made)), 0o700, out);
  }
});

test('what is there with the same contents is kept, and other contents are an error before anything is written', async (t) => {
  const out = tempFolder(t);
  mkdirSync(join(out, 'a/etc'), { recursive: true });
  writeFileSync(join(out, 'a/etc/yaml'), 'node: a');
  const again = await writeAll(out, FILES);
  assert.deepEqual(again.kept, [join(out, 'a/etc/yaml')]);
  assert.deepEqual((await writeAll(out, FILES)).files, []);
  const other = tempFolder(t);
  mkdirSync(join(other, 'a/etc'), { recursive: true });
  writeFileSync(join(other, 'a/etc/yaml'), 'mine');
  symlinkSync('/nowhere', join(other, 'a/etc/key'));
  await assert.rejects(writeAll(other, FILES), (error: Error & { code?: string }) => {
    assert.equal(error.code, 'COLO_INIT_EXISTS');
    assert.match(error.message, /a\/etc\/key, .*a\/etc\/yaml are there already with other contents/);
    return true;
  });
  assert.deepEqual(readdirSync(other), ['a']);
  assert.equal(readFileSync(join(other, 'a/etc/yaml'), 'utf8'), 'mine');
});

test('a write that fails leaves nothing behind', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'file'), '');
  await assert.rejects(writeAll(join(folder, 'file/out'), FILES), { code: 'COLO_INIT_WRITE' });
  const out = join(folder, 'out');
  mkdirSync(out);
  // The last folder cannot be made.
  writeFileSync(join(out, 'b'), '');
  await assert.rejects(writeAll(out, FILES), { code: 'COLO_INIT_WRITE' });
  assert.deepEqual(readdirSync(out), ['b']);
});

test('a signal during the writes leaves nothing behind', async (t) => {
  const out = join(tempFolder(t), 'out');
  const writing = writeAll(out, FILES);
  process.emit('SIGINT', 'SIGINT');
  await assert.rejects(writing, {
    code: 'COLO_INIT_STOPPED',
    message: /stopped by SIGINT; nothing was written/,
  });
  assert.equal(existsSync(out), false);
  assert.equal(process.listenerCount('SIGINT'), 0);
});
