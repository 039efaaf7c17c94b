/**
 * What the story does not show: connections that the guest opened, a planned failover, a secondary that dies, a link
 * that is cut, a primary that is paused, repeated copies of a guest at work, and a capture of all that.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConnectOut, OutListener } from '../../lab/clients/connect-out.ts';
import { Echo } from '../../lab/clients/echo.ts';
import type { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';
import { readFields } from '../../lab/tshark.ts';
import { HOST_FROM_GUEST } from '../../lab/vm.ts';
import { CAPTURE_INTERFACES } from '../../src/observe/pcapng.ts';

async function protectedStage(t: TestContext, config?: Record<string, unknown>): Promise<Stage> {
  const stage = await Stage.open({ ip: 'v4', ...(config === undefined ? {} : { config }) });
  t.after(() => stage.close());
  await stage.boot(stage.node('a'));
  await stage.protect(stage.node('a'), stage.node('b'));
  return stage;
}

const PROMOTION_MS_MAX = 15_000;
const COPIES = 6;
/** Long enough to fill every buffer towards a primary that does not read. */
const PAUSED_S = 12;

/** To clients a pair whose every frame waits for a checkpoint looks right; only the primary counts that none matched. */
function compares(primary: LabNode): Promise<unknown> {
  // The client's next frame may wait for its own retransmission timer, which is a second in user networking.
  return primary.until('comparing', (status) => status.traffic.peerFrames > 0, 10_000);
}

test('connections that the guest opened outlive two primaries', async (t) => {
  const stage = await protectedStage(t);
  const a = stage.node('a');
  const b = stage.node('b');
  const listener = await OutListener.open();
  t.after(() => listener.close());
  const stop = new AbortController();
  const client = new ConnectOut({
    target: stage.targets.connectOut,
    listener,
    reachedAs: { host: HOST_FROM_GUEST.v4, port: listener.port },
    everyMs: 20,
  });
  const running = client.run(stop.signal);
  await sleep(1500);
  await a.kill();
  await b.until('promotion', (status) => status.phase === 'alone', PROMOTION_MS_MAX);
  const afterFirst = client.exchanges;
  await sleep(500);
  await stage.protect(b, a);
  await sleep(1000);
  await b.kill();
  await a.until('promotion', (status) => status.phase === 'alone', PROMOTION_MS_MAX);
  const afterSecond = client.exchanges;
  await sleep(1500);
  stop.abort();
  const report = await running;
  t.diagnostic(`${report.exchanges} exchanges over ${listener.connections} outgoing connection`);
  assert.ok(report.ok, JSON.stringify(report.findings.kept.slice(0, 3)));
  assert.equal(
    report.broken.reduce((sum, breaks) => sum + breaks.count, 0),
    0,
  );
  assert.equal(listener.connections, 1);
  assert.ok(afterFirst > 0 && afterSecond > afterFirst && report.exchanges > afterSecond);
});

test('clients notice no break at a planned failover, a lost secondary or a paused primary', async (t) => {
  const stage = await protectedStage(t);
  const a = stage.node('a');
  const b = stage.node('b');
  const stop = new AbortController();
  const client = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 3, drainMs: 5000 });
  const running = client.run(stop.signal);
  await sleep(500);

  // b is promoted by `colo failover`; a yields, and comes back as the secondary by itself.
  await b.ask('POST', '/failover');
  await b.until(
    'protected again',
    (status) => status.role === 'primary' && status.phase === 'protected',
    30_000,
  );
  assert.equal((await a.status()).role, 'secondary');
  await sleep(500);
  await compares(b);

  // The secondary dies: b goes on alone.
  await a.kill();
  await b.until('alone', (status) => status.phase === 'alone', PROMOTION_MS_MAX);
  await sleep(500);
  await stage.protect(b, a);
  await sleep(500);
  await compares(b);

  // The primary is paused for longer than any timeout, and does not read its uplink any more: the service goes on.
  const paused = b.pid;
  process.kill(paused, 'SIGSTOP');
  await a.until('promotion', (status) => status.role === 'primary', PROMOTION_MS_MAX);
  for (let second = 1; second <= PAUSED_S; second++) {
    const before = client.echoed;
    await sleep(1000);
    assert.ok(client.echoed > before, `no echo in second ${second} after the promotion`);
  }
  // When it runs again, the VM lives elsewhere: it must be silent.
  process.kill(paused, 'SIGCONT');
  await a.until('protected by the one that was paused', (status) => status.phase === 'protected', 30_000);
  const fenced = b.events().filter((event) => event.type === 'pair.fenced');
  assert.equal(fenced.length, 1, 'the paused primary noticed that it had lost its right to speak');
  await sleep(500);
  stop.abort();
  const report = await running;
  t.diagnostic(`${report.echoed} echoes`);
  assert.ok(
    report.ok,
    JSON.stringify({ ...report, findings: report.findings.kept.slice(0, 3), broken: report.broken.kept }),
  );
  assert.equal(report.broken.count, 0);
});

