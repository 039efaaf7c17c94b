/**
 * A QEMU that hangs: its process and its sockets live, and it does nothing. The other node's VM goes on, and clients stand for a
 * stated time at most.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import type { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';

const SILENCE_MS_MAX = 2000;
/** The watch's eighth, the lease, the arbiter, and a busy machine. */
const PRIMARY_STAND_MS_MAX = SILENCE_MS_MAX + 1500;
/** What output waits, what a checkpoint waits for a secondary, the arbiter, and a busy machine. */
const SECONDARY_STAND_MS_MAX = 200 + 1000 + 800;
const STATE_MS_MAX = 60_000;

async function vmOf(node: LabNode): Promise<number> {
  const { pid } = (await node.status()).vm;
  assert.ok(pid !== null);
  return pid;
}

/** Runs echoes while `during` does something, and returns the longest time that one of them took. */
async function stoodWhile(t: TestContext, stage: Stage, during: () => Promise<void>): Promise<number> {
  const stop = new AbortController();
  const client = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 11, drainMs: 5000 });
  const running = client.run(stop.signal);
  await sleep(1000);
  let longestMs = 0;
  let [last, lastMs] = [client.echoed, performance.now()];
  const poll = setInterval(() => {
    const nowMs = performance.now();
    if (client.echoed !== last) [last, lastMs] = [client.echoed, nowMs];
    longestMs = Math.max(longestMs, nowMs - lastMs);
  }, 5);
  try {
    await during();
    await sleep(1000);
  } finally {
    clearInterval(poll);
  }
  stop.abort();
  const report = await running;
  t.diagnostic(`${report.echoed} echoes, the longest gap ${Math.round(longestMs)} ms`);
  assert.ok(report.ok, JSON.stringify({ ...report, findings: report.findings.kept.slice(0, 3) }));
  assert.deepEqual([report.broken.count, report.unreturned], [0, 0]);
  return longestMs;
}

test("clients stand for a stated time when either VM's QEMU is stopped", async (t) => {
  const stage = await Stage.open({ ip: 'v4' });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  await stage.boot(a);
  await stage.protect(a, b);

  await t.test("the secondary's: the primary goes on alone, and protects itself again", async (t) => {
    const vm = await vmOf(b);
    const stoodMs = await stoodWhile(t, stage, async () => {
      process.kill(vm, 'SIGSTOP');
      await a.until('alone', ({ phase }) => phase === 'alone' || phase === 'syncing', STATE_MS_MAX);
    });
    assert.ok(stoodMs < SECONDARY_STAND_MS_MAX, `clients stood for ${stoodMs} ms`);
    await a.until('protected again', ({ phase }) => phase === 'protected', STATE_MS_MAX);
    assert.notEqual(await vmOf(b), vm);
  });

  await t.test("an idle secondary's: the pair ends, and is protected again", async () => {
    const vm = await vmOf(b);
    process.kill(vm, 'SIGSTOP');
    await a.until('alone', ({ phase }) => phase === 'alone' || phase === 'syncing', STATE_MS_MAX);
    await a.until('protected again', ({ phase }) => phase === 'protected', STATE_MS_MAX);
  });

  await t.test("the primary's: the secondary is promoted, and protects itself with the other", async (t) => {
    const vm = await vmOf(a);
    const stoodMs = await stoodWhile(t, stage, async () => {
      process.kill(vm, 'SIGSTOP');
      await b.until('promotion', ({ role }) => role === 'primary', STATE_MS_MAX);
    });
    assert.ok(stoodMs < PRIMARY_STAND_MS_MAX, `clients stood for ${stoodMs} ms`);
    await b.until('protected again', ({ phase }) => phase === 'protected', STATE_MS_MAX);
    const troubles = a.events().filter(({ type }) => type === 'vm.trouble');
    t.diagnostic(JSON.stringify(troubles));
    assert.equal(troubles.filter(({ kind }) => kind === 'hung').length, 1);
    assert.notEqual(await vmOf(a), vm);
    // Neither a copy, a checkpoint nor a failover is taken for a trouble.
    const others = [a, b].flatMap((node) =>
      node.events().filter(({ type, kind }) => type === 'vm.trouble' && kind !== 'hung'),
    );
    assert.deepEqual(others, []);
  });
});
