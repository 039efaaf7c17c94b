import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempFolder } from '../temp-folder.ts';
import { runColo, startColo } from './colo.ts';

/** The node "a", whose file was copied to the other host; its "QEMU" never replies. */
const configOf = (path: string, listen: string, peer: string) => `
node: a
pair: web
link: { listen: "unix-listen:${path}/${listen}", peer: "unix:${path}/${peer}" }
uplink: unix:${path}/uplink
arbiter: { directory: ${path}/arbiter }
vm:
  command: [sh, -c, 'case "$*" in *-version*) exit 1 ;; esac; exec sleep 60', qemu]
  args: []
  mac: 52:54:00:12:34:56
  addresses: []
runDirectory: ${path}/run-${listen}
`;

test('of two nodes with one name the one that starts later ends, and says why', {
  timeout: 30_000,
}, async (t) => {
  const path = tempFolder(t);
  writeFileSync(join(path, 'first.yaml'), configOf(path, 'first', 'second'));
  writeFileSync(join(path, 'second.yaml'), configOf(path, 'second', 'first'));
  const first = startColo(['node', '-c', join(path, 'first.yaml')]);
  t.after(() => first.kill('SIGKILL'));
  while (!(await once(first.stdout, 'data')).join('').includes('node.started'));
  first.stdout.resume();
  const { code, out } = await runColo(['node', '-c', join(path, 'second.yaml')]);
  assert.equal(code, 1);
  assert.match(out, /node\.stopped code=1 message="?COLO_LINK_TWIN: a node that calls itself "?/);
  assert.equal(first.exitCode, null);
});
