/**
 * QEMU's own COLO, as docs/COLO-FT.txt of QEMU sets it up, in the better of its forms: colo-compare within the primary's
 * process, filter-rewriter within the secondary's, and unix sockets for all streams, so that no ACK of TCP is delayed.
 *
 *   hub <-> hn0 (primary)     filter-mirror: input to the secondary; filter-redirector: output to colo-compare, and back
 *           hn0 (secondary)   filter-redirector: mirrored input to the guest, output to the primary; filter-rewriter
 *
 * The primary's objects are made just before its migration starts, since colo-compare holds output from then on. QEMU does
 * not report divergences. A checkpoint before the interval is over is one that colo-compare has asked for, for a
 * difference or because output has waited for 3 s; it counts as a divergence and as a checkpoint. Ours counts each flow that
 * diverges, so the columns' checkpoints can be compared, and their divergences cannot.
 */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { nicArguments } from '../../lab/vm.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { ColoError } from '../../src/error.ts';
import { queryCapabilities } from '../../src/qemu/capabilities.ts';
import { ColoVm } from '../../src/qemu/colo.ts';
import { QemuProcess } from '../../src/qemu/process.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';
import { type Bed, type Counts, noRules, type Programs, READY_MS_MAX } from './side.ts';

type Vm = { readonly qemu: QemuProcess; readonly qmp: QmpClient; readonly colo: ColoVm };

/** QEMU's timer is as late as its main loop. */
const INTERVAL_SHARE = 0.95;

export async function startStockPair(bed: Bed, intervalMs: number): Promise<Programs> {
  const vms: Vm[] = [];
  const stop = async (): Promise<void> => {
    for (const { qmp, qemu } of vms) {
      qmp.close();
      qemu.kill();
      await qemu.exited;
    }
  };
  try {
    const path = (name: string): string => join(bed.directory, name);
    const netdev = `stream,id=hn0,server=off,addr.type=unix,addr.path=${bed.network.uplinks[0]}`;
    const primary = await startVm(bed, 'p', [
      ...['-netdev', netdev],
      ...server('mirror0', path('mirror')),
      ...server('compare1', path('secondary')),
      ...server('compare0', path('compare')),
      ...client('compare0-0', path('compare')),
      ...server('compare_out', path('out')),
      ...client('compare_out0', path('out')),
    ]);
    vms.push(primary);
    await bed.untilReady();
    // Nothing is connected to this one: only the filters give the secondary's guest its input.
    const nowhere = `stream,id=hn0,server=on,addr.type=unix,addr.path=${path('nowhere')}`;
    const secondary = await startVm(bed, 's', [
      ...['-netdev', nowhere],
      ...client('red0', path('mirror')),
      ...client('red1', path('secondary')),
      ...['-object', 'filter-redirector,id=f1,netdev=hn0,queue=tx,indev=red0'],
      ...['-object', 'filter-redirector,id=f2,netdev=hn0,queue=rx,outdev=red1'],
      ...['-object', 'filter-rewriter,id=rew0,netdev=hn0,queue=all'],
      ...['-incoming', 'defer'],
    ]);
    vms.push(secondary);
    await secondary.colo.prepare('secondary');
    await secondary.colo.listenIncoming(path('state'));
    await primary.colo.prepare('primary');
    const checkpoints = watchCheckpoints(primary.qmp, intervalMs);
    for (const object of PRIMARY_OBJECTS) await primary.qmp.execute('object-add', object);
    await primary.colo.startMigration(path('state'));
    await primary.colo.waitForColo({ deadlineMs: READY_MS_MAX });
    await secondary.colo.waitForColo({ deadlineMs: READY_MS_MAX });
    await primary.colo.requestCheckpoint();
    await primary.qmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': intervalMs });
    await checkpoints.untilSome();
    const counts = async (): Promise<Counts> => {
      const broken = checkpoints.broken();
      if (broken !== null) throw new ColoError('COLO_BENCH_PEER', `QEMU's COLO ended: ${broken}`);
      const list = [...checkpoints.list];
      return {
        divergences: list.filter(({ reason }) => reason === 'colo-compare').length,
        portions: false,
        checkpoints: list,
        processes: { 'VM a': primary.qemu.pid, 'VM b': secondary.qemu.pid },
      };
    };
    return { counts, useRules: noRules, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

const PRIMARY_OBJECTS = [
  { 'qom-type': 'filter-mirror', id: 'm0', netdev: 'hn0', queue: 'tx', outdev: 'mirror0' },
  { 'qom-type': 'filter-redirector', id: 'redire0', netdev: 'hn0', queue: 'rx', indev: 'compare_out' },
  { 'qom-type': 'filter-redirector', id: 'redire1', netdev: 'hn0', queue: 'rx', outdev: 'compare0' },
  { 'qom-type': 'iothread', id: 'iothread1' },
  {
    ...{ 'qom-type': 'colo-compare', id: 'comp0', iothread: 'iothread1' },
    ...{ primary_in: 'compare0-0', secondary_in: 'compare1', outdev: 'compare_out0' },
  },
];

function server(id: string, path: string): string[] {
  return ['-chardev', `socket,id=${id},path=${path},server=on,wait=off`];
}

function client(id: string, path: string): string[] {
  return ['-chardev', `socket,id=${id},path=${path}`];
}

async function startVm({ install, vmArgs, directory }: Bed, name: string, args: string[]): Promise<Vm> {
  const qmpPath = join(directory, `${name}.qmp`);
  // A session of its own, as a node and its VM have: Linux schedules a session as a group.
  const argv = ['setsid', ...install.command, ...vmArgs, ...args, ...nicArguments('hn0')];
  argv.push('-qmp', `unix:${qmpPath},server=on,wait=off`);
  const qemu = await QemuProcess.start({ argv, env: install.env });
  const qmp = await QmpClient.connect({
    endpoint: unixEndpoint(qmpPath),
    deadlineMs: READY_MS_MAX,
    signal: qemu.signal,
  });
  return { qemu, qmp, colo: new ColoVm(qmp, await queryCapabilities(qmp)) };
}

type Watch = {
  readonly list: { reason: string; pauseMs: number }[];
  /** Returns why COLO has ended, or null. */
  broken(): string | null;
  /** Resolves when there was a checkpoint. */
  untilSome(): Promise<void>;
};

/** Takes the primary's checkpoints from its events, by QEMU's own clock. QEMU's interval runs from request to request. */
function watchCheckpoints(qmp: QmpClient, intervalMs: number): Watch {
  const list: Watch['list'] = [];
  let broken: string | null = null;
  let stoppedUs = 0;
  let lastStoppedUs = 0;
  qmp.onEvent(({ event, data, timestampUs }) => {
    if (event === 'COLO_EXIT') broken = String(data.reason);
    if (event === 'STOP') stoppedUs = timestampUs;
    if (event !== 'RESUME' || stoppedUs === 0) return;
    const isDue = stoppedUs - lastStoppedUs >= INTERVAL_SHARE * intervalMs * 1000;
    list.push({ reason: isDue ? 'interval' : 'colo-compare', pauseMs: (timestampUs - stoppedUs) / 1000 });
    lastStoppedUs = stoppedUs;
  });
  return {
    list,
    broken: () => broken,
    untilSome: async () => {
      const known = list.length;
      for (const endMs = performance.now() + READY_MS_MAX; list.length === known; await sleep(10)) {
        if (broken !== null || performance.now() > endMs)
          throw new ColoError('COLO_BENCH_PEER', `QEMU's COLO takes no checkpoint: ${broken ?? 'no reason'}`);
      }
    },
  };
}
