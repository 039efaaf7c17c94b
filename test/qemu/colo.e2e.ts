/**
 * Real QEMUs with nothing but firmware, over direct unix sockets: one VM survives seven failures. About 2 seconds.
 * Run by name: `node --test test/qemu/colo.e2e.ts`.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { installQemu } from '../../lab/qemu.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { queryCapabilities } from '../../src/qemu/capabilities.ts';
import { ColoVm } from '../../src/qemu/colo.ts';
import { buildCommandLine } from '../../src/qemu/command-line.ts';
import { probeExitWithParent, QemuProcess } from '../../src/qemu/process.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';

const { command, env, accel, remedy } = await installQemu();

// With a comma, because QEMU's options give it a meaning.
const directory = mkdtempSync(join(tmpdir(), 'colo,e2e-'));
const processes: QemuProcess[] = [];
after(async () => {
  for (const qemu of processes) qemu.kill();
  await Promise.all(processes.map((qemu) => qemu.exited));
  rmSync(directory, { recursive: true, force: true });
});

interface Vm {
  readonly qemu: QemuProcess;
  readonly qmp: QmpClient;
  readonly colo: ColoVm;
  readonly incomingPath: string;
  readonly events: string[];
}

async function start(incoming: boolean): Promise<Vm> {
  const path = join(directory, String(processes.length));
  const argv = buildCommandLine({
    command,
    args: ['-machine', 'q35', '-m', '64', '-nodefaults', '-display', 'none', '-accel', accel, ...remedy],
    name: 'e2e',
    nic: { mac: '52:54:00:12:34:56' },
    vmPort: `${path}.port`,
    qmp: `${path}.qmp`,
    incoming,
    exitWithParent: await probeExitWithParent(command, env),
  });
  const qemu = await QemuProcess.start({ argv, env });
  processes.push(qemu);
  const qmp = await QmpClient.connect({
    endpoint: unixEndpoint(`${path}.qmp`),
    deadlineMs: 10_000,
    signal: qemu.signal,
  });
  const events: string[] = [];
  qmp.onEvent(({ event }) => events.push(event));
  const colo = new ColoVm(qmp, await queryCapabilities(qmp));
  return { qemu, qmp, colo, incomingPath: `${path}.incoming`, events };
}

/** Starts a new secondary and makes the first copy. */
async function protect(primary: Vm): Promise<Vm> {
  const secondary = await start(true);
  await secondary.colo.prepare('secondary');
  await secondary.colo.listenIncoming(secondary.incomingPath);
  await primary.colo.resetAfterFailover();
  await primary.colo.startMigration(secondary.incomingPath);
  await primary.colo.waitForColo({ deadlineMs: 20_000 });
  await secondary.colo.waitForColo({ deadlineMs: 1000 });
  return secondary;
}

async function checkpoint(primary: Vm, secondary: Vm): Promise<void> {
  for (const vm of [primary, secondary]) while (vm.events.at(-1) !== 'RESUME') await sleep(1);
  primary.events.length = 0;
  secondary.events.length = 0;
  await primary.colo.requestCheckpoint();
  for (const vm of [primary, secondary]) {
    for (let i = 0; i < 5000 && !vm.events.includes('RESUME'); i++) await sleep(1);
    assert.deepEqual(
      vm.events.filter((name) => name === 'STOP' || name === 'RESUME'),
      ['STOP', 'RESUME'],
    );
  }
}

async function runsAlone(vm: Vm): Promise<void> {
  assert.deepEqual(await vm.qmp.execute('query-status'), { status: 'running', running: true });
  assert.equal((await vm.qmp.execute<{ mode: string }>('query-colo-status')).mode, 'none');
}

async function failover(survivor: Vm): Promise<void> {
  await survivor.colo.failover({ deadlineMs: 3000 });
  await runsAlone(survivor);
}

