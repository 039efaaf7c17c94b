/** Checkpoints of an idle pair, for a plain link and for one inside TLS. */
import { setTimeout as sleep } from 'node:timers/promises';
import { installGuest } from '../../lab/guest/image.ts';
import type { LinkKind } from '../../lab/pair.ts';
import { removeWorkFolder, workFolder } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import { startOurs } from '../checkpoint/ours.ts';
import { pauseMs } from '../checkpoint/pauses.ts';

/** `pausesMs`: of the primary, by its QEMU's own clock. */
export type Pauses = {
  readonly pausesMs: number[];
  readonly totalsMs: number[];
  readonly stateBytes: number[];
};

/** The first checkpoints after the copy move more memory, and run code that is not compiled yet. */
const WARM_UP = 5;
const PACE_MS = 100;

/** Starts a pair, takes so many checkpoints of it, and adds its pauses to `to`. */
export async function measurePauses(link: LinkKind, count: number, to: Pauses): Promise<void> {
  const directory = workFolder();
  const side = await startOurs(
    { install: await installQemu(), image: await installGuest(), directory },
    { link },
  );
  try {
    for (let i = 0; i < WARM_UP + count; i++) {
      await sleep(PACE_MS);
      if (i === WARM_UP) side.primary.pauses.length = 0;
      const report = (await side.checkpoint()) as CheckpointReport;
      if (i < WARM_UP) continue;
      to.totalsMs.push(report.totalMs);
      to.stateBytes.push(report.stateBytes);
    }
    to.pausesMs.push(...side.primary.pauses.map(pauseMs));
  } finally {
    await side.stop();
    removeWorkFolder(directory);
  }
}
