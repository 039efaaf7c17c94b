/**
 * What drop-in.md says of QEMU's own filter-redirector while its chardev has no peer, seen at a QEMU without a machine: two
 * netdevs on a hub, and a redirector at the first of them. About 3 seconds.
 */
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import type { Program } from '../../lab/program.ts';
import { installOldQemu, installQemu } from '../../lab/qemu.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';
import { FillEnd } from './fill-end.ts';

/** Longer than a frame takes through QEMU on a busy machine. */
const QUIET_MS = 500;

type Bed = { guest: FillEnd; lan: FillEnd; qmp: QmpClient; place(name: 'out' | 'in'): Promise<FillEnd> };

/** The guest's frames go to the redirector's outdev; what comes in at its indev goes on to the LAN. */
async function bed(t: TestContext, qemu: Program): Promise<Bed> {
  const folder = workFolder();
  const at = (name: string): string => join(folder, name);
  const args = ['-machine', 'none', '-nodefaults', '-display', 'none'];
  for (const name of ['guest', 'lan']) {
    args.push('-netdev', `stream,id=${name},server=on,addr.type=unix,addr.path=${at(name)}`);
    args.push('-netdev', `hubport,id=${name}-port,hubid=0,netdev=${name}`);
  }
  for (const name of ['out', 'in']) {
    args.push('-chardev', `socket,id=${name},path=${at(name)},server=on,wait=off`);
    args.push('-object', `filter-redirector,id=f-${name},netdev=guest,queue=tx,${name}dev=${name}`);
  }
  args.push('-qmp', `unix:${at('qmp')},server=on,wait=off`);
  const env = { ...process.env, ...qemu.env };
  const child = startChild([...qemu.command, ...args], { env, stdio: ['ignore', 'ignore', 'ignore'] });
  t.after(async () => {
    await stopChild(child);
    removeWorkFolder(folder);
  });
  const open = (name: string): Promise<FillEnd> => FillEnd.open(t, at(name));
  const qmp = await QmpClient.connect({ endpoint: unixEndpoint(at('qmp')), deadlineMs: 10_000 });
  t.after(() => qmp.close());
  return { guest: await open('guest'), lan: await open('lan'), qmp, place: open };
}

for (const [version, install, comesBack] of [
  ['11.1', installQemu, 'heard again'],
  ['7.2', installOldQemu, 'not heard any more'],
] as const) {
  test(`QEMU ${version}: a frame is dropped while outdev has no peer, and the next peer gets the next`, async (t) => {
    const { guest, lan, place } = await bed(t, await install());
    guest.send(1);
    await sleep(QUIET_MS);
    const out = await place('out');
    guest.send(2);
    await out.expect(2);
    out.close();
    await sleep(100);
    guest.send(3);
    await sleep(QUIET_MS);
    const again = await place('out');
    guest.send(4);
    await again.expect(4);
    await lan.expect();
  });

  test(`QEMU ${version}: a peer at indev that comes back is ${comesBack}`, async (t) => {
    const { lan, qmp, place } = await bed(t, await install());
    const first = await place('in');
    first.send(1);
    await lan.expect(1);
    first.close();
    await sleep(100);
    const next = await place('in');
    next.send(2);
    await sleep(QUIET_MS);
    if (comesBack === 'heard again') return lan.expect(1, 2);
    await lan.expect(1);
    // The remedy of the page.
    await qmp.execute('object-del', { id: 'f-in' });
    const filter = { 'qom-type': 'filter-redirector', id: 'f-in', netdev: 'guest', queue: 'tx', indev: 'in' };
    await qmp.execute('object-add', filter);
    next.send(3);
    await lan.expect(1, 2, 3);
  });
}
