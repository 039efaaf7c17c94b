/**
 * A pair whose guest writes to a disk: what the guest has acknowledged as durable is on the disk of whichever node survives.
 *
 * A client has the guest write lines, each with fsync, and remembers what was acknowledged. The primary dies, node and QEMU at once;
 * the secondary is promoted; the former primary comes back with its old image and gets a new copy; and then the new primary
 * dies. At a quiet moment both images are equal, byte for byte.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readBack, Writer } from '../../lab/clients/writer.ts';
import { differingBlocks, readLines } from '../../lab/disk.ts';
import type { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';

const DISK_BYTES = 64 << 20;
const PROTECT_MS_MAX = 60_000;
const READ_MS_MAX = 20_000;
const WRITES_MS = 3000;

const isProtected = ({ role, phase }: { role: string | null; phase: string }) =>
  role === 'primary' && phase === 'protected';

test('a guest that writes to its disk outlives two primaries, with all that it has acknowledged', async (t) => {
  const stage = await Stage.open({ ip: 'v4', diskBytes: DISK_BYTES });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  await stage.boot(a);
  const writer = new Writer({ target: stage.targets.counter, everyMs: 10 });
  const stop = new AbortController();
  t.after(() => stop.abort());
  const writing = writer.run(stop.signal);
  await stage.protect(a, b);
  await sleep(WRITES_MS);

  const failover = async (dying: LabNode, survivor: LabNode) => {
    const before = writer.acknowledged;
    await dying.kill();
    await survivor.until('alone', ({ phase }) => phase === 'alone', PROTECT_MS_MAX);
    dying.start();
    await survivor.until('protected again', isProtected, PROTECT_MS_MAX);
    await sleep(WRITES_MS);
    t.diagnostic(`${dying.name} died after ${before} acknowledged lines; ${writer.acknowledged} now`);
    assert.ok(writer.acknowledged > before, 'the guest goes on writing');
  };
  await failover(a, b);
  await failover(b, a);

  stop.abort();
  await writing;
  assert.deepEqual(writer.refused, []);
  const found = await readBack(stage.targets.counter, READ_MS_MAX);
  assert.deepEqual(writer.compare(found), { lost: [], strange: [] });
  t.diagnostic(`${writer.acknowledged} lines acknowledged, ${found.length} on the disk`);

  // A checkpoint empties the overlays of the secondary; then nothing writes.
  await sleep(1000);
  await a.checkpoint();
  assert.equal(differingBlocks(a.image, b.image), 0);
  await Promise.all([a.kill(), b.kill()]);
  for (const { image } of [a, b])
    assert.deepEqual(writer.compare(await readLines(image)), { lost: [], strange: [] });
});