// When a QEMU dies, its migration stream often closes first, which looks like a lost link.
test('a primary whose QEMU alone dies leaves the service to the secondary', async (t) => {
  const stage = await protectedStage(t);
  let [primary, secondary] = [stage.node('a'), stage.node('b')];
  const stop = new AbortController();
  const echo = new Echo({ target: stage.targets.echo, everyMs: 10, seed: 9, drainMs: 5000 });
  const running = echo.run(stop.signal);
  for (let deaths = 1; deaths <= 3; deaths++) {
    await sleep(500);
    const { pid } = (await primary.status()).vm;
    assert.ok(pid !== null);
    process.kill(pid, 'SIGKILL');
    await secondary.until('promotion', (status) => status.phase === 'alone', PROMOTION_MS_MAX);
    await primary.stop();
    if (deaths < 3) await stage.protect(secondary, primary);
    [primary, secondary] = [secondary, primary];
  }
  await sleep(500);
  stop.abort();
  const report = await running;
  t.diagnostic(`${report.echoed} echoes`);
  assert.ok(report.ok, JSON.stringify({ ...report, findings: report.findings.kept.slice(0, 3) }));
  assert.deepEqual([report.broken.count, report.unreturned], [0, 0]);
});

// A first copy that misses pages of a guest at work shows only when that copy has become the primary: it stalls,
// sends wrong bytes, or dies.
test('a guest at work is copied whole, each time', async (t) => {
  const stage = await Stage.open({ ip: 'v4' });
  t.after(() => stage.close());
  let [primary, secondary] = [stage.node('a'), stage.node('b')];
  await stage.boot(primary);
  const stop = new AbortController();
  const echo = new Echo({ target: stage.targets.echo, everyMs: 10, seed: 7, drainMs: 5000 });
  const running = echo.run(stop.signal);
  await sleep(300);
  for (let copies = 1; copies <= COPIES; copies++) {
    await stage.protect(primary, secondary);
    await primary.kill();
    await secondary.until('promotion', (status) => status.phase === 'alone', PROMOTION_MS_MAX);
    const before = echo.echoed;
    await sleep(700);
    assert.ok(echo.echoed > before, `the guest that was promoted after copy ${copies} sends nothing`);
    [primary, secondary] = [secondary, primary];
  }
  stop.abort();
  const report = await running;
  t.diagnostic(`${report.echoed} echoes over ${COPIES} copies`);
  assert.ok(report.ok, JSON.stringify({ ...report, findings: report.findings.kept.slice(0, 3) }));
  assert.deepEqual([report.broken.count, report.unreturned], [0, 0]);
});

test('a capture has both VMs, the input and the released frames, each with its verdict', async (t) => {
  const stage = await protectedStage(t);
  const a = stage.node('a');
  const file = join(stage.directory, 'capture.pcapng');
  await a.ask('POST', '/capture', { path: file, bytesMax: 1 << 24 });
  const stop = new AbortController();
  const client = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 3 });
  const running = client.run(stop.signal);
  await sleep(1000);
  await a.checkpoint();
  stop.abort();
  await running;
  await a.ask('DELETE', '/capture');
  await sleep(200);
  const { packets, comments } = readPcapng(readFileSync(file));
  t.diagnostic(`frames per interface ${JSON.stringify(packets)}, verdicts ${JSON.stringify(comments)}`);
  CAPTURE_INTERFACES.forEach((name, index) => {
    assert.ok((packets[index] ?? 0) > 0, `no frame on ${name}`);
  });
  assert.ok((comments.match ?? 0) > 0);
  // Wireshark reads the same.
  const rows = await readFields(file, ['frame.interface_name', 'frame.comment', '_ws.malformed']);
  assert.equal(
    rows.length,
    packets.reduce((sum, count) => sum + count, 0),
  );
  CAPTURE_INTERFACES.forEach((name, index) => {
    assert.equal(rows.filter(([at]) => at === name).length, packets[index], name);
  });
  const matched = rows.filter(([at, comment]) => at === CAPTURE_INTERFACES[3] && comment === 'match');
  assert.equal(matched.length, comments.match);
  assert.deepEqual(
    rows.filter(([, comment, malformed]) => comment === '' || malformed !== ''),
    [],
  );
});

/** Returns the frames per interface, and how often each comment of the "released" interface occurs. */
function readPcapng(file: Buffer): { packets: number[]; comments: Record<string, number> } {
  const packets: number[] = [];
  const comments: Record<string, number> = {};
  for (let at = 0; at < file.length; ) {
    const type = file.readUInt32LE(at);
    const length = file.readUInt32LE(at + 4);
    assert.equal(file.readUInt32LE(at + length - 4), length, 'both lengths of a block are the same');
    if (type === 6) {
      const id = file.readUInt32LE(at + 8);
      packets[id] = (packets[id] ?? 0) + 1;
      const option = at + 28 + Math.ceil(file.readUInt32LE(at + 20) / 4) * 4;
      if (id === 3 && file.readUInt16LE(option) === 1) {
        const text = file.toString('utf8', option + 4, option + 4 + file.readUInt16LE(option + 2));
        comments[text] = (comments[text] ?? 0) + 1;
      }
    }
    at += length;
  }
  return { packets, comments };
}
