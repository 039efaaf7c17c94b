/**
 * The comparator against QEMU's own: the same frames go to a real colo-compare and to `colo compare`, over the same kinds
 * of sockets. Where QEMU is right both must do the same. Where it is wrong, the difference has a name, its own test here,
 * and a row in docs/qemu-differences.md.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { installQemu } from '../../lab/qemu.ts';
import { DEVIATIONS } from './oracle/deviations.ts';
import { Judge } from './oracle/judge.ts';
import { play, tell, Voice } from './oracle/script.ts';

const installed = await installQemu();
const qemu = await Judge.qemu(`QEMU ${installed.version}`, installed);
const ours = await Judge.ours();
after(async () => {
  await qemu.close();
  await ours.close();
});

for (const [name, { script, ...expected }] of Object.entries(DEVIATIONS)) {
  test(`QEMU differs: ${name}`, async () => {
    const steps = script(new Voice());
    assert.deepEqual(tell(steps, await play(qemu, steps)), expected.qemu, qemu.name);
    assert.deepEqual(tell(steps, await play(ours, steps)), expected.ours, ours.name);
  });
}

test('colo compare as a process does the same as in this one', async () => {
  const process = await Judge.command();
  try {
    for (const [name, { script, ours: expected }] of Object.entries(DEVIATIONS)) {
      const steps = script(new Voice());
      // With a clock that runs it may also ask because something waits.
      const said = (lines: readonly string[]) => lines.map((line) => line.replace(/(: |, )asks$/, ''));
      assert.deepEqual(said(tell(steps, await play(process, steps))), said(expected), name);
    }
  } finally {
    await process.close();
  }
});
