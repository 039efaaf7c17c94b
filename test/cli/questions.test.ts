/** `colo compare` as a process: what the SVM asks of its neighbours leaves, once. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { udp } from '../compare/rig.ts';
import { arpFrame, VM_MAC } from '../frames.ts';
import { tempFolder } from '../temp-folder.ts';
import { DropInProcess, Peer } from './dropin-process.ts';

test('an ARP request of the SVM leaves through the output, and one that the PVM has asked does not', async (t) => {
  const folder = tempFolder(t);
  const compare = new DropInProcess(
    t,
    'compare',
    ...['--primary-in', 'secondary-in', 'out'].flatMap((name, i) => [
      i === 0 ? name : `--${name}`,
      `unix-listen:${join(folder, `${i}`)}`,
    ]),
  );
  await compare.until('compare.started');
  const [pvm, svm, out] = await Promise.all(
    [0, 1, 2].map((i) => Peer.connect(t, { path: join(folder, `${i}`) })),
  );
  const ask = (id: number) => arpFrame({ sourceMac: VM_MAC, tags: [{ id }] });
  const gets = async (frame: Buffer) =>
    assert.equal((await out.next()).toString('hex'), frame.toString('hex'));
  svm.send(ask(1));
  await gets(ask(1));
  pvm.send(ask(2));
  await gets(ask(2));
  svm.send(ask(2), ask(3), udp('last'));
  await gets(ask(3));
  pvm.send(udp('last'));
  await gets(udp('last'));
  assert.equal((await compare.stop()).divergences, 0);
});
