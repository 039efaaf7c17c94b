import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ENHANCED_PACKET = 6;
const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

function sim(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

test('wrong usage is reported in one line', () => {
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

test('a seed gives the same world in a process of its own and in a thread', () => {
  const { seed, ...alone } = JSON.parse(sim('--seed', '3', '--json').stdout) as Record<string, unknown>;
  const threads = JSON.parse(sim('--seeds', '3..3', '--json').stdout) as Record<string, unknown>;
  assert.equal(seed, 3);
  assert.deepEqual(threads.totals, alone.stats);
});

test('a capture has every frame of its world', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-sim-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'world.pcapng');
  const { stats } = JSON.parse(sim('--seed', '11', '--json', '--pcap', path).stdout) as {
    stats: { frames: number };
  };
  const bytes = readFileSync(path);
  let frames = 0;
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at + 4)) {
    if (bytes.readUInt32LE(at) === ENHANCED_PACKET) frames++;
  }
  assert.equal(frames, stats.frames);
  assert.ok(bytes.length > 1 << 20, 'more than a buffer has room for');
});
