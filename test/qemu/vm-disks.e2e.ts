/**
 * Real QEMUs with firmware and one disk each: what vm-disks.ts relies on. The guest's part is qemu-io, which writes through the
 * guest's own device. About 5 seconds; run by name: `node --test test/qemu/vm-disks.e2e.ts`.
 */
import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { differingBlocks } from '../../lab/disk.ts';
import { removeWorkFolder, run, workFolder } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import { MigrationRelay } from '../../src/checkpoint/migration-relay.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { diskNodes } from '../../src/disk/nodes.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { systemClock, systemTimers } from '../../src/io/clock.ts';
import { connectStream, listenStream } from '../../src/io/socket-stream.ts';
import { queryCapabilities } from '../../src/qemu/capabilities.ts';
import { ColoVm } from '../../src/qemu/colo.ts';
import { buildCommandLine } from '../../src/qemu/command-line.ts';
import { probeExitWithParent, QemuProcess } from '../../src/qemu/process.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';
import { VmDisks } from '../../src/qemu/vm-disks.ts';

const DISK_BYTES = 16 << 20;
const { command, env, accel, remedy, imageCommand } = await installQemu();

const directory = workFolder();
const processes: QemuProcess[] = [];
after(async () => {
  for (const qemu of processes) qemu.kill();
  await Promise.all(processes.map((qemu) => qemu.exited));
  removeWorkFolder(directory);
});

interface Vm {
  readonly qemu: QemuProcess;
  readonly qmp: QmpClient;
  readonly colo: ColoVm;
  readonly disks: VmDisks;
  readonly path: string;
  readonly image: string;
  readonly events: string[];
  readonly reported: string[];
}

interface Pair {
  readonly primary: Vm;
  readonly secondary: Vm;
  readonly relay: MigrationRelay;
  /** the replies to the question of each checkpoint */
  readonly lost: (string | null)[];
  /** by the number of checkpoints that have ended */
  loaded: number;
}

async function start(incoming: boolean): Promise<Vm> {
  const path = join(directory, String(processes.length));
  const image = `${path}.raw`;
  writeFileSync(image, '');
  truncateSync(image, DISK_BYTES);
  const disk: Disk = {
    ...{ id: 'data', image, format: 'raw', device: 'virtio-blk-pci', cache: 'writeback' },
    overlayDirectory: directory,
  };
  const argv = buildCommandLine({
    command,
    args: ['-machine', 'q35', '-m', '64', '-nodefaults', '-display', 'none', '-accel', accel, ...remedy],
    name: 'e2e',
    nic: { mac: '52:54:00:12:34:56' },
    disks: [disk],
    vmPort: `${path}.port`,
    qmp: `${path}.qmp`,
    incoming,
    exitWithParent: await probeExitWithParent(command, env),
  });
  const qemu = await QemuProcess.start({ argv, env });
  processes.push(qemu);
  const qmp = await QmpClient.connect({
    ...{ endpoint: unixEndpoint(`${path}.qmp`), deadlineMs: 10_000, signal: qemu.signal },
  });
  const events: string[] = [];
  qmp.onEvent(({ event }) => events.push(event));
  const reported: string[] = [];
  const disks = new VmDisks({
    ...{ qmp, ids: ['data'], clock: systemClock, timers: systemTimers },
    events: {
      failing: (message) => reported.push(`failing ${message}`),
      lacking: (message) => reported.push(`lacking ${message}`),
      lost: (message) => reported.push(`lost ${message}`),
    },
  });
  return {
    qemu,
    qmp,
    colo: new ColoVm(qmp, await queryCapabilities(qmp)),
    disks,
    path,
    image,
    events,
    reported,
  };
}

/** Reads or writes a pattern through the guest's device; QEMU's reply is empty if the device did. */
async function io(
  vm: Vm,
  what: 'read' | 'write',
  pattern: number,
  at: string,
  length: string,
): Promise<void> {
  const device = `/machine/peripheral/${diskNodes(0).device}/virtio-backend`;
  const line = `qemu-io -d ${device} "${what} -P ${pattern} ${at} ${length}"`;
  assert.equal(await vm.qmp.execute<string>('human-monitor-command', { 'command-line': line }), '');
}

async function makeOverlays(vm: Vm): Promise<{ active: string; hidden: string }> {
  const overlays = { active: `${vm.path}.active`, hidden: `${vm.path}.hidden` };
  for (const file of Object.values(overlays)) {
    const made = await run([...imageCommand, 'create', '-f', 'qcow2', file, String(DISK_BYTES)], {
      env: { ...process.env, ...env },
    });
    assert.equal(made.status, 0, made.stderr);
  }
  return overlays;
}

