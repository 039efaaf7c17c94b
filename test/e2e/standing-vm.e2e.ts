/**
 * A VM that stands for another reason than a checkpoint, and a guest that reboots or switches itself off: a standing VM is never copied,
 * what an operator wanted stays, and what a guest wanted is no failure.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import { untilGuestReplies } from '../../lab/clients/ready.ts';
import { Monitor } from '../../lab/monitor.ts';
import type { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';

const STATE_MS_MAX = 60_000;
/** More than the longest time between two checkpoints. */
const STOOD_MS = 6000;

const eventsOf = (node: LabNode, type: string) => node.events().filter((event) => event.type === type);
const checkpointsOf = (node: LabNode) => eventsOf(node, 'checkpoint.committed').length;

async function untilEnded(node: LabNode): Promise<void> {
  const endMs = performance.now() + STATE_MS_MAX;
  while (node.isRunning && performance.now() < endMs) await sleep(10);
  assert.equal(node.isRunning, false, `node ${node.name} has ended`);
}

function exitCodeOf(node: LabNode): unknown {
  return eventsOf(node, 'node.stopped').at(-1)?.code;
}

test('an operator’s stop is respected, and a guest that panics leaves the service to the other VM', async (t) => {
  const stage = await Stage.open({ ip: 'v4' });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  const monitors = { a: Monitor.prepare(stage.directory, a), b: Monitor.prepare(stage.directory, b) };
  await stage.boot(a);
  await stage.protect(a, b);
  const stop = new AbortController();
  const client = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 5, drainMs: 10_000 });
  const running = client.run(stop.signal);
  await sleep(1000);

  await t.test(
    'the primary’s VM stands for as long as the operator wants, and no checkpoint is taken',
    async (t) => {
      await monitors.a.execute('stop');
      const status = await a.until('stopped', ({ vm }) => vm.trouble?.kind === 'stopped', STATE_MS_MAX);
      assert.equal(status.vm.trouble?.state, 'paused');
      await sleep(500);
      const before = checkpointsOf(a);
      await assert.rejects(a.ask('POST', '/checkpoint'), { code: 'COLO_VM_STANDS' });
      await sleep(STOOD_MS);
      const after = await a.status();
      t.diagnostic(JSON.stringify(after.vm));
      assert.equal(checkpointsOf(a), before);
      assert.equal(after.phase, 'protected');
      assert.deepEqual(await monitors.a.execute('query-status'), { running: false, status: 'paused' });
      const { echoed } = client;
      await monitors.a.execute('cont');
      await a.until('running', ({ vm }) => vm.trouble === null, STATE_MS_MAX);
      await a.checkpoint();
      await sleep(1500);
      assert.ok(client.echoed > echoed, 'clients are served again');
      assert.equal((await a.status()).phase, 'protected');
    },
  );

  await t.test('a secondary’s VM that is stopped costs the pair, and is copied to again', async () => {
    const { pid } = (await b.status()).vm;
    await monitors.b.execute('stop');
    await a.until('alone', ({ phase }) => phase !== 'protected', STATE_MS_MAX);
    await a.until('protected again', ({ phase }) => phase === 'protected', STATE_MS_MAX);
    assert.notEqual((await b.status()).vm.pid, pid);
    const [alone] = eventsOf(a, 'pair.alone').slice(-1);
    assert.match(String(alone.cause), /COLO_VM_TROUBLE the VM was stopped by an operator/);
  });

  await t.test('a guest that panics: the other VM goes on', async (t) => {
    await sleep(500);
    const startMs = performance.now();
    await monitors.a.panic();
    await b.until('promotion', ({ role }) => role === 'primary', STATE_MS_MAX);
    t.diagnostic(`promoted ${Math.round(performance.now() - startMs)} ms after the panic`);
    await untilEnded(a);
    assert.equal(exitCodeOf(a), 1);
    assert.equal(eventsOf(a, 'vm.trouble').at(-1)?.state, 'guest-panicked');
  });

  await sleep(1000);
  stop.abort();
  const report = await running;
  t.diagnostic(`${report.echoed} echoes`);
  assert.ok(report.ok, JSON.stringify({ ...report, findings: report.findings.kept.slice(0, 3) }));
  assert.equal(report.broken.count, 0);
});

for (const who of ['both', 'primary'] as const) {
  test(`a reboot keeps the pair, and a guest that switches itself off ends both nodes in order: ${who}`, async (t) => {
    const stage = await Stage.open({ ip: 'v4' });
    t.after(() => stage.close());
    const [a, b] = [stage.node('a'), stage.node('b')];
    const monitors = [Monitor.prepare(stage.directory, a), Monitor.prepare(stage.directory, b)];
    const told = who === 'both' ? monitors : monitors.slice(0, 1);
    await stage.boot(a);
    await stage.protect(a, b);
    const vms = [(await a.status()).vm.pid, (await b.status()).vm.pid];

    await Promise.all(told.map((monitor) => monitor.sysrq('b')));
    await sleep(1000);
    await untilGuestReplies(stage.targets.echo, STATE_MS_MAX);
    await a.checkpoint();
    assert.ok(eventsOf(a, 'vm.rebooted').length > 0);
    assert.equal((await a.status()).phase, 'protected');
    assert.deepEqual([(await a.status()).vm.pid, (await b.status()).vm.pid], vms);

    await Promise.all(told.map((monitor) => monitor.sysrq('o')));
    await untilEnded(a);
    await untilEnded(b);
    for (const node of [a, b]) {
      assert.equal(exitCodeOf(node), 0, node.log().split('\n').slice(-12).join('\n'));
      assert.deepEqual(eventsOf(node, 'failover.done'), []);
    }
    assert.equal(eventsOf(a, 'arbiter.won').at(-1)?.state, 'alone');
    // Whoever starts them again has a service at once.
    a.start();
    await a.until('alone', ({ phase, vm }) => phase === 'alone' && vm.running, 8000);
  });
}

test('a guest that switches itself off is started again if the configuration wants that', async (t) => {
  const stage = await Stage.open({ ip: 'v4' });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  const monitors = [a, b].map((node) => Monitor.prepare(stage.directory, node, { onPoweroff: 'restart' }));
  await stage.boot(a);
  await stage.protect(a, b);
  await Promise.all(monitors.map((monitor) => monitor.sysrq('o')));
  await sleep(1000);
  await untilGuestReplies(stage.targets.echo, STATE_MS_MAX);
  assert.ok(eventsOf(a, 'vm.restarted').length === 1);
  assert.equal((await a.status()).phase, 'protected');
  await a.checkpoint();
});
