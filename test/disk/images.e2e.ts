/**
 * Images and NBD with QEMU's real tools, and without a guest: what qemu-img makes and judges, and a relay at each end of an NBD
 * connection. About 15 seconds.
 * Run by name: `node --test test/disk/images.e2e.ts`.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import type { Disk, DiskFormat } from '../../src/disk/disk.ts';
import { NbdRelay } from '../../src/disk/nbd-relay.ts';
import { systemDiskStore } from '../../src/disk/system-store.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import { LIMITS } from '../../src/limits.ts';
import { buildCommandLine } from '../../src/qemu/command-line.ts';
import { tempFolder } from '../temp-folder.ts';

const MIB = 1024 * 1024;
const { command, env, imageCommand } = await installQemu();
const folder = tempFolder();
const children: ChildProcess[] = [];
after(() => {
  for (const child of children) child.kill('SIGKILL');
});

const store = systemDiskStore({ node: 'a', pair: 'web', vm: { command, env } });
const environment = { ...process.env, ...env };

function disk(id: string, format: DiskFormat): Disk {
  return {
    id,
    image: join(folder, `${id}.${format}`),
    format,
    device: 'virtio-blk-pci',
    cache: 'writeback',
    overlayDirectory: folder,
  };
}
async function qemuImg(...args: string[]): Promise<void> {
  const done = await run([...imageCommand, ...args], { env: environment });
  assert.equal(done.status, 0, done.stderr);
}
/** Makes a raw file with one MiB of this byte at this MiB. */
function rawFile(path: string, sizeMib: number, mib: number, byte: number): void {
  writeFileSync(path, '');
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(MIB, byte), 0, MIB, mib * MIB);
  if (mib < sizeMib - 1) writeSync(file, Buffer.alloc(1), 0, 1, sizeMib * MIB - 1);
}

for (const format of ['raw', 'qcow2'] as const)
  test(`a secondary gets a blank ${format} image of the size of the primary, closed to others`, async () => {
    const one = disk(`blank-${format}`, format);
    await store.makeBlank(one, 8 * MIB, 1);
    assert.equal(await store.virtualBytes(one), 8 * MIB);
    assert.equal(statSync(one.image).mode & 0o777, 0o600);
    // A blank one may be made by hand, too.
    const other = disk(`by-hand-${format}`, format);
    await qemuImg('create', '-q', '-f', format, other.image, String(8 * MIB));
    await store.makeBlank(other, 8 * MIB, 1);
    await assert.rejects(store.makeBlank(other, 9 * MIB, 1), { code: 'COLO_DISK_IMAGE' });
  });

