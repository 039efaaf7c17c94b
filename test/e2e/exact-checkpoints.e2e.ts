/**
 * Checkpoints are exact: under any load, no input is lost or repeated in either VM, and no checkpoint makes the VMs
 * differ. The test injects frames one by one at the hub, so the guest's own counters must equal ours.
 * All traffic of a run is of the named family, TCP and the requests for the guest's counters too.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { counterStats } from '../../lab/clients/counter.ts';
import { Echo } from '../../lab/clients/echo.ts';
import { FrameClient } from '../../lab/clients/frames.ts';
import { Stage } from '../../lab/stage.ts';
import { PORTS } from '../../lab/vm.ts';

const LOAD_EVERY_MS = 5;
const ANSWER_MS_MAX = 10_000;

for (const [family, checkpoints] of [
  ['v4', 500],
  ['v6', 500],
] as const) {
  test(`${checkpoints} checkpoints under ${family} TCP, UDP and ICMP load lose and repeat nothing`, async (t) => {
    const stage = await Stage.open({ ip: family, extraUplinks: 1 });
    t.after(() => stage.close());
    const a = stage.node('a');
    const b = stage.node('b');
    await stage.boot(a);
    await stage.protect(a, b);

    const frames = await FrameClient.open(stage.network.uplinks[2], family, PORTS.counted);
    t.after(() => frames.close());
    const stop = new AbortController();
    const echo = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 7 });
    const echoed = echo.run(stop.signal);
    const load = setInterval(() => {
      frames.ping();
      frames.datagram();
    }, LOAD_EVERY_MS);
    t.after(() => clearInterval(load));

    // Periodic checkpoints count too; each of these is taken in the middle of the load.
    for (let taken = 0; taken < checkpoints; taken++) {
      await a.checkpoint().catch((cause: unknown) => {
        assert.fail(`after ${taken}: ${cause}; ${a.log().slice(-2000)}`);
      });
    }
    clearInterval(load);
    const endMs = performance.now() + ANSWER_MS_MAX;
    while (
      performance.now() < endMs &&
      (frames.udp.replied < frames.udp.sent || frames.icmp.replied < frames.icmp.sent)
    ) {
      await sleep(20);
    }
    stop.abort();
    const report = await echoed;
    const status = await a.status();
    const inPrimary = await counterStats(stage.targets.counter);
    await a.kill();
    await b.until('promotion', (after) => after.phase === 'alone', 15_000);
    const inSecondary = await counterStats(stage.targets.counter);

    t.diagnostic(
      `${status.checkpoints.count} checkpoints ${JSON.stringify(status.checkpoints.byReason)}, pause p50 ${status.checkpoints.pauseMs.p50?.toFixed(1)} ms p99 ${status.checkpoints.pauseMs.p99?.toFixed(1)} ms; ` +
        `${frames.udp.sent} datagrams, ${frames.icmp.sent} pings, ${report.echoed} echoes; divergences ${status.divergences.count}`,
    );
    t.diagnostic(`counted in the guest: ${JSON.stringify(inPrimary)} then ${JSON.stringify(inSecondary)}`);
    assert.deepEqual(frames.udp, { ...frames.udp, replied: frames.udp.sent, repeated: 0, wrong: 0 });
    assert.deepEqual(frames.icmp, { ...frames.icmp, replied: frames.icmp.sent, repeated: 0, wrong: 0 });
    for (const counted of [inPrimary, inSecondary]) {
      assert.deepEqual(
        {
          udp: counted.udp,
          distinct: counted.udpDistinct,
          duplicates: counted.udpDuplicates,
          icmp: counted.icmp,
        },
        { udp: frames.udp.sent, distinct: frames.udp.sent, duplicates: 0, icmp: frames.icmp.sent },
      );
    }
    assert.equal(status.secondary?.portions.blindness, null, 'the threads of QEMU can be seen');
    assert.equal(status.divergences.count, 0, JSON.stringify(status.divergences.last));
    assert.ok(report.ok, JSON.stringify(report.findings.kept.slice(0, 3)));
    assert.equal(report.broken.count, 0);
    const inexact = a
      .events()
      .filter((event) => event.type === 'checkpoint.committed' && event.inexact !== undefined);
    assert.deepEqual(inexact, []);
  });
}