async function protect(primary: Vm): Promise<Pair> {
  const secondary = await start(true);
  await secondary.colo.prepare('secondary');
  const overlays = await makeOverlays(secondary);
  const nbd = `${secondary.path}.nbd`;
  await secondary.disks.follow([{ id: 'data', ...overlays }], nbd);
  await secondary.colo.listenIncoming(`${secondary.path}.incoming`);

  await primary.colo.resetAfterFailover();
  await primary.disks.copy([{ id: 'data', socket: nbd }], () => {});
  const { promise: accepted, resolve } = Promise.withResolvers<KernelStream>();
  const relayPath = `${primary.path}.migrate${processes.length}`;
  const listener = await listenStream({ kind: 'unix', mode: 'listen', path: relayPath }, resolve);
  await primary.colo.startMigration(relayPath);
  const { promise: attached, resolve: onAttached, reject } = Promise.withResolvers<void>();
  const pair = { primary, secondary, lost: [] as (string | null)[], loaded: 0 };
  const relay = new MigrationRelay(
    'primary',
    await accepted,
    await connectStream(unixEndpoint(`${secondary.path}.incoming`)),
    {
      message: (message) => {
        if (message === 'loaded') pair.loaded++;
        if (message !== 'ready') relay.pass(message);
        else
          primary.disks.attach().then(() => {
            assert.equal(differingBlocks(primary.image, secondary.image), 0, 'equal while READY is held');
            primary.events.length = 0;
            relay.pass('ready');
            onAttached();
          }, reject);
      },
      request: () => relay.passRequest(),
      state: () =>
        void primary.disks.lostWrite().then((why) => {
          pair.lost.push(why);
          if (why === null) relay.passState();
          else relay.close();
        }),
      closed: () => {},
    },
  );
  relay.start();
  await attached;
  void listener.close();
  // Before COLO runs, a replication refuses the guest's writes; the guest itself does not run then.
  while (!primary.events.includes('RESUME')) await sleep(1);
  return Object.assign(pair, { relay });
}

async function checkpoint(pair: Pair): Promise<void> {
  const before = pair.loaded;
  await pair.primary.colo.requestCheckpoint();
  for (let i = 0; i < 5000 && pair.loaded === before; i++) await sleep(1);
  assert.equal(pair.loaded, before + 1, `a checkpoint: ${pair.lost.at(-1)}`);
}

async function promote(pair: Pair): Promise<Vm> {
  const { primary, secondary, relay } = pair;
  primary.qemu.kill();
  relay.close();
  await secondary.disks.stopServing(3000);
  await secondary.colo.failover({ deadlineMs: 3000 });
  await secondary.disks.committed();
  return secondary;
}

async function goAlone({ primary, relay }: Pair): Promise<void> {
  relay.close();
  await primary.disks.leave(() => primary.colo.failover({ deadlineMs: 5000 }), 5000);
}

test('a disk outlives its primary and its secondary, and is protected again', {
  timeout: 120_000,
}, async (t) => {
  let vm = await start(false);
  await io(vm, 'write', 1, '0', '8M');
  for (let round = 0; round < 2; round++) {
    const pair = await protect(vm);
    await io(vm, 'write', 2 + round, '1M', '64k');
    await checkpoint(pair);
    // Both guests do the same; what only the primary has written since the last checkpoint is no part of the secondary's view.
    for (const one of [pair.primary, pair.secondary]) await io(one, 'write', 12 + round, '2M', '64k');
    await io(vm, 'write', 77, '3M', '64k');
    vm = await promote(pair);
    await io(vm, 'read', 2 + round, '1M', '64k');
    const bytes = readFileSync(vm.image);
    assert.deepEqual([bytes[2 << 20], bytes[3 << 20]], [12 + round, 1]);
    t.diagnostic(`round ${round}: ${JSON.stringify(pair.lost)}`);
  }
  for (let round = 0; round < 2; round++) {
    const pair = await protect(vm);
    await io(vm, 'write', 22 + round, '3M', '64k');
    await checkpoint(pair);
    pair.secondary.qemu.kill();
    await goAlone(pair);
    await io(vm, 'write', 32, '4M', '64k');
    assert.deepEqual(vm.reported.splice(0), []);
  }
});

test('a write that does not reach the secondary ends its next checkpoint, and either VM goes on', {
  timeout: 120_000,
}, async () => {
  for (const survivor of ['primary', 'secondary'] as const) {
    const vm = await start(false);
    await io(vm, 'write', 1, '0', '1M');
    const pair = await protect(vm);
    await checkpoint(pair);
    await pair.secondary.qmp.execute('nbd-server-stop');
    await io(vm, 'write', 5, '1M', '64k');
    await pair.primary.colo.requestCheckpoint();
    for (let i = 0; i < 3000 && pair.lost.at(-1) === null; i++) await sleep(1);
    assert.notEqual(pair.lost.at(-1), null);
    assert.equal(pair.loaded, 1);
    if (survivor === 'primary') {
      await goAlone(pair);
      await io(vm, 'read', 5, '1M', '64k');
    } else {
      pair.primary.qemu.kill();
      await pair.secondary.colo.failover({ deadlineMs: 3000 });
      await pair.secondary.disks.committed();
      await io(pair.secondary, 'read', 0, '1M', '64k');
    }
    for (const { qemu } of [pair.primary, pair.secondary]) qemu.kill();
  }
});

test('a copy that breaks leaves a VM that can be copied again', { timeout: 60_000 }, async () => {
  const vm = await start(false);
  await io(vm, 'write', 1, '0', '8M');
  const secondary = await start(true);
  await secondary.colo.prepare('secondary');
  const overlays = await makeOverlays(secondary);
  await secondary.disks.follow([{ id: 'data', ...overlays }], `${secondary.path}.nbd`);
  await vm.disks.copy([{ id: 'data', socket: `${secondary.path}.nbd` }], () => {});
  assert.equal(vm.disks.progress(systemClock.now())?.doneBytes, DISK_BYTES);
  secondary.qemu.kill();
  await vm.disks.leave(async () => {}, 5000);
  const pair = await protect(vm);
  await io(vm, 'write', 7, '1M', '64k');
  await checkpoint(pair);
  assert.deepEqual(pair.lost, [null]);
});
