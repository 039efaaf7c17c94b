/** The bed's network, its cuts and its recorder, without nodes: real bridges, nftables and tcpdump. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startIn } from '../../../lab/bed/child.ts';
import { Clients } from '../../../lab/bed/clients.ts';
import { ADDRESSES, BedNetwork, type HostName, ip, type MachineName } from '../../../lab/bed/network.ts';
import { Recorder } from '../../../lab/bed/recorder.ts';
import { installTools } from '../../../lab/bed/tools.ts';
import { VoiceJudge } from '../../../lab/chaos/voices.ts';
import { setKernel, within } from '../../../lab/namespace.ts';
import { removeWorkFolder, stopChild, workFolder } from '../../../lab/process.ts';
import { NIC } from '../../../lab/vm.ts';
import { NEEDS_ROOT } from '../../namespaces.ts';

const tools = NEEDS_ROOT === false ? await installTools() : null;

function make(t: TestContext): BedNetwork {
  const network = BedNetwork.make((tools ?? assert.fail()).nft);
  t.after(() => network.close());
  return network;
}

/** Sends datagrams to an address. */
const SEND = `const s = require('node:dgram').createSocket('udp4');
  const [to, count] = process.argv.slice(1);
  for (let i = 0; i < count; i++) s.send('x', 9, to);
  setTimeout(() => s.close(), 50);`;
const BROADCAST = `const s = require('node:dgram').createSocket('udp4').bind(() => {
    s.setBroadcast(true); s.send('x', 9, '10.0.2.255', () => s.close()) })`;
/** Prints how many datagrams it has received within a second. */
const RECEIVE = `let n = 0;
  require('node:dgram').createSocket('udp4').on('message', () => n++).bind(9, () => console.log('bound'));
  setTimeout(() => { console.log(n); process.exit() }, 1000);`;

/** Returns how many of 20 datagrams of one machine reach another. */
async function reached(
  network: BedNetwork,
  from: MachineName,
  to: HostName | 'e1',
  count = 20,
): Promise<number> {
  const child = startIn(network.of(to), [process.execPath, '-e', RECEIVE], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    if (text === '')
      within(network.of(from), () =>
        execFileSync(process.execPath, ['-e', SEND, ADDRESSES[to], String(count)]),
      );
    text += chunk;
  });
  await new Promise((resolve) => child.once('close', resolve));
  return Number(text.split('\n')[1]);
}

test('a cut is for one direction of two machines, and is mended', { skip: NEEDS_ROOT }, async (t) => {
  const network = make(t);
  assert.equal(await reached(network, 'a', 'b'), 20);
  const oneWay = [{ from: 'a', to: 'b' }] as const;
  network.cut(oneWay);
  assert.equal(await reached(network, 'a', 'b'), 0);
  assert.equal(await reached(network, 'b', 'a'), 20);
  assert.equal(await reached(network, 'a', 'e1'), 20);
  network.mend(oneWay);
  assert.equal(await reached(network, 'a', 'b'), 20);
});

test('a lossy way loses about its share, and a limited rate still passes frames', {
  skip: NEEDS_ROOT,
}, async (t) => {
  const network = make(t);
  const ways = [{ from: 'a', to: 'b' }] as const;
  network.lose(ways);
  network.limitRate('b', 10);
  const passed = await reached(network, 'a', 'b', 200);
  assert.ok(passed > 100 && passed < 180, `${passed}`);
  assert.equal(await reached(network, 'b', 'a'), 20);
  network.loseNoMore(ways);
  assert.equal(await reached(network, 'a', 'b'), 20);
});

/** Sends a datagram 20 times, each when the last one has come back, and prints how many milliseconds each took. */
const PING = `const s = require('node:dgram').createSocket('udp4'); const times = []; let at;
  const ping = () => { at = performance.now(); s.send('x', 9, process.argv[1]); };
  s.on('message', () => { times.push(performance.now() - at); if (times.length < 20) ping(); else { console.log(JSON.stringify(times)); s.close(); } });
  ping();`;
const PONG = `const s = require('node:dgram').createSocket('udp4');
  s.on('message', (m, from) => s.send(m, from.port, from.address)).bind(9, () => console.log('bound'));`;

