/**
 * Uplinks that go away, on a real bridge that learns and snoops (bridge.ts): how long clients stand, with and without
 * `uplink.failover`; and what the network hears of a move: VLANs, groups, and an uplink that comes up only after a promotion.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { installGuest } from '../../lab/guest/image.ts';
import { LabPair } from '../../lab/pair.ts';
import { removeWorkFolder, startChild, workFolder } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import { NIC, PORTS, vmArguments } from '../../lab/vm.ts';
import { ethernet, u16, udpFrame } from '../frames.ts';
import { NEEDS_ROOT } from '../namespaces.ts';
import { Bridge } from './bridge.ts';
import type { BridgeReport } from './bridge-client.ts';

const MS_MAX = 60_000;
const GROUP = '239.7.7.7';
const GROUP_MAC = '01:00:5e:07:07:07';
const PROBE = { mac: '02:00:00:00:02:03', v4: '10.0.2.3' } as const;
const VLAN = { id: 10, address: '10.10.0.1' } as const;

async function rig(t: TestContext, uplink?: Record<string, unknown>) {
  const install = await installQemu();
  const folder = workFolder();
  const bridge = new Bridge(t, install, folder);
  const words = [`colo.group=${GROUP}`, `colo.vlan=${VLAN.id}:${VLAN.address}`];
  for (const name of ['a', 'b']) await bridge.startHelper(name);
  const pair = await LabPair.prepare({
    directory: folder,
    uplinks: { a: bridge.socket('a'), b: bridge.socket('b') },
    qemu: install,
    vmArgs: vmArguments(install, await installGuest(), { words }),
    mac: NIC.mac,
    addresses: [NIC.v4],
    ...(uplink === undefined ? {} : { uplink }),
  });
  const [a, b] = [pair.node('a'), pair.node('b')];
  t.after(async () => {
    await pair.stop();
    removeWorkFolder(folder);
  });
  a.start();
  await a.until('alone', ({ phase, vm }) => phase === 'alone' && vm.running, MS_MAX);
  await untilReady(bridge);
  return { bridge, a, b };
}

type Rig = Awaited<ReturnType<typeof rig>>;

async function protect({ a, b }: Pick<Rig, 'a' | 'b'>): Promise<void> {
  b.start();
  await a.until('protected', ({ role, phase }) => role === 'primary' && phase === 'protected', MS_MAX);
}

/** Waits until the guest's services listen. */
async function untilReady(bridge: Bridge): Promise<void> {
  const probe = `const s = require('net').connect(${PORTS.echo}, '${NIC.v4}')
    s.on('connect', () => process.exit(0)).on('error', () => process.exit(1)); setTimeout(() => process.exit(1), 1000)`;
  const endMs = performance.now() + MS_MAX;
  for (;;) {
    try {
      bridge.run(`exec '${process.execPath}' -e "${probe}"`);
      return;
    } catch (cause) {
      if (performance.now() > endMs) throw cause;
      await sleep(200);
    }
  }
}

/** Starts a client's TCP connection; `end` ends it, and returns the longest wait of a session in which every byte has come back. */
function startClient(t: TestContext, bridge: Bridge): { end(): Promise<number> } {
  const file = join(import.meta.dirname, 'bridge-client.ts');
  const args = [process.execPath, '--disable-warning=ExperimentalWarning', file, NIC.v4, String(PORTS.echo)];
  const child = startChild(bridge.inSpace(args), { stdio: ['pipe', 'pipe', 'inherit'] });
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  return {
    async end() {
      const closed = new Promise((resolve) => child.once('close', resolve));
      child.stdin?.end();
      await closed;
      const { echoed, unreturned, troubles, longestMs } = JSON.parse(text) as BridgeReport;
      t.diagnostic(`${echoed} echoes; the client's longest wait is ${longestMs} ms`);
      assert.deepEqual([unreturned, troubles], [0, []]);
      assert.ok(echoed > 0);
      return longestMs;
    },
  };
}

const AWAY_MS = 10_000;

for (const failover of [false, true]) {
  const how = failover ? 'gives way to its secondary' : 'is shown, and clients stand';
  test(`a primary whose uplink is away for 10 s ${how}`, { skip: NEEDS_ROOT }, async (t) => {
    const lab = await rig(t, { failover });
    const { bridge, a, b } = lab;
    await protect(lab);
    const client = startClient(t, bridge);
    await sleep(1000);
    await bridge.stopHelper('a');
    const awayMs = performance.now();
    const known = await b.until("the peer's uplink", ({ uplink }) => uplink.peer?.up === false, 1000);
    assert.equal(known.uplink.peer?.cause, 'not-connected');
    assert.equal(known.uplink.own.up, true);
    assert.equal((await a.status()).uplink.own.up, false);
    if (failover) {
      await b.until('the move', ({ role }) => role === 'primary', 10_000);
      t.diagnostic(`b is the primary after ${Math.round(performance.now() - awayMs)} ms`);
    }
    await sleep(awayMs + AWAY_MS - performance.now());
    await bridge.startHelper('a');
    await sleep(4000);
    const longest = await client.end();
    if (failover) assert.ok(longest >= 1900 && longest < 5000, `${longest} ms`);
    else assert.ok(longest >= AWAY_MS && longest < 20_000, `${longest} ms`);
    const primary = failover ? b : a;
    const status = await primary.until(
      'both up',
      ({ uplink }) => uplink.own.up && uplink.peer?.up === true,
      MS_MAX,
    );
    assert.equal(status.role, 'primary');
    await primary.until('protected', ({ phase }) => phase === 'protected', MS_MAX);
    assert.equal(a.events().filter(({ type }) => type === 'uplink.yields').length, failover ? 1 : 0);
  });
}

