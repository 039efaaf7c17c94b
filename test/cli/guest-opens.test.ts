/** `colo compare` and `colo rewrite` as two processes in one path, while the guest opens connections from other ports in each VM. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ACK, RST } from '../frames.ts';
import { tempFolder } from '../temp-folder.ts';
import {
  CONNECTION,
  type Connection,
  clientSyn,
  fromClient,
  fromVm,
  type Numbers,
  vmSyn,
} from '../translate/connection.ts';
import { DropInProcess, Peer } from './dropin-process.ts';

const PLACE: Connection = { ...CONNECTION, clientOpens: false, clientPort: 443 };
const COUNT = 3;
const numbers = (vm: number): Numbers[] =>
  Array.from({ length: COUNT }, (_, i) => ({
    isn: 1000 * vm + i,
    ts: 500 * vm + i,
    port: 40_000 + 2 * i + vm,
  }));
const PVM = numbers(0);
const SVM = numbers(1);

for (const version of [4, 6] as const) {
  test(`connections that the guest opens over IPv${version} cost no checkpoint`, async (t) => {
    const folder = tempFolder(t);
    const at = (name: string) => `unix-listen:${join(folder, name)}`;
    const compare = new DropInProcess(
      t,
      'compare',
      ...['--primary-in', at('primary'), '--secondary-in', at('secondary'), '--out', at('out')],
    );
    await compare.until('compare.started');
    const rewrite = new DropInProcess(
      t,
      'rewrite',
      ...['--in', at('in'), '--guest-in', at('gi'), '--guest-out', at('go')],
      ...['--out', `unix:${join(folder, 'secondary')}`],
    );
    await rewrite.until('rewrite.started');
    const [pvm, out, client, svmIn, svm] = await Promise.all(
      ['primary', 'out', 'in', 'gi', 'go'].map((name) => Peer.connect(t, { path: join(folder, name) })),
    );
    const gets = async (peer: Peer, frame: Buffer, what: string) =>
      assert.equal((await peer.next()).toString('hex'), frame.toString('hex'), what);
    const place = { ...PLACE, version };
    // The SVM first: a PVM frame waits for a few milliseconds only.
    let sent = 0;
    const both = async (ofSvm: Buffer, ofPvm: Buffer, what: string) => {
      svm.send(ofSvm);
      sent++;
      await compare.reached(sent, 'secondaryFrames');
      pvm.send(ofPvm);
      await gets(out, ofPvm, what);
    };

    // All are half open at once, and both VMs repeat the first SYN: only the PVM's leaves.
    for (let i = 0; i < COUNT; i++) await both(vmSyn(place, SVM[i]), vmSyn(place, PVM[i]), `SYN ${i}`);
    await both(vmSyn(place, SVM[0], 1000), vmSyn(place, PVM[0], 1000), 'a repeated SYN');

    // The server accepts two and refuses the last.
    for (let i = 0; i < COUNT - 1; i++) {
      client.send(clientSyn(place, PVM[i]));
      await gets(svmIn, clientSyn(place, SVM[i]), `SYN-ACK ${i}`);
      const request = { clientAt: 1, vmAt: 1, time: 3, payload: Buffer.from(`request ${i}`) };
      await both(fromVm(place, SVM[i], request), fromVm(place, PVM[i], request), `request ${i}`);
      const reply = { clientAt: 1, vmAt: 10, time: 4, payload: Buffer.from(`reply ${i}`) };
      client.send(fromClient(place, PVM[i], reply));
      await gets(svmIn, fromClient(place, SVM[i], reply), `reply ${i}`);
    }
    const refusal = (vm: Numbers) =>
      fromClient({ ...place, clientIsn: 0 }, vm, { clientAt: 0, vmAt: 1, time: 0, flags: RST | ACK });
    client.send(refusal(PVM[2]));
    await gets(svmIn, refusal(SVM[2]), 'a refusal');

    // Nothing waits that would ask for one: not even an SVM frame, which may wait for two seconds.
    await sleep(2500);
    const report = await compare.report();
    assert.deepEqual(compare.of('checkpoint.asked'), []);
    assert.equal(report.asked, 0);
    assert.equal(report.divergences, 0);
    assert.equal(report.releasedFrames, COUNT + 1 + 2);
    await rewrite.stop();
    await compare.stop();
  });
}
