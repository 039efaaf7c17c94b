/** A short flood (flood.ts) through the filters of two versions of QEMU; `npm run flood` sends more. About 15 seconds each. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { installOldQemu, installQemu } from '../../lab/qemu.ts';
import { flood } from './flood.ts';

for (const [version, install] of [
  ['11.1', installQemu],
  ['7.2', installOldQemu],
] as const) {
  test(`QEMU ${version} replies within a second throughout a flood in both directions`, async (t) => {
    const { slowestReplyMs, checkpoints, compare, rewrite } = await flood(await install(), {
      megabytes: 8,
      checkpoints: 5,
    });
    t.diagnostic(`slowest reply ${slowestReplyMs.toFixed(0)} ms, ${checkpoints} checkpoints`);
    t.diagnostic(JSON.stringify([compare, rewrite]));
    assert.ok(slowestReplyMs < 1000, `${slowestReplyMs} ms`);
    assert.ok(checkpoints >= 5);
    assert.ok(Number(compare.releasedFrames) > 1000);
  });
}
