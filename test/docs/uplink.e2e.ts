/**
 * The uplink of docs/operation.md: the page's own commands, in a network namespace with a bridge on which broadcasts come
 * without a pause. Needs root and /dev/net/tun.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import { NEEDS_ROOT } from '../namespaces.ts';
import { readDoc } from './tables.ts';

const SOCKET = '/run/colo/a-uplink/uplink.sock';
/** With the tap up from the beginning, a third of the starts fail. */
const STARTS = 6;

/** Returns the blocks of the section. */
function blocks(): string[] {
  const [, section] = readDoc('docs/operation.md').split('\n## The uplink\n');
  const [text] = section.split('\n## ');
  return [...text.matchAll(/```\n([^`]*)```/g)].map(([, block]) => block);
}

test('the unit brings the tap up last, and down before the helper starts again', () => {
  const unit = readDoc('deploy/systemd/colo-uplink@.service');
  const lines = unit.split('\n').filter((line) => /^(ExecStart|Restart=always)/.test(line));
  const order = [
    'tuntap add',
    'down master br0',
    'ExecStart=/usr/bin/qemu',
    '[ -S /run/colo/%i',
    'colo-%i up',
  ];
  const at = order.map((words) => lines.findIndex((line) => line.includes(words)));
  assert.deepEqual(
    at,
    [...at].sort((a, b) => a - b),
  );
  assert.ok(!at.includes(-1), lines.join('\n'));
  for (const text of [unit, readDoc('docs/operation.md')]) assert.doesNotMatch(text, /master br0 up/);
});

test("the page's commands make an uplink, whatever the bridge carries", { skip: NEEDS_ROOT }, async (t) => {
  const install = await installQemu();
  const folder = workFolder();
  const space = `colo-uplink-${process.pid}`;
  const inSpace = (words: string): string[] => ['ip', 'netns', 'exec', space, 'sh', '-ec', words];
  const run = (words: string): void => {
    const [program, ...args] = inSpace(words);
    execFileSync(program, args, { stdio: 'pipe', timeout: 20_000 });
  };
  execFileSync('ip', ['netns', 'add', space]);
  t.after(() => {
    execFileSync('ip', ['netns', 'del', space]);
    removeWorkFolder(folder);
  });
  run(`ip link add br0 type bridge; ip link set br0 up
    ip link add near type veth peer name far; ip link set far master br0 up
    ip addr add 10.9.0.1/24 broadcast 10.9.0.255 dev near; ip link set near up`);
  // Nobody replies; each datagram is a frame to all.
  const datagrams = `const s = require('node:dgram').createSocket('udp4').bind(() => {
    s.setBroadcast(true); setInterval(() => { for (let i = 0; i < 50; i++) s.send('x', 9, '10.9.0.255') }, 5) })`;
  const flood = startChild(['ip', 'netns', 'exec', space, process.execPath, '-e', datagrams], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  t.after(() => stopChild(flood));

  const quoted = install.command.map((word) => `'${word}'`).join(' ');
  const [first, helper, last] = blocks().map((block) =>
    block
      .replaceAll(SOCKET, join(folder, 'u.sock'))
      .replaceAll(' user colo', '')
      .replace(/^qemu-system-x86_64/, `exec ${quoted}`),
  );
  run(first);
  const [program, ...args] = inSpace(helper);
  for (let start = 1; start <= STARTS; start++) {
    if (start > 1) run('ip link set colo-a down');
    rmSync(join(folder, 'u.sock'), { force: true });
    const qemu = startChild([program, ...args], {
      env: { ...process.env, ...install.env },
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    t.after(() => stopChild(qemu));
    run(last);
    const node = connect(join(folder, 'u.sock'));
    t.after(() => node.destroy());
    const [bytes] = (await once(node, 'data', { signal: AbortSignal.timeout(10_000) })) as [Buffer];
    assert.ok(bytes.length > 4 && bytes.readUInt32BE() >= 42, 'a frame of the bridge arrives');
    assert.deepEqual([qemu.exitCode, qemu.signalCode], [null, null]);
    await stopChild(qemu);
  }
});
