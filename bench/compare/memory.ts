/** Measures the resident memory of `colo compare`, of this build or another, per idle flow and per held frame. */
import type { ChildProcess } from 'node:child_process';
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
  /** of the large tables, which hold all of a flow */
  readonly bytesPerIdleFlow: number;
  /** of the whole process: it would show objects on V8's heap, too, but scatters by a third */
  readonly wholeBytesPerIdleFlow: number;
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
/** By then V8's heap grows slowly. */
const SETTLE_MS = 6000;
/** A part of the time in which all flows are met: no longer than needed, since the heap grows in it, too. */
const MEET_MS = 200;
const QUIET_MS = 500;
const TABLE_BYTES_MIN = 1024 * 1024;
/** glibc aligns the arenas of threads to their size. */
const ARENA_BYTES = 64 * 1024 * 1024;

export async function memory(plain: Shape, peer: Peer): Promise<Memory> {
  const shape = { ...plain, payloadBytes: 64 };
  return {
    ...(await meeting({ ...shape, flows: MANY_FLOWS }, peer)),
    ...(await holding({ ...plain, flows: FEW_FLOWS }, peer)),
  };
}

/** The growth of one process: two differ by more than the flows cost. */
async function meeting(
  shape: Shape,
  peer: Peer,
): Promise<Omit<Memory, 'heldFrames' | 'bytesPerHeldFrame' | 'wireBytes'>> {
  return await withLoad(shape, peer, {}, async (load, { child }) => {
    load.traffic.useFlows(FEW_FLOWS);
    await load.rate({ runUpMs: 0, forMs: SETTLE_MS });
    const few = await residentWhenQuiet(child);
    load.traffic.useFlows(MANY_FLOWS);
    const metBytes = load.receivedBytes + MANY_FLOWS * load.traffic.wireBytes;
    while (load.receivedBytes < metBytes) await load.rate({ runUpMs: 0, forMs: MEET_MS });
    const many = await residentWhenQuiet(child);
    return {
      restingMb: few.total / 1e6,
      idleFlows: MANY_FLOWS,
      bytesPerIdleFlow: growth(few, many) / (MANY_FLOWS - FEW_FLOWS),
      wholeBytesPerIdleFlow: (many.total - few.total) / (MANY_FLOWS - FEW_FLOWS),
    };
  });
}

async function holding(
  shape: Shape,
  peer: Peer,
): Promise<Pick<Memory, 'heldFrames' | 'bytesPerHeldFrame' | 'wireBytes'>> {
  return await withLoad(shape, peer, {}, async (load, { child }) => {
    await load.rate({ runUpMs: 0, forMs: WORK_MS });
    const before = await residentWhenQuiet(child);
    const heldFrames = await load.hold(HELD_FRAMES);
    const bytesPerHeldFrame = growth(before, await residentWhenQuiet(child)) / heldFrames;
    return { heldFrames, bytesPerHeldFrame, wireBytes: load.traffic.wireBytes };
  });
}

/** Resident bytes of each mapping that is no arena of malloc's, by its first address; and of the process (smaps; Linux). */
type Resident = { readonly mappings: ReadonlyMap<number, number>; readonly total: number };

async function residentWhenQuiet({ pid }: ChildProcess): Promise<Resident> {
  await sleep(QUIET_MS);
  const mappings = new Map<number, number>();
  let total = 0;
  let [from, to] = [0, 0];
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    const [, start, end, kilobytes] = /^(?:([0-9a-f]+)-([0-9a-f]+) |Rss:\s+(\d+) kB$)/.exec(line) ?? [];
    if (start !== undefined) [from, to] = [Number.parseInt(start, 16), Number.parseInt(end, 16)];
    if (kilobytes === undefined) continue;
    const bytes = Number(kilobytes) * 1024;
    total += bytes;
    const isArena = from % ARENA_BYTES === 0 && to - from < ARENA_BYTES;
    if (!isArena) mappings.set(from, bytes);
  }
  if (total === 0) throw new ColoError('COLO_BENCH_PEER', `process ${pid} has no resident memory`);
  return { mappings, total };
}

/**
 * Returns by how much the large tables grew: typed arrays and the slabs, which have mappings of their own. V8's heap, in
 * pieces of 256 KiB, and malloc's arenas change by more than the flows cost, and by chance.
 */
function growth(from: Resident, to: Resident): number {
  return [...to.mappings]
    .map(([start, bytes]) => bytes - (from.mappings.get(start) ?? 0))
    .filter((bytes) => bytes >= TABLE_BYTES_MIN)
    .reduce((sum, bytes) => sum + bytes, 0);
}
