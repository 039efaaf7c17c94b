/**
 * Two node processes and their QEMUs. The nodes use the first monitor of each QEMU, so a second one notifies the bench of its
 * events.
 */
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { untilGuestReplies } from '../../lab/clients/ready.ts';
import { GUEST_SERVICES, startNetwork } from '../../lab/network.ts';
import { type LabNode, LabPair, type LinkKind } from '../../lab/pair.ts';
import { NIC, vmArguments } from '../../lab/vm.ts';
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { ColoError } from '../../src/error.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';
import { PauseWatch } from './pauses.ts';
import { type Bed, READY_MS_MAX, type Side } from './side.ts';

/** One hour: only this bench (and, under load, the comparator) asks for checkpoints. */
const NEVER_MS = 3_600_000;

/** `checkout`: of another build; `link`: plain if not given. */
export async function startOurs(
  { install, image, directory }: Bed,
  { checkout, link }: { checkout?: string; link?: LinkKind } = {},
): Promise<Side> {
  const network = await startNetwork({
    services: GUEST_SERVICES,
    install,
    dir: directory,
    uplinks: 2,
    ipv6: 'none',
  });
  const monitor = join(directory, 'bench.qmp');
  const connect = () => QmpClient.connect({ endpoint: unixEndpoint(monitor), deadlineMs: READY_MS_MAX });
  const pair = await LabPair.prepare({
    directory,
    uplinks: { a: network.uplinks[0], b: network.uplinks[1] },
    qemu: install,
    // Both nodes have these arguments. The later one takes the path; the primary's monitor is connected by then.
    vmArgs: [
      ...vmArguments(install, image),
      ...['-chardev', `socket,id=bench,path=${monitor},server=on,wait=off`],
      ...['-mon', 'chardev=bench,mode=control'],
    ],
    mac: NIC.mac,
    addresses: [NIC.v4],
    ...(link === undefined ? {} : { link }),
    ...(checkout === undefined ? {} : { checkout: resolve(checkout) }),
    config: { checkpoint: { intervalMsMax: NEVER_MS } },
  });
  const stop = async () => {
    await pair.stop();
    await network.stop();
  };
  try {
    const node = pair.node('a');
    node.start();
    await node.until('alone', ({ phase, vm }) => phase === 'alone' && vm.running, READY_MS_MAX);
    const primary = new PauseWatch("ours, the primary's", await connect());
    const { host, echo } = network.forwards.v4;
    await untilGuestReplies({ host, port: echo }, READY_MS_MAX);
    pair.node('b').start();
    await node.until('protected', ({ phase }) => phase === 'protected', READY_MS_MAX);
    const secondary = new PauseWatch("ours, the secondary's", await connect());
    const checkpoint = () => primary.through(() => askForCheckpoint(node));
    return { primary, secondary, forwards: network.forwards.v4, checkpoint, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Takes a checkpoint; under load, after one that the comparator may have begun. */
async function askForCheckpoint(primary: LabNode): Promise<CheckpointReport> {
  for (;;) {
    try {
      return (await primary.ask('POST', '/checkpoint')) as CheckpointReport;
    } catch (error) {
      if (!(error instanceof ColoError && error.code === 'COLO_CHECKPOINT_RUNNING')) throw error;
      await sleep(1);
    }
  }
}