test('a promoted node makes itself known in each VLAN, and its groups to a snooping bridge', {
  skip: NEEDS_ROOT,
}, async (t) => {
  const lab = await rig(t);
  const { bridge, a, b } = lab;
  const port = await bridge.port('probe');
  const replies: { n: number; atMs: number }[] = [];
  const heard: Buffer[] = [];
  port.onFrame = (frame, atMs) => {
    if (frame.readUInt16BE(12) === 0x0806 && frame.toString('hex', 38, 42) === '0a000203')
      port.send(arpReply(frame));
    else if (frame.readUInt16BE(12) === 0x0800 && frame[23] === 17 && frame.readUInt16BE(34) === PORTS.echo)
      replies.push({ n: Number(frame.toString('latin1', 42, 50)), atMs });
    else heard.push(Buffer.from(frame));
  };
  await protect(lab);
  assert.match(bridge.run('bridge mdb show'), /port tap-a grp 239\.7\.7\.7/);
  assert.doesNotMatch(bridge.run('bridge mdb show'), /port tap-b grp 239/);
  let sent = 0;
  const timer = setInterval(() => port.send(toGroup(sent++)), 20);
  t.after(() => clearInterval(timer));
  await sleep(1500);
  const before = replies.length;
  assert.ok(before > 40, `${before} replies to the group before`);
  heard.length = 0;
  await a.kill();
  const killedMs = performance.now();
  await b.until('promotion', ({ phase }) => phase === 'alone', 15_000);
  await sleep(4000);
  const after = replies.filter(({ atMs }) => atMs > killedMs);
  const waits = after.map(({ atMs }, i) => atMs - (after[i - 1]?.atMs ?? killedMs));
  t.diagnostic(
    `${before} replies before, ${after.length} after; the longest wait is ${Math.round(Math.max(...waits))} ms`,
  );
  assert.ok(after.length > 100, `${after.length} replies to the group after the failover`);
  assert.ok(Math.max(...waits) < 2500);
  assert.match(bridge.run('bridge mdb show'), /port tap-b grp 239\.7\.7\.7/);
  const tagged = heard.filter(
    (frame) => frame.readUInt16BE(12) === 0x8100 && (frame.readUInt16BE(14) & 0xfff) === VLAN.id,
  );
  const types = new Set(tagged.map((frame) => frame.toString('hex', 16, 18)));
  t.diagnostic(`${tagged.length} announcements in VLAN ${VLAN.id}`);
  assert.deepEqual([...types].sort(), ['0806', '8035']);
  assert.ok(tagged.every((frame) => frame.toString('hex', 6, 12) === NIC.mac.replaceAll(':', '')));
  assert.ok(tagged.some((frame) => frame.toString('hex', 32, 36) === '0a0a0001'));
});

test('an uplink that comes up after the promotion is told where the VM is', {
  skip: NEEDS_ROOT,
}, async (t) => {
  const lab = await rig(t);
  const { bridge, a, b } = lab;
  const port = await bridge.port('probe');
  let announced: number[] = [];
  port.onFrame = (frame, atMs) => {
    if (frame.readUInt16BE(12) === 0x8035) announced.push(atMs);
  };
  await protect(lab);
  const client = startClient(t, bridge);
  await sleep(1000);
  await bridge.stopHelper('b');
  await a.kill();
  await b.until('promotion', ({ phase }) => phase === 'alone', 15_000);
  await sleep(4000);
  announced = [];
  await bridge.startHelper('b');
  const upMs = performance.now();
  await sleep(4000);
  t.diagnostic(
    `announced ${announced.map((ms) => Math.round(ms - upMs)).join(', ')} ms after the tap was up`,
  );
  assert.ok(announced.length >= 2, 'after the tap was up');
  await client.end();
});

test('a helper that hangs is noticed by what it does not read', { skip: NEEDS_ROOT }, async (t) => {
  const { bridge, a } = await rig(t);
  const client = startClient(t, bridge);
  await sleep(500);
  bridge.signalHelper('a', 'SIGSTOP');
  const stoppedMs = performance.now();
  await a.until('not-read', ({ uplink }) => uplink.own.cause === 'not-read', 10_000);
  t.diagnostic(`noticed after ${Math.round(performance.now() - stoppedMs)} ms`);
  bridge.signalHelper('a', 'SIGCONT');
  await a.until('up again', ({ uplink }) => uplink.own.up, 2000);
  await sleep(1500);
  await client.end();
});

function arpReply(request: Buffer): Buffer {
  const mac = Buffer.from(PROBE.mac.replaceAll(':', ''), 'hex');
  const body = Buffer.concat([
    u16(1, 0x0800, 0x0604, 2),
    mac,
    request.subarray(38, 42),
    request.subarray(22, 32),
  ]);
  return ethernet(0x0806, body, { sourceMac: PROBE.mac, destinationMac: NIC.mac });
}

function toGroup(n: number): Buffer {
  return udpFrame({
    sourceMac: PROBE.mac,
    destinationMac: GROUP_MAC,
    source: PROBE.v4,
    destination: GROUP,
    sourcePort: 4007,
    destinationPort: PORTS.echo,
    payload: Buffer.from(String(n).padStart(8, '0')),
  });
}
