import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { type CpioEntry, writeCpio } from '../../lab/guest/cpio.ts';
import { installGuest } from '../../lab/guest/image.ts';

const ENTRIES: CpioEntry[] = [
  { kind: 'directory', path: 'dev' },
  { kind: 'character', path: 'dev/console', major: 5, minor: 1 },
  { kind: 'file', path: 'dev/abc', data: Buffer.from('hello'), mode: 0o755 },
  { kind: 'symlink', path: 'lib', target: 'usr/lib' },
];

type Header = { name: string; mode: number; links: number; bytes: number; device: string; data: Buffer };

function parse(archive: Buffer): Header[] {
  const headers: Header[] = [];
  let at = 0;
  while (at < archive.length) {
    assert.equal(archive.toString('latin1', at, at + 6), '070701');
    const field = (i: number): number =>
      Number.parseInt(archive.toString('latin1', at + 6 + i * 8, at + 14 + i * 8), 16);
    const nameEnd = at + 110 + field(11);
    assert.equal(archive[nameEnd - 1], 0);
    const name = archive.toString('utf8', at + 110, nameEnd - 1);
    const start = (nameEnd + 3) & ~3;
    const data = archive.subarray(start, start + field(6));
    const device = `${field(9)}:${field(10)}`;
    headers.push({ name, mode: field(1), links: field(4), bytes: field(6), device, data });
    at = (start + field(6) + 3) & ~3;
  }
  return headers;
}

test('each entry has its type, mode, device and data at aligned offsets', () => {
  const [dev, console, file, link, trailer, ...rest] = parse(writeCpio(ENTRIES));
  assert.deepEqual([dev.name, dev.mode, dev.links], ['dev', 0o040755, 2]);
  assert.deepEqual([console.name, console.mode, console.device], ['dev/console', 0o020600, '5:1']);
  assert.deepEqual([file.name, file.mode, file.data.toString()], ['dev/abc', 0o100755, 'hello']);
  assert.deepEqual([link.name, link.mode, link.data.toString()], ['lib', 0o120777, 'usr/lib']);
  assert.deepEqual([trailer.name, trailer.bytes], ['TRAILER!!!', 0]);
  assert.equal(rest.length, 0);
});

test('an entry before its folder is refused, since the kernel would drop it silently', () => {
  assert.throws(() => writeCpio([{ kind: 'symlink', path: 'a/b', target: 'c' }]), /before its folder/);
});

test("the guest's own cpio reads the archive", async () => {
  const { initrd } = await installGuest();
  const busybox = join(dirname(initrd), 'parts', 'usr', 'bin', 'busybox');
  const listed = spawnSync(busybox, ['cpio', '-t'], { input: writeCpio(ENTRIES), encoding: 'utf8' });
  assert.equal(listed.stdout, 'dev\ndev/console\ndev/abc\nlib\n', listed.stderr);
});
