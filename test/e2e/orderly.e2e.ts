/**
 * Orderly moves and crashes of a real pair, in turns: a move is shorter, and loses no datagram; the counted echo proves that none
 * reached the VM twice.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import { UdpLoad } from '../../lab/clients/udp.ts';
import type { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';
import { lostOutsideFirstCopies } from './first-copies.ts';

const TURNS = 3;
const PROTECT_MS_MAX = 60_000;
const PROMOTION_MS_MAX = 15_000;
const EVERY_MS = 5;

/** Clients from just before `act` until a while after it: their longest gaps, and what got lost. */
async function during(stage: Stage, firstNumber: number, act: () => Promise<void>) {
  const stop = new AbortController();
  const udp = new UdpLoad({
    target: stage.targets.countedUdp,
    service: 'counted',
    perSecond: 1000 / EVERY_MS,
    firstNumber,
    drainMs: 1000,
  });
  const echo = new Echo({ target: stage.targets.echo, everyMs: EVERY_MS, seed: firstNumber, drainMs: 5000 });
  const running = Promise.all([udp.run(stop.signal), echo.run(stop.signal)]);
  await sleep(1000);
  const atMs = performance.now();
  await act();
  await sleep(2500);
  stop.abort();
  const [datagrams, session] = await running;
  assert.ok(datagrams.ok, JSON.stringify(datagrams.findings.kept.slice(0, 3)));
  assert.ok(session.ok, JSON.stringify(session.findings.kept.slice(0, 3)));
  assert.equal(session.broken.count, 0);
  const gap = (client: UdpLoad | Echo) =>
    client.arrivals.longestGap(atMs - 100, atMs + 2000, performance.now())?.ms ?? Number.NaN;
  return { udpMs: gap(udp), tcpMs: gap(echo), datagrams };
}

test('a move loses no datagram, and clients wait for less than after a crash', async (t) => {
  const stage = await Stage.open({ ip: 'v4' });
  t.after(() => stage.close());
  let [primary, secondary]: LabNode[] = [stage.node('a'), stage.node('b')];
  await stage.boot(primary);
  await stage.protect(primary, secondary);
  const moves: number[] = [];
  const crashes: number[] = [];
  let number = 1;
  const next = () => {
    number += 100_000;
    return number;
  };
  const isProtected = (node: LabNode) =>
    node.until('protected', ({ role, phase }) => role === 'primary' && phase === 'protected', PROTECT_MS_MAX);
  for (let turn = 1; turn <= TURNS; turn++) {
    await sleep(1000);
    const moved = await during(stage, next(), async () => {
      await secondary.ask('POST', '/failover');
    });
    const { sent, lost, lostAtMs, duplicates } = moved.datagrams;
    t.diagnostic(
      `move ${turn}: udp ${moved.udpMs.toFixed(0)} ms, tcp ${moved.tcpMs.toFixed(0)} ms, ${lost} of ${sent} lost, ${duplicates} twice`,
    );
    assert.equal(duplicates, 0);
    const report = (await secondary.status()).failover;
    t.diagnostic(
      `  noticed in ${report?.detectMs.toFixed(1)} ms, promoted in ${report?.promoteMs.toFixed(1)} ms`,
    );
    moves.push(moved.udpMs);
    [primary, secondary] = [secondary, primary];
    await isProtected(primary);
    assert.equal(lostAtMs.length, lost, 'it is known of each when it was sent');
    assert.deepEqual(lostOutsideFirstCopies(lostAtMs, [primary, secondary]), []);
    await sleep(1000);

    const crashed = await during(stage, next(), async () => {
      await primary.kill();
      await secondary.until('promotion', ({ phase }) => phase === 'alone', PROMOTION_MS_MAX);
    });
    t.diagnostic(
      `crash ${turn}: udp ${crashed.udpMs.toFixed(0)} ms, tcp ${crashed.tcpMs.toFixed(0)} ms, ${crashed.datagrams.lost} of ${crashed.datagrams.sent} lost`,
    );
    crashes.push(crashed.udpMs);
    await stage.protect(secondary, primary);
    [primary, secondary] = [secondary, primary];
  }
  const middle = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
  assert.ok(middle(moves) < middle(crashes), `moves ${moves}, crashes ${crashes}`);
});
