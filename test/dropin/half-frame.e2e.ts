/**
 * What docs/drop-in.md says of QEMU's filters, seen at QEMUs 7.2 and 11.1 without a machine: its two command lines start, a
 * filter keeps half a frame when its chardev is closed, and the page's blocks make the object anew, at its place.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import { installOldQemu, installQemu } from '../../lab/qemu.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { type JsonObject, QmpClient } from '../../src/qemu/qmp.ts';
import { FillEnd } from './fill-end.ts';
import { type Guide, guideFor } from './guide.ts';

const QUIET_MS = 400;
const WAIT_MS_MAX = 10_000;

type Bed = {
  version: '7.2' | '11.1';
  guide: Guide;
  /** At the VM's NIC, and at its network. */
  guest: FillEnd;
  lan: FillEnd;
  qmp: QmpClient;
  place(name: string): Promise<FillEnd>;
  execute(block: string): Promise<void>;
};

/** A QEMU with the page's command line: `hn0` is a stream, and another one stands where the VM's NIC would. */
async function bed(t: TestContext, side: 'primary' | 'secondary', version: '7.2' | '11.1'): Promise<Bed> {
  const qemu = version === '7.2' ? await installOldQemu() : await installQemu();
  const folder = workFolder();
  const guide = await guideFor(folder, qemu.version);
  const at = (name: string): string => join(folder, name);
  const args = ['-machine', 'none', '-nodefaults', '-display', 'none'];
  args.push('-netdev', `stream,id=hn0,server=on,addr.type=unix,addr.path=${at('lan')}`);
  args.push('-netdev', `stream,id=nic,server=on,addr.type=unix,addr.path=${at('nic')}`);
  args.push(
    '-netdev',
    'hubport,id=hn0-port,hubid=0,netdev=hn0',
    '-netdev',
    'hubport,id=nic-port,hubid=0,netdev=nic',
  );
  const words = guide
    .words(`qemu-${side}`)
    .filter((word, i, all) => word !== '-incoming' && all[i - 1] !== '-incoming');
  const env = { ...process.env, ...qemu.env };
  const child = startChild([...qemu.command, ...args, ...words], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  t.after(async () => {
    await stopChild(child);
    removeWorkFolder(folder);
  });
  child.once('exit', () => {
    if (errors !== '' && !child.killed) process.stderr.write(`QEMU ${version}: ${errors}`);
  });
  const qmp = await QmpClient.connect({
    endpoint: unixEndpoint(at(`${side}-qmp.sock`)),
    deadlineMs: WAIT_MS_MAX,
  });
  t.after(() => qmp.close());
  return {
    version,
    guide,
    guest: await FillEnd.open(t, at('nic')),
    lan: await FillEnd.open(t, at('lan')),
    qmp,
    place: (name) => FillEnd.open(t, at(`${name}.sock`)),
    async execute(block) {
      for (const line of guide.block(block).trim().split('\n')) {
        const { execute, arguments: args } = JSON.parse(line) as { execute: string; arguments: JsonObject };
        await qmp.execute(execute, args);
      }
    },
  };
}

/** Sends half a frame, comes back, and sends a whole one: it does not arrive, but the ones after the block was executed do. */
async function healed(
  { place, execute, version }: Pick<Bed, 'place' | 'execute' | 'version'>,
  name: string,
  to: FillEnd,
  block: string,
): Promise<void> {
  const first = await place(name);
  first.send(1);
  await to.expect(1);
  first.send(2, 40);
  await sleep(100);
  first.close();
  await sleep(100);
  const next = await place(name);
  next.send(3);
  await sleep(QUIET_MS);
  assert.ok(!to.fills.includes(3), 'the filter takes it for the rest of the frame before, or does not read');
  // 11.1 has lost it in the frame before; 7.2 has not read it, and the new object does.
  const before = version === '7.2' ? [1, 3] : to.fills;
  await execute(block);
  for (const fill of [4, 5]) next.send(fill);
  await to.expect(...before, 4, 5);
}

for (const version of ['7.2', '11.1'] as const) {
  test(`QEMU ${version}: the primary's command line starts, and redire0 can be made anew at its place`, async (t) => {
    const all = await bed(t, 'primary', version);
    const compare0 = await all.place('compare0');
    all.guest.send(9);
    await compare0.expect(9);
    await healed(all, 'compare_out', all.lan, 'qmp-redire0');
    all.guest.send(8);
    await compare0.expect(9, 8);
    await sleep(QUIET_MS);
    assert.deepEqual(compare0.fills, [9, 8], 'what is released does not come to colo compare again');
    assert.ok(!all.lan.fills.includes(8), "the guest's output does not pass colo compare by");
  });

  test(`QEMU ${version}: the secondary's command line starts, and rew0 and rew1 can be made anew`, async (t) => {
    const all = await bed(t, 'secondary', version);
    const [rewIn, rewGuestOut] = [await all.place('rew_in'), await all.place('rew_guest_out')];
    await healed(all, 'rew_guest_in', all.guest, 'qmp-rew0');
    all.guest.send(9);
    await rewGuestOut.expect(9);
    await all.execute('qmp-rew1');
    await sleep(100);
    all.guest.send(8);
    await rewGuestOut.expect(9, 8);
    // f0 drops what the secondary's own netdev receives.
    all.lan.send(7);
    await sleep(QUIET_MS);
    assert.deepEqual(rewIn.fills, []);
  });
}
