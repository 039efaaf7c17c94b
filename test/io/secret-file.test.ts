import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readSecretFile } from '../../src/io/secret-file.ts';
import { tempFolder } from '../temp-folder.ts';

const file = join(tempFolder(), 'secret');

function written(text: string, mode: number): string {
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

test('a file of its owner and group is read', () => {
  for (const mode of [0o400, 0o600, 0o640, 0o660])
    assert.equal(readSecretFile(written('pass word\n', mode)), 'pass word\n');
});

test('a file that other users may read, write or execute is refused', () => {
  for (const mode of [0o644, 0o604, 0o602, 0o601, 0o777])
    assert.throws(() => readSecretFile(written('x', mode)), {
      code: 'COLO_SECRET_FILE',
      message: new RegExp(`${file} .* chmod o= ${file}`),
    });
});

test('a file that is empty, missing, too large or a directory is refused', () => {
  const refused = { code: 'COLO_SECRET_FILE' };
  assert.throws(() => readSecretFile(written('\n', 0o600)), { ...refused, message: /is empty/ });
  assert.throws(() => readSecretFile(`${file}-missing`), { ...refused, message: /cannot be read/ });
  assert.throws(() => readSecretFile(written('x'.repeat(2 ** 21), 0o600)), {
    ...refused,
    message: /too large/,
  });
  assert.throws(() => readSecretFile(tempFolder()), refused);
});
