import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { replaceFile, systemFiles } from '../../src/disk/files.ts';
import { tempFolder } from '../temp-folder.ts';
import { LOSSES, MemoryFiles, PowerLost } from './memory-files.ts';

for (const loss of LOSSES)
  test(`whenever power is lost, the old text or the new one is there (${loss})`, async () => {
    for (let steps = 1; ; steps++) {
      const files = new MemoryFiles();
      files.put('/a', 'old');
      files.stepsMax = steps;
      const done = await replaceFile(files, '/a', 'new').then(
        () => true,
        (error: unknown) => {
          assert.ok(error instanceof PowerLost);
          return false;
        },
      );
      // The last step has been done when power is lost after it.
      const isDurable = steps >= 4;
      files.lose(loss);
      const text = files.text('/a');
      assert.ok(text === 'new' || (text === 'old' && !isDurable), `${text} after ${steps} steps`);
      if (done) break;
    }
  });

test('a file of the system is replaced as a whole, closed to others, whatever an earlier try has left', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'state');
  writeFileSync(`${path}.new`, 'half', { mode: 0o644 });
  await replaceFile(systemFiles, path, 'one');
  await replaceFile(systemFiles, path, 'two');
  assert.equal(readFileSync(path, 'utf8'), 'two');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(await systemFiles.read(join(folder, 'missing')), null);
});

test('what a path leads to is seen through symbolic links', async (t) => {
  const folder = tempFolder(t);
  mkdirSync(join(folder, 'real'));
  symlinkSync('real', join(folder, 'link'));
  writeFileSync(join(folder, 'real', 'image'), 'abcdef');
  const image = join(folder, 'link', 'image');
  assert.equal(await systemFiles.realPath(image), join(folder, 'real', 'image'));
  assert.equal(await systemFiles.realPath(join(folder, 'link', 'new')), join(folder, 'real', 'new'));
  assert.equal(await systemFiles.realPath(join(folder, 'no', 'new')), join(folder, 'no', 'new'));
  assert.deepEqual(await systemFiles.look(image), { inode: statSync(image).ino, kind: 'file' });
  assert.equal((await systemFiles.look(folder))?.kind, 'other');
  assert.equal(await systemFiles.look(join(folder, 'no')), null);
  assert.equal((await systemFiles.readStart(image, 4)).toString(), 'abcd');
  assert.equal((await systemFiles.readStart(image, 9)).toString(), 'abcdef');
});
