/**
 * For how long a VM is stopped, as its node reports it: what a client stands during a first copy, and by how much the guest's
 * clock falls behind.
 */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LineConnection } from '../../lab/clients/lines.ts';
import type { Target } from '../../lab/clients/net.ts';
import { Stage } from '../../lab/stage.ts';
import type { FirstCopyReport } from '../../src/checkpoint/report.ts';

const CHECKPOINTS = 40;
const LOOKS = 15;
const ANSWER_MS_MAX = 10_000;
/** A client's longest wait may have another cause on a busy machine: a slice of the scheduler, a retransmission. */
const NOISE_MS = 500;

/** Sends one byte after the other to the echo service; returns how to stop, and then the longest wait for one. */
function waiter({ host, port }: Target): () => Promise<number> {
  let longestMs = 0;
  let on = true;
  const running = (async () => {
    const socket = connect({ host, port, noDelay: true });
    await new Promise((resolve) => socket.once('connect', resolve));
    while (on) {
      const sentMs = performance.now();
      socket.write('x');
      await new Promise((resolve) => socket.once('data', resolve));
      longestMs = Math.max(longestMs, performance.now() - sentMs);
      await sleep(1);
    }
    socket.destroy();
  })();
  return async () => {
    on = false;
    await running;
    return longestMs;
  };
}

test('a first copy reports what clients stood, and the sum of pauses is what the guest’s clock is behind', async (t) => {
  const stage = await Stage.open({ ip: 'v4' });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  await stage.boot(a);
  const stop = waiter(stage.targets.echo);
  await sleep(300);
  await stage.protect(a, b);
  await sleep(300);
  const longestMs = await stop();
  const { firstCopy } = (await a.status()).checkpoints;
  assert.ok(firstCopy !== null);
  const copy: FirstCopyReport = firstCopy;
  t.diagnostic(`a client waited for up to ${longestMs.toFixed(0)} ms; ${JSON.stringify(copy)}`);
  assert.ok(copy.longestPauseMs <= longestMs + 10, 'no client saw the longest pause');
  assert.ok(longestMs <= Math.max(copy.standMs, copy.longestPauseMs) + NOISE_MS, 'a client stood for longer');

  const counter = await LineConnection.open(stage.targets.counter, ANSWER_MS_MAX, () => undefined);
  // A reply may wait for a checkpoint: the quickest of several is nearest to the truth.
  const look = async () => {
    let behindMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < LOOKS; i++) {
      const guestMs = Number(await counter.ask('clock', ANSWER_MS_MAX)) / 1e6;
      behindMs = Math.min(behindMs, performance.now() - guestMs);
    }
    return { behindMs, pausedMs: (await a.status()).vm.pausedMs };
  };
  const before = await look();
  for (let i = 0; i < CHECKPOINTS; i++) await a.checkpoint();
  const after = await look();
  await counter.close(ANSWER_MS_MAX);
  const behindMs = after.behindMs - before.behindMs;
  const pausedMs = after.pausedMs - before.pausedMs;
  t.diagnostic(
    `${CHECKPOINTS} checkpoints: ${pausedMs.toFixed(0)} ms of pauses, the clock ${behindMs.toFixed(0)} ms behind`,
  );
  assert.ok(pausedMs > CHECKPOINTS);
  assert.ok(
    Math.abs(behindMs - pausedMs) < 100 + pausedMs / 5,
    `${behindMs} ms behind, ${pausedMs} ms of pauses`,
  );
});
