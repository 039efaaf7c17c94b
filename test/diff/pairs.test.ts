/**
 * Generated pairs of recordings with the right verdict known by construction (pairs/pair.ts): `colo diff` must find each
 * difference of the VMs, and blame neither VM for what only the recordings differ in.
 *
 * COLO_PAIRS_SEED and COLO_PAIRS repeat a pair, or run others (docs/testing.md).
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { diffCaptures } from '../../src/diff/diff.ts';
import type { DiffReport } from '../../src/diff/report.ts';
import { LIMITS } from '../../src/limits.ts';
import { VM_MAC } from '../frames.ts';
import { tempFolder } from '../temp-folder.ts';
import { type Made, makePair } from './pairs/pair.ts';

const SEED = Number(process.env.COLO_PAIRS_SEED ?? 1);
const PAIRS = Number(process.env.COLO_PAIRS ?? 2000);
/** Where the recordings of pairs that fail are left, if given. */
const KEEP = process.env.COLO_PAIRS_KEEP;
const FAILURES_MAX = 5;
/** A replay of a few hundred frames has no need for the memory of a node. */
const SMALL = {
  ...LIMITS,
  slabsMax: 96,
  heldSlabsMax: 80,
  heldFramesMax: 8192,
  heldFramesCheckpoint: 4096,
  heldSecondaryMax: 2048,
  flowFramesMax: 1536,
  flowBytesMax: 8 << 20,
  flowsMax: 256,
  translationsMax: 256,
};
const folder = tempFolder();

async function reportOf({ primary, secondary }: Made): Promise<DiffReport> {
  const paths = ['p.cap', 's.cap'].map((name) => join(folder, name));
  writeFileSync(paths[0], primary);
  writeFileSync(paths[1], secondary);
  return diffCaptures({
    primary: paths[0],
    secondary: paths[1],
    mac: VM_MAC,
    findingsMax: 50,
    hashSeed: 1,
    onProgress: () => {},
    limits: SMALL,
  });
}

test(`${PAIRS} pairs of recordings: no difference is missed, and none is made up`, async () => {
  const failures: string[] = [];
  for (let seed = SEED; seed < SEED + PAIRS && failures.length < FAILURES_MAX; seed++) {
    const made = makePair(seed);
    let problem: string | null;
    try {
      problem = made.check(await reportOf(made));
    } catch (cause) {
      problem = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    }
    if (problem === null) continue;
    failures.push(
      `seed ${seed} (${made.about}):\n  ${problem}\n  again: COLO_PAIRS_SEED=${seed} COLO_PAIRS=1 npm test -- diff/pairs`,
    );
    if (KEEP === undefined) continue;
    mkdirSync(KEEP, { recursive: true });
    writeFileSync(join(KEEP, `${seed}-p.pcap`), made.primary);
    writeFileSync(join(KEEP, `${seed}-s.pcap`), made.secondary);
  }
  assert.equal(failures.join('\n'), '');
});
