/** The demo's story, with less traffic: both kills, on IPv4 and on IPv6 only. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tellStory } from '../../demo/story.ts';

/** The longest blackout allowed; twice that of the demo, for a busy test machine. */
const BLACKOUT_MS_MAX = 2000;

for (const ip of ['v4', 'v6'] as const) {
  test(`clients on IP${ip} outlive two primaries`, async (t) => {
    const printed: string[] = [];
    const pages: Promise<Response>[] = [];
    const result = await tellStory({
      ip,
      pages: ip === 'v4' ? 'served' : 'none',
      trafficMs: 3000,
      teller: {
        chapter: (text) => printed.push(text),
        line: (text) => {
          printed.push(text);
          const url = /http:\S+/.exec(text)?.[0];
          if (url !== undefined) pages.push(fetch(url));
        },
        live: () => {},
      },
      signal: t.signal,
    });
    t.diagnostic(JSON.stringify(result));
    assert.deepEqual(
      { ...result, checkpoints: 0, checkpoint_pause_ms: 0, divergences: 0, failovers: 0 },
      {
        ok: true,
        qemu: result.qemu,
        accel: result.accel,
        checkpoints: 0,
        checkpoint_pause_ms: 0,
        divergences: 0,
        failovers: 0,
        download_ok: true,
        echo_ok: true,
        counter_ok: true,
        connections_broken: 0,
      },
      printed.join('\n'),
    );
    const replies = (await Promise.all(pages)).map(({ status }) => status);
    assert.deepEqual(replies, ip === 'v4' ? [200, 200] : []);
    assert.equal(result.failovers.length, 2);
    assert.ok(result.checkpoints > 0);
    for (const { blackout_ms } of result.failovers)
      assert.ok(blackout_ms > 0 && blackout_ms < BLACKOUT_MS_MAX);
  });
}