test('images that are not one file of their format are refused', async () => {
  const base = disk('base', 'raw');
  rawFile(base.image, 4, 1, 7);
  await store.check(base);
  await assert.rejects(store.makeBlank(base, 4 * MIB, 1), /has contents, and no node has used it/);
  const chained = disk('chained', 'qcow2');
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', base.image, '-F', 'raw', chained.image);
  await assert.rejects(store.check(chained), /has the backing file .*base\.raw/);
  const split = disk('split', 'qcow2');
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${join(folder, 'data')}`, split.image, '1M');
  await assert.rejects(store.check(split), /has its data in .*data/);
  await assert.rejects(store.check({ ...base, format: 'qcow2' }), /Image is not in qcow2 format/);
  await assert.rejects(
    store.admit([{ ...split, format: 'raw' }], 1),
    /is a qcow2 image, and its format is given as raw/,
  );
});

test('QEMU takes the disks, and two QEMUs do not take one image', async () => {
  const disks = [disk('vm', 'raw'), disk('vm', 'qcow2')];
  for (const one of disks) await qemuImg('create', '-q', '-f', one.format, one.image, '4M');
  const start = (name: string) => {
    const [program, ...args] = buildCommandLine({
      command,
      args: ['-machine', 'q35', '-m', '64', '-nodefaults', '-display', 'none', '-accel', 'tcg'],
      name,
      nic: { mac: '52:54:00:12:34:56' },
      disks: [disks[0], { ...disks[1], cache: 'none', device: 'virtio-blk-pci,bootindex=0' }],
      vmPort: join(folder, `${name}.port`),
      qmp: join(folder, `${name}.qmp`),
      incoming: false,
      exitWithParent: false,
    });
    const qemu = spawn(program, args, { env: environment, stdio: ['ignore', 'ignore', 'pipe'] });
    children.push(qemu);
    return qemu;
  };
  const first = start('one');
  while (!existsSync(join(folder, 'one.qmp'))) {
    assert.equal(first.exitCode, null, String(first.stderr?.read()));
    await sleep(50);
  }
  await sleep(500);
  assert.equal(first.exitCode, null, String(first.stderr?.read()));
  // The image of a VM that runs can be asked for, and is not overwritten.
  assert.equal(await store.virtualBytes(disks[1]), 4 * MIB);
  const second = start('two');
  let words = '';
  second.stderr?.on('data', (bytes: Buffer) => {
    words += bytes.toString();
  });
  await once(second, 'close');
  assert.match(words, /Failed to get shared "write" lock/);
  first.kill();
  await once(first, 'exit');
});

/** The NBD server of an image, a relay at each node with a connection between them, and where the primary's QEMU connects. */
async function served(image: string, name: string) {
  const { transports, clock, timers } = systemSurroundings;
  const path = (what: string) => join(folder, `${name}.${what}`);
  const nbd = imageCommand.map((part) => part.replace(/qemu-img$/, 'qemu-nbd'));
  const [program, ...args] = [...nbd, '-t', '-k', path('server'), '-x', 'disk0', '-f', 'raw', image];
  const server = spawn(program, args, { env: environment, stdio: 'ignore' });
  children.push(server);
  while (!existsSync(path('server'))) await sleep(20);
  const { promise: accepted, resolve } = Promise.withResolvers<KernelStream>();
  const listener = await transports.listen({ kind: 'unix', mode: 'listen', path: path('link') }, resolve);
  const candidate = await transports.connect(unixEndpoint(path('link')));
  await listener.close();
  const causes: string[] = [];
  const relay = (who: string, peer: KernelStream) =>
    new NbdRelay({ id: 'disk0', peer, clock, timers, closed: (cause) => causes.push(`${who}: ${cause}`) });
  const primary = relay('primary', await accepted);
  const secondary = relay('secondary', candidate);
  const ready = primary.listen(path('qemu'), transports);
  secondary.join(await transports.connect(unixEndpoint(path('server'))));
  await ready;
  after(() => {
    for (const one of [primary, secondary]) one.close();
  });
  return { primary, secondary, server, causes, url: `nbd+unix:///disk0?socket=${path('qemu')}` };
}

test('an image is copied through both relays, byte for byte', async () => {
  const from = join(folder, 'from.raw');
  const to = join(folder, 'to.raw');
  const bytes = Buffer.alloc(24 * MIB);
  for (let at = 0; at < bytes.length; at += 4)
    if ((at >> 20) % 3 !== 0) bytes.writeUInt32BE((at * 2654435761) >>> 0, at);
  writeFileSync(from, bytes);
  await qemuImg('create', '-q', '-f', 'raw', to, String(bytes.length));
  const { primary, causes, url } = await served(to, 'copy');
  const copied = await run([...imageCommand, 'convert', '-n', '-f', 'raw', '-O', 'raw', from, url], {
    env: environment,
  });
  assert.equal(copied.status, 0, `${copied.stderr}${causes}`);
  assert.ok(readFileSync(to).equals(bytes));
  assert.ok(primary.bytes > 16 * MIB && primary.bytes < 26 * MIB, `${primary.bytes} bytes`);
  while (causes.length < 2) await sleep(20);
  assert.deepEqual(causes.toSorted()[0], 'primary: disk disk0: QEMU closed its connection');
});

test('a server that stands in the middle of a copy is noticed in time, and the client goes on', async () => {
  const from = join(folder, 'long.raw');
  const to = join(folder, 'stalled.raw');
  writeFileSync(from, Buffer.alloc(64 * MIB, 9));
  await qemuImg('create', '-q', '-f', 'raw', to, String(64 * MIB));
  const { primary, server, causes, url } = await served(to, 'stall');
  const copy = run(
    [...imageCommand, 'convert', '-n', '-r', String(32 * MIB), '-f', 'raw', '-O', 'raw', from, url],
    { env: environment },
  );
  while (primary.bytes < 8 * MIB && causes.length === 0) await sleep(5);
  assert.deepEqual(causes, []);
  server.kill('SIGSTOP');
  const startMs = performance.now();
  const { status } = await copy;
  const tookMs = performance.now() - startMs;
  assert.notEqual(status, 0);
  assert.ok(tookMs >= LIMITS.nbdStallMsMax - 500 && tookMs < LIMITS.nbdStallMsMax + 2500, `${tookMs} ms`);
  assert.match(causes.join('\n'), /no request had a reply for 5000 ms, with \d+ under way/);
});
