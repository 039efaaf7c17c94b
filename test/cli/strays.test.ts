/** Connections that do not belong to a listening place: port scans, health checks, clients gone astray. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../lab/free-port.ts';
import { udp } from '../compare/rig.ts';
import { framed } from '../io/fake-stream.ts';
import { tempFolder } from '../temp-folder.ts';
import { DropInProcess, Peer } from './dropin-process.ts';

const COMMANDS = {
  compare: ['primary-in', 'secondary-in', 'out', 'notify'],
  rewrite: ['in', 'guest-in', 'guest-out', 'out'],
} as const;

type Rig = { colo: DropInProcess; path: string; peers: Record<string, Peer> };

/** Every place of the command listens, and has a peer. */
async function rig(t: TestContext, command: keyof typeof COMMANDS): Promise<Rig> {
  const path = tempFolder(t);
  const names = COMMANDS[command];
  const places = names.flatMap((name) => [`--${name}`, `unix-listen:${path}/${name}`]);
  const colo = new DropInProcess(t, command, ...places);
  await colo.until(`${command}.started`);
  const peers: Record<string, Peer> = {};
  for (const name of names) peers[name] = await Peer.connect(t, { path: join(path, name) });
  await colo.until('stream.up', names.length);
  return { colo, path, peers };
}

async function works(command: keyof typeof COMMANDS, { peers }: Rig, text: string): Promise<void> {
  const routes: [string[], string][] =
    command === 'compare'
      ? [[['primary-in', 'secondary-in'], 'out']]
      : [
          [['in'], 'guest-in'],
          [['guest-out'], 'out'],
        ];
  for (const [from, to] of routes) {
    for (const name of from) peers[name].send(udp(text));
    assert.deepEqual(await peers[to].next(), udp(text));
  }
  if (command !== 'compare') return;
  peers.notify.send(Buffer.from('COLO_USERSPACE_PROXY_INIT'));
  while ((await peers.notify.next()).toString() !== 'COLO_COMPARE_GET_XEN_INIT');
}

const STRAYS = [
  ['closes at once', Buffer.alloc(0), 'closes'],
  ['sends nothing', Buffer.alloc(0), 'stays'],
  ['sends half a frame', framed(udp('half')).subarray(0, 30), 'stays'],
  ['sends one byte', Buffer.alloc(1), 'stays'],
  ['sends a web request and waits', Buffer.from('GET /health HTTP/1.1\r\nHost: colo\r\n\r\n'), 'stays'],
  ['sends half a frame and closes', framed(udp('half')).subarray(0, 30), 'closes'],
] as const;

for (const command of ['compare', 'rewrite'] as const) {
  test(`colo ${command}: no stray connection costs a listening place its peer`, async (t) => {
    const all = await rig(t, command);
    await works(command, all, 'before');
    const ups = all.colo.of('stream.up').length;
    const stay: Peer[] = [];
    for (const place of COMMANDS[command]) {
      for (const [, bytes, then] of STRAYS) {
        const stray = await Peer.connect(t, { path: join(all.path, place) });
        if (bytes.length > 0) await stray.write(bytes);
        if (then === 'closes') stray.socket.destroy();
        else stay.push(stray);
      }
    }
    await works(command, all, 'during');
    await Promise.all(stay.map((stray) => stray.closed()));
    await works(command, all, 'after');
    assert.deepEqual(all.colo.of('stream.down'), []);
    assert.equal(all.colo.of('stream.up').length, ups);
    assert.deepEqual(
      new Set(all.colo.of('stream.refused').map(({ place }) => place)),
      new Set(COMMANDS[command]),
      'each place notifies that it refused somebody',
    );
    await all.colo.stop();
  });

  test(`colo ${command}: a place is free again after a peer that sent one frame, or half of one, and nothing more`, async (t) => {
    const all = await rig(t, command);
    for (const place of COMMANDS[command].filter((name) => !['out', 'guest-in', 'notify'].includes(name))) {
      for (const bytes of [framed(udp('stray')), framed(udp('stray')).subarray(0, 30)]) {
        const ups = all.colo.of('stream.up').length;
        const downs = all.colo.of('stream.down').length;
        all.peers[place].socket.destroy();
        await all.colo.until('stream.down', downs + 1);
        const stray = await Peer.connect(t, { path: join(all.path, place) });
        await stray.write(bytes);
        await all.colo.until('stream.up', ups + 1);
        // The VM's stream comes back while the stray one still has the place.
        all.peers[place] = await Peer.connect(t, { path: join(all.path, place) });
        all.peers[place].send(udp('back'));
        await stray.closed();
        await all.colo.until('stream.up', ups + 2);
      }
    }
    await all.colo.stop();
  });
}

test('a port scan every few milliseconds costs the secondary nothing', async (t) => {
  const path = tempFolder(t);
  const places = ['--primary-in', `unix-listen:${path}/pri`, '--out', `unix-listen:${path}/out`];
  const port = await freePort();
  const colo = new DropInProcess(t, 'compare', ...places, '--secondary-in', `tcp-listen:127.0.0.1:${port}`);
  await colo.until('compare.started');
  const [primary, out] = await Promise.all(
    ['pri', 'out'].map((name) => Peer.connect(t, { path: join(path, name) })),
  );
  const secondary = await Peer.connect(t, { host: '127.0.0.1', port });
  await colo.until('stream.up', 3);
  for (let i = 0; i < 100; i++) {
    const scan = connect({ host: '127.0.0.1', port }, () => scan.destroy());
    scan.on('error', () => {});
    primary.send(udp(`${i}`));
    secondary.send(udp(`${i}`));
    assert.deepEqual(await out.next(), udp(`${i}`));
    await sleep(3);
  }
  const { matched, divergences } = await colo.stop();
  assert.deepEqual([matched, divergences], [100, 0]);
  assert.deepEqual(colo.of('stream.down'), []);
});
