/**
 * Two QEMUs whose migration stream runs from one to the other, without a node in between, driven by QMP alone. Over TCP this
 * is what a user of stock QEMU has. Over a unix socket it is the limit: what QEMU itself needs when nothing delays its stream.
 *
 * Neither has colo-compare or filters: nothing compares output, holds it, or gates input.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { untilGuestReplies } from '../../lab/clients/ready.ts';
import { GUEST_SERVICES, type Network, startNetwork } from '../../lab/network.ts';
import { NIC, vmArguments } from '../../lab/vm.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { ColoError } from '../../src/error.ts';
import { queryCapabilities } from '../../src/qemu/capabilities.ts';
import { ColoVm } from '../../src/qemu/colo.ts';
import { buildCommandLine } from '../../src/qemu/command-line.ts';
import { probeExitWithParent, QemuProcess } from '../../src/qemu/process.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';
import { PauseWatch } from './pauses.ts';
import { type Bed, READY_MS_MAX, type Side } from './side.ts';

const NIC_OPTIONS = 'rx_queue_size=1024';

type Vm = { qemu: QemuProcess; qmp: QmpClient; colo: ColoVm; port: string };

export async function startDirect(bed: Bed, over: 'tcp' | 'unix'): Promise<Side> {
  const { install, directory } = bed;
  const network = await startNetwork({
    services: GUEST_SERVICES,
    install,
    dir: directory,
    uplinks: 1,
    ipv6: 'none',
  });
  const vms: Vm[] = [];
  const stop = async () => {
    for (const { qmp, qemu } of vms) {
      qmp.close();
      qemu.kill();
      await qemu.exited;
    }
    await network.stop();
  };
  try {
    const primary = await startVm(bed, 'p', false);
    vms.push(primary);
    await joinNetwork(primary.port, network);
    const { host, echo } = network.forwards.v4;
    await untilGuestReplies({ host, port: echo }, READY_MS_MAX);
    const secondary = await startVm(bed, 's', true);
    vms.push(secondary);
    await secondary.colo.prepare('secondary');
    const uri = await listenIncoming(secondary, over, join(directory, 'migrate'));
    await primary.colo.prepare('primary');
    await primary.qmp.execute('migrate', { uri });
    await primary.colo.waitForColo({ deadlineMs: READY_MS_MAX });
    await secondary.colo.waitForColo({ deadlineMs: READY_MS_MAX });
    const watch = new PauseWatch(`QEMU's migration over ${over}, the primary's`, primary.qmp);
    const checkpoint = () =>
      watch.through(async () => {
        await primary.colo.requestCheckpoint();
        return null;
      });
    return {
      primary: watch,
      secondary: new PauseWatch(`QEMU's migration over ${over}, the secondary's`, secondary.qmp),
      forwards: network.forwards.v4,
      checkpoint,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startVm({ install, image, directory }: Bed, name: string, incoming: boolean): Promise<Vm> {
  const port = join(directory, `${name}.port`);
  const qmpPath = join(directory, `${name}.qmp`);
  const argv = buildCommandLine({
    command: install.command,
    args: vmArguments(install, image),
    name: 'direct',
    nic: { mac: NIC.mac, options: NIC_OPTIONS },
    vmPort: port,
    qmp: qmpPath,
    incoming,
    exitWithParent: await probeExitWithParent(install.command, install.env),
  });
  const qemu = await QemuProcess.start({ argv, env: install.env });
  const qmp = await QmpClient.connect({
    endpoint: unixEndpoint(qmpPath),
    deadlineMs: READY_MS_MAX,
    signal: qemu.signal,
  });
  return { qemu, qmp, colo: new ColoVm(qmp, await queryCapabilities(qmp)), port };
}

/** Has the secondary listen; returns its address. QEMU itself chooses a free TCP port. */
async function listenIncoming(secondary: Vm, over: 'tcp' | 'unix', path: string): Promise<string> {
  if (over === 'unix') {
    await secondary.colo.listenIncoming(path);
    return `unix:${path}`;
  }
  await secondary.qmp.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const { 'socket-address': addresses } = await secondary.qmp.execute<{
    'socket-address'?: readonly { readonly port: string }[];
  }>('query-migrate');
  const port = addresses?.[0]?.port;
  if (port === undefined) throw new ColoError('COLO_LAB', 'QEMU does not report where its migration listens');
  return `tcp:127.0.0.1:${port}`;
}

/** Passes the VM's frames to the network and back; both use the same framing. */
async function joinNetwork(port: string, network: Network): Promise<void> {
  const ends = [connect(port), connect(network.uplinks[0])];
  for (const end of ends) end.on('error', () => {});
  await Promise.all(ends.map((end) => once(end, 'connect')));
  ends[0].pipe(ends[1]).pipe(ends[0]);
}