test('QEMU ends with the node that started it, even if that is killed', { timeout: 30_000 }, async () => {
  const source = new URL('../../src/qemu/process.ts', import.meta.url).href;
  const argv = [...command, '-machine', 'none', '-nodefaults', '-display', 'none'];
  argv.push('-run-with', 'exit-with-parent=on');
  const code = `import { QemuProcess } from '${source}';
    const qemu = await QemuProcess.start(${JSON.stringify({ argv, env })});
    console.log(qemu.pid); await qemu.exited;`;
  assert.equal(await probeExitWithParent(command, env), true);
  const stdio: ['ignore', 'pipe', 'inherit'] = ['ignore', 'pipe', 'inherit'];
  const node = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio });
  const [output] = (await once(node.stdout, 'data')) as [Buffer];
  const pid = Number(output.toString());
  // Before QEMU has read its options the parent's end is not noticed.
  await sleep(500);
  process.kill(pid, 0);
  node.kill('SIGKILL');
  for (let i = 0; i < 300; i++) {
    await sleep(10);
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
  }
  process.kill(pid, 'SIGKILL');
  assert.fail('QEMU outlived its node');
});

test('one VM outlives its primaries and its secondaries repeatedly', { timeout: 60_000 }, async (t) => {
  let primary = await start(false);
  let secondary: Vm;

  await t.test('the primary is killed while idle, twice in a row', async () => {
    for (let i = 0; i < 2; i++) {
      secondary = await protect(primary);
      for (let count = 0; count < 3; count++) await checkpoint(primary, secondary);
      primary.qemu.kill();
      await failover(secondary);
      // There is nothing left to do, which is not an error.
      await failover(secondary);
      primary = secondary;
    }
  });

  await t.test('the secondary is killed while idle', async () => {
    secondary = await protect(primary);
    await checkpoint(primary, secondary);
    secondary.qemu.kill();
    await secondary.qemu.exited;
    await failover(primary);
  });

  await t.test('the secondary hangs in a checkpoint', async () => {
    secondary = await protect(primary);
    process.kill(secondary.qemu.pid, 'SIGSTOP');
    await primary.colo.requestCheckpoint();
    await sleep(50);
    await failover(primary);
    secondary.qemu.kill();
  });

  await t.test('the primary hangs in a checkpoint', async () => {
    secondary = await protect(primary);
    const stopped = once(AbortSignal.timeout(1000), 'abort');
    const paused = new Promise<void>((resolve) => {
      secondary.qmp.onEvent(({ event }) => event === 'STOP' && resolve());
    });
    await primary.colo.requestCheckpoint();
    await Promise.race([paused, stopped]);
    process.kill(primary.qemu.pid, 'SIGSTOP');
    await failover(secondary);
    primary.qemu.kill();
    primary = secondary;
  });

  await t.test('the secondary is lost in the first copy, and the next one is cancelled', async () => {
    for (const end of ['kill', 'cancel']) {
      secondary = await start(true);
      await secondary.colo.prepare('secondary');
      await secondary.colo.listenIncoming(secondary.incomingPath);
      await primary.colo.resetAfterFailover();
      await primary.colo.startMigration(secondary.incomingPath);
      if (end === 'cancel') {
        await primary.colo.cancel({ deadlineMs: 3000 });
      } else {
        secondary.qemu.kill();
        await assert.rejects(primary.colo.waitForColo({ deadlineMs: 3000 }), { code: 'COLO_QEMU_MIGRATION' });
      }
      await failover(primary);
      secondary.qemu.kill();
    }
  });

  await t.test(
    'a command that would end COLO is refused, and the VM still gets a new secondary',
    async () => {
      secondary = await protect(primary);
      await assert.rejects(primary.colo.startMigration(secondary.incomingPath), { code: 'COLO_QEMU_STATE' });
      await assert.rejects(primary.colo.cancel(), { code: 'COLO_QEMU_STATE' });
      await checkpoint(primary, secondary);
      await secondary.colo.quit();
      await failover(primary);
      assert.equal((await primary.qemu.stop({ graceMs: 3000 })).code, 0);
    },
  );
});
