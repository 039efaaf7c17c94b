/** The host at the other end of a stream loses its power: no packet reports that. */
import assert from 'node:assert/strict';
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NOTICED_MS_MAX } from '../../src/io/host-watch.ts';
import { udp } from '../compare/rig.ts';
import { NEEDS_ROOT, startOn, TwoHosts } from '../namespaces.ts';
import { tempFolder } from '../temp-folder.ts';
import { DropInProcess, Peer } from './dropin-process.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

/** What is on the far host: a QMP that replies, a consumer of `out` that does not read, and a secondary that sends nothing. */
const FAR = `
const net = require('node:net');
const qmp = net.createServer((socket) => {
  socket.write(JSON.stringify({ QMP: { version: { qemu: { major: 11, minor: 1, micro: 3 }, package: '' }, capabilities: [] } }) + '\\n');
  socket.on('data', (data) => {
    for (const line of String(data).trim().split('\\n')) {
      const { id, execute } = JSON.parse(line);
      socket.write(JSON.stringify({ return: execute === 'query-colo-status' ? { mode: 'none' } : {}, id }) + '\\n');
    }
  });
});
qmp.listen(9001, '0.0.0.0');
net.createServer((socket) => socket.pause()).listen(9002, '0.0.0.0');
net.connect({ host: process.argv[1], port: 9003 });
`;

const frame = udp('x'.repeat(60_000));

/** `colo compare` on the near host: the VM's output comes from this process, and everything else is on the far host. */
class NearCompare extends DropInProcess {
  static hosts: TwoHosts;

  protected override spawn(args: readonly string[]): ChildProcessWithoutNullStreams {
    const [program, ...words] = NearCompare.hosts.on('near');
    return spawn(program, [...words, process.execPath, MAIN, ...args]);
  }
}

type Rig = { hosts: TwoHosts; colo: DropInProcess; primary: Peer; far: ChildProcess; known: number };

async function rig(t: TestContext): Promise<Rig> {
  const hosts = new TwoHosts(t);
  NearCompare.hosts = hosts;
  const path = join(tempFolder(t), 'pri');
  const colo = new NearCompare(
    t,
    'compare',
    ...['--primary-in', `unix-listen:${path}`, '--secondary-in', `tcp-listen:${hosts.near}:9003`],
    ...['--out', `tcp:${hosts.far}:9002`, '--qmp', `tcp:${hosts.far}:9001`],
  );
  await colo.until('compare.started');
  const far = startOn(t, hosts, 'far', [process.execPath, '-e', FAR, '--', hosts.near]);
  const primary = await Peer.connect(t, { path });
  await colo.until('stream.up', 3);
  await colo.until('compare.alone');
  // It comes after `compare.alone`, sometimes in another piece of the output.
  await colo.until('qmp.up');
  return { hosts, colo, primary, far, known: colo.events.length };
}

// Each waits for timers of its own process.
describe('the host at the other end', { concurrency: true }, () => {
  for (const [name, frames] of [
    ['idle connections', 0],
    ['data on its way', 1],
  ] as const) {
    test(`every stream of a host that is gone goes down within seconds: ${name}`, {
      skip: NEEDS_ROOT,
    }, async (t) => {
      const { hosts, colo, primary, far, known } = await rig(t);
      await sleep(500);
      hosts.pullCable();
      const pulledMs = performance.now();
      far.kill('SIGKILL');
      for (let i = 0; i < frames; i++) primary.send(frame);
      const since = (type: string) => colo.events.slice(known).filter((event) => event.type === type);
      while (since('stream.down').length < 2 || since('qmp.down').length < 1) await once(colo.child, 'event');
      const tookMs = performance.now() - pulledMs;
      const causes = colo.events.slice(known).map(({ place, cause }) => `${place ?? 'qmp'}: ${cause}`);
      t.diagnostic(`${(tookMs / 1000).toFixed(1)} s: ${causes.join('; ')}`);
      assert.ok(tookMs < NOTICED_MS_MAX + 1000, `it took ${tookMs.toFixed(0)} ms`);
      await colo.stop();
    });
  }

  test('a peer that lives and does not read keeps its connection', { skip: NEEDS_ROOT }, async (t) => {
    const { colo, primary, known } = await rig(t);
    for (let i = 0; i < 100; i++) primary.send(frame);
    await sleep(NOTICED_MS_MAX + 4000);
    assert.deepEqual(colo.events.slice(known), []);
  });
});