test('a cable that delays holds each frame for that long, and no other cable does', {
  skip: NEEDS_ROOT,
}, async (t) => {
  const network = make(t);
  await network.delay('a', 5);
  const roundTrips = async (from: MachineName, to: HostName): Promise<number[]> => {
    const pong = startIn(network.of(to), [process.execPath, '-e', PONG], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => pong.stdout?.once('data', resolve));
    const done = within(network.of(from), () =>
      execFileSync(process.execPath, ['-e', PING, ADDRESSES[to]], { encoding: 'utf8' }),
    );
    await stopChild(pong);
    return (JSON.parse(done) as number[]).sort((one, other) => one - other);
  };
  const slow = await roundTrips('b', 'a');
  const fast = await roundTrips('e1', 'b');
  t.diagnostic(`median ${slow[10].toFixed(2)} ms with the delay, ${fast[10].toFixed(2)} ms without`);
  assert.ok(slow[0] >= 10 && slow[10] < 20, slow.join(' '));
  assert.ok(fast[10] < 5, fast.join(' '));
});

test('a frame of the VM that leaves the host of the secondary is recorded and judged', {
  skip: NEEDS_ROOT,
}, async (t) => {
  const network = make(t);
  const folder = workFolder();
  t.after(() => removeWorkFolder(folder));
  const recorder = await Recorder.start(network, (tools ?? assert.fail()).tcpdump, folder);
  t.after(() => recorder.stop());
  for (const host of ['a', 'b'] as const) {
    ip(network.of(host), ['link add vm type veth peer name vm-port']);
    // The kernel would send frames of its own.
    within(network.of(host), () => setKernel('net/ipv6/conf/vm/disable_ipv6', '1'));
    ip(network.of(host), [
      `link set vm address ${NIC.mac}`,
      'link set vm-port master br0 up',
      'addr add 10.0.2.15/24 broadcast 10.0.2.255 dev vm',
      'link set vm up',
    ]);
  }
  const speak = (host: HostName): void => {
    within(network.of(host), () => execFileSync(process.execPath, ['-e', BROADCAST]));
  };
  await recorder.frames();
  for (const host of ['a', 'b', 'a'] as const) speak(host);
  const frames = await recorder.frames();
  const order = frames.map(({ host }) => host).filter((host, i, all) => host !== all[i - 1]);
  assert.deepEqual(order, ['a', 'b', 'a']);
  const judge = new VoiceJudge();
  judge.judge(frames, [{ generation: 1, primary: 'a' }]);
  assert.deepEqual(
    judge.seconds.map(({ host }) => host),
    ['b'],
  );
  assert.equal(await recorder.stop(), 0);
  assert.equal(await recorder.stop(), null, 'nothing was captured since');
});

/** A capture of host a that writes its number into a file, and one of host b that fails. */
const HALF = 'case "$*" in *lan-a*) echo $$ > "$0"; echo listening on >&2; exec sleep 60;; esac; exit 1';

test('a recorder whose second capture fails ends the first one', { skip: NEEDS_ROOT }, async (t) => {
  const network = make(t);
  const folder = workFolder();
  t.after(() => removeWorkFolder(folder));
  const program = { command: ['sh', '-c', HALF, join(folder, 'pid')], env: {} };
  await assert.rejects(Recorder.start(network, program, folder), { code: 'COLO_LAB' });
  const pid = readFileSync(join(folder, 'pid'), 'utf8').trim();
  assert.equal(existsSync(`/proc/${pid}`), false);
});

test('a capture that has ended early makes what was missed unknown', { skip: NEEDS_ROOT }, async (t) => {
  const network = make(t);
  const folder = workFolder();
  t.after(() => removeWorkFolder(folder));
  const program = { command: ['sh', '-c', 'echo listening on >&2; sleep 0.1'], env: {} };
  const recorder = await Recorder.start(network, program, folder);
  await sleep(300);
  assert.equal(await recorder.stop(), null);
});

test('clients whose process has ended reject what they are asked', { skip: NEEDS_ROOT }, async (t) => {
  const network = make(t);
  const clients = new Clients(network.of('client'));
  const asked = clients.untilReady();
  await clients.stop();
  await assert.rejects(asked, { code: 'COLO_LAB_CLIENT' });
  await assert.rejects(clients.look(), { code: 'COLO_LAB_CLIENT' });
});
