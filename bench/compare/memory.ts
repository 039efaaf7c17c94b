/** Measures the resident memory of `colo compare`, of this build or another, per idle flow and per held frame. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import type { Peer } from './peers.ts';
import { withLoad } from './rates.ts';
import type { Shape } from './shape.ts';

export type Memory = {
  /** MB of a process that has compared, with few flows and no held frame. */
  readonly restingMb: number;
  readonly idleFlows: number;
  readonly bytesPerIdleFlow: number;
  readonly heldFrames: number;
  readonly bytesPerHeldFrame: number;
  /** The part of those that is the frame and its prefix. */
  readonly wireBytes: number;
};

const FEW_FLOWS = 1000;
const MANY_FLOWS = 100_000;
/**
 * 45 MB: below every limit that would pause reading (limits.ts), and far more than the slabs that exist anyway, in
 * which shorter frames would fit unnoticed.
 */
const HELD_FRAMES = 30_000;
const WORK_MS = 2000;
const QUIET_MS = 500;

export async function memory(plain: Shape, peer: Peer): Promise<Memory> {
  const shape = { ...plain, payloadBytes: 64 };
  const few = await residentAfterWork({ ...shape, flows: FEW_FLOWS }, peer);
  const many = await residentAfterWork({ ...shape, flows: MANY_FLOWS }, peer);
  return {
    restingMb: few / 1e6,
    idleFlows: MANY_FLOWS,
    bytesPerIdleFlow: (many - few) / (MANY_FLOWS - FEW_FLOWS),
    ...(await holding({ ...plain, flows: FEW_FLOWS }, peer)),
  };
}

async function residentAfterWork(shape: Shape, peer: Peer): Promise<number> {
  return await withLoad(shape, peer, {}, async (load, { child }) => {
    await load.rate({ runUpMs: 0, forMs: WORK_MS });
    await sleep(QUIET_MS);
    return residentBytes(child.pid);
  });
}

async function holding(
  shape: Shape,
  peer: Peer,
): Promise<Pick<Memory, 'heldFrames' | 'bytesPerHeldFrame' | 'wireBytes'>> {
  return await withLoad(shape, peer, {}, async (load, { child }) => {
    await load.rate({ runUpMs: 0, forMs: WORK_MS });
    await sleep(QUIET_MS);
    const before = residentBytes(child.pid);
    const heldFrames = await load.hold(HELD_FRAMES);
    await sleep(QUIET_MS);
    const bytesPerHeldFrame = (residentBytes(child.pid) - before) / heldFrames;
    return { heldFrames, bytesPerHeldFrame, wireBytes: load.traffic.wireBytes };
  });
}

/** Returns VmRSS of /proc/PID/status, in kB (Linux). */
function residentBytes(pid: number | undefined): number {
  const found = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  if (found === null) throw new ColoError('COLO_BENCH_PEER', `process ${pid} has no resident memory`);
  return Number(found[1]) * 1024;
}
