import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

function sim(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

test('a command that makes no sense is told so in one line', () => {
  for (const args of [
    ['--seed', 'x'],
    ['--seeds', '5..1'],
    ['--seed', '1', '--without', '1,b'],
    ['--pcap', 'file'],
    ['--seed', '1', '--seeds', '1..2'],
  ]) {
    const { status, stdout, stderr } = sim(...args);
    assert.equal(status, 2, args.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, /^sim: --.+\n$/, args.join(' '));
  }
});

test('the same seed is the same world in a process of its own and in a thread', () => {
  const { seed, ...alone } = JSON.parse(sim('--seed', '3', '--json').stdout) as Record<string, unknown>;
  const threads = JSON.parse(sim('--seeds', '3..3', '--json').stdout) as Record<string, unknown>;
  assert.equal(seed, 3);
  assert.deepEqual(threads.totals, alone.stats);
});
