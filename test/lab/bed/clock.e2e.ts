/** The wall clock of a process of the bed, by the real libfaketime: it is where the file puts it, also while the process runs. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { installTools } from '../../../lab/bed/tools.ts';
import { clockFrom } from '../../../lab/bed/unit.ts';
import { tempFolder } from '../../temp-folder.ts';

/** Prints both clocks, in ms. */
const CLOCKS =
  'setInterval(() => console.log(JSON.stringify([Date.now(), Number(process.hrtime.bigint()) / 1e6])), 50)';
/** The library reads the file once a second. */
const SEEN_MS_MAX = 10_000;

test('a step of the wall clock reaches a process that runs, and its monotonic clock has none', async (t) => {
  const { faketime } = await installTools();
  const file = join(tempFolder(t), 'clock');
  writeFileSync(file, '+0');
  const env = { ...process.env, ...clockFrom(file, faketime) };
  const child = spawn(process.execPath, ['-e', CLOCKS], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  /** Returns how far its clocks are ahead of ours. */
  const ahead = async (): Promise<{ wallMs: number; monotonicMs: number }> => {
    const { value } = await lines.next();
    const [wallMs, monotonicMs] = JSON.parse(value ?? assert.fail('it has ended')) as [number, number];
    return {
      wallMs: wallMs - Date.now(),
      monotonicMs: monotonicMs - Number(process.hrtime.bigint()) / 1e6,
    };
  };
  const first = await ahead();
  assert.ok(Math.abs(first.wallMs) < 2000 && Math.abs(first.monotonicMs) < 2000, JSON.stringify(first));
  for (const [shift, hours] of [
    ['+26h', 26],
    ['-3h', -3],
  ] as const) {
    writeFileSync(file, shift);
    const endMs = performance.now() + SEEN_MS_MAX;
    for (let now = await ahead(); Math.abs(now.wallMs - hours * 3_600_000) > 2000; now = await ahead()) {
      assert.ok(performance.now() < endMs, `${shift}: ${JSON.stringify(now)}`);
      assert.ok(Math.abs(now.monotonicMs) < 2000, JSON.stringify(now));
    }
  }
});
