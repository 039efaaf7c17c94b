/**
 * Does the simulated QEMU behave as the real one? The test runs one script on both (conformance/script.ts). Where their
 * lists of facts differ, the real one is right. Firmware only, about 15 seconds.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { installQemu } from '../../lab/qemu.ts';
import { systemSurroundings } from '../../src/io/surroundings.ts';
import { systemLauncher } from '../../src/qemu/launcher.ts';
import { conform } from './conformance/script.ts';
import { inSimulation } from './conformance/simulated.ts';

const SEEDS = [1, 2, 3];

const { command, env, accel, remedy } = await installQemu();
const directory = mkdtempSync(join(tmpdir(), 'colo-conformance-'));
after(() => rmSync(directory, { recursive: true, force: true }));

test('the simulated QEMU shows the same facts as the real one', { timeout: 120_000 }, async () => {
  const args = ['-machine', 'q35', '-m', '64', '-nodefaults', '-display', 'none', '-accel', accel, ...remedy];
  const real = await conform({
    ...systemSurroundings,
    launcher: systemLauncher,
    command,
    args,
    env,
    directory,
  });
  for (const seed of SEEDS) assert.deepEqual(await inSimulation(seed, accel, conform), real, `seed ${seed}`);
});
