/** Where the token is, and where it is not. */
import assert from 'node:assert/strict';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { newToken, tokenInFile } from '../../src/dashboard/token.ts';
import { startColo } from '../cli/colo.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();

test('a token is new each time, and long enough not to be guessed', () => {
  assert.notEqual(newToken(), newToken());
  assert.match(newToken(), /^[A-Za-z0-9_-]{32}$/);
});

test('a token file is made for its owner only, and read again', () => {
  const file = join(folder, 'token');
  const token = tokenInFile(file);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(readFileSync(file, 'utf8'), `${token}\n`);
  assert.equal(tokenInFile(file), token);
});

test('a token file that others may read, or without a token, is refused', () => {
  const file = join(folder, 'open');
  tokenInFile(file);
  chmodSync(file, 0o644);
  assert.throws(() => tokenInFile(file), { code: 'COLO_SECRET_FILE' });
  writeFileSync(join(folder, 'short'), 'secret\n', { mode: 0o600 });
  assert.throws(() => tokenInFile(join(folder, 'short')), { code: 'COLO_DASHBOARD_TOKEN_FILE' });
  assert.throws(() => tokenInFile(join(folder, 'none', 'token')), { code: 'COLO_DASHBOARD_TOKEN_FILE' });
});

/** Runs it until it has printed where it is, and ends it in order. */
async function printed(args: readonly string[]): Promise<string> {
  const socket = join(folder, 'no-node.sock');
  const child = startColo(['dashboard', '--socket', socket, '--listen', 'tcp-listen:127.0.0.1:0', ...args]);
  let text = '';
  for (const output of [child.stdout, child.stderr])
    output.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      if (/127\.0\.0\.1:\d+\/.*\n/.test(text)) child.kill('SIGTERM');
    });
  assert.equal(await new Promise((resolve) => child.once('close', resolve)), 0, text);
  return text;
}

test('without a file the token is in the fragment that is printed; with one it is not printed', async () => {
  assert.match(await printed([]), /^The dashboard is at http:\/\/127\.0\.0\.1:\d+\/#[A-Za-z0-9_-]{32}\n/);
  const file = join(folder, 'service');
  for (const args of [[], ['--json']]) {
    const text = await printed(['--token-file', file, ...args]);
    assert.ok(text.includes(file));
    assert.ok(!text.includes(readFileSync(file, 'utf8').trim()));
  }
});
