/**
 * The comparator against QEMU's own: the same frames go to a real colo-compare and to `colo compare`, over the same kinds
 * of sockets. Where QEMU is right both must do the same. Where it is wrong, the difference has a name, its own test here,
 * and a row in docs/qemu-differences.md.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { installOldQemu, installQemu } from '../../lab/qemu.ts';
import { Dice } from '../dice.ts';
import { BY_HAND } from './oracle/by-hand.ts';
import { DEVIATIONS } from './oracle/deviations.ts';
import { differ, shrink, unexplained } from './oracle/differential.ts';
import { Judge } from './oracle/judge.ts';
import { play, tell, Voice } from './oracle/script.ts';
import { PLAIN, randomTheme, traffic } from './oracle/traffic.ts';

/** Other seeds and counts can be given by hand (docs/testing.md). */
const SEED = Number(process.env.COLO_ORACLE_SEED ?? 1);
const CASES = Number(process.env.COLO_ORACLE_CASES ?? 1000);

const installed = process.env.COLO_ORACLE_QEMU === 'old' ? await installOldQemu() : await installQemu();
const name = `QEMU ${installed.version}`;
let qemu = await Judge.qemu(name, installed);
const ours = await Judge.ours();
after(async () => {
  await qemu.close();
  await ours.close();
});

/** Each has three connections at most: QEMU loses its held frames at the 16 385th (connections-overflow-loses). */
const SCRIPTS_PER_QEMU = 4000;

async function* seeds(count: number): AsyncGenerator<number> {
  for (let done = 0; done < count; done++) {
    if (done % SCRIPTS_PER_QEMU === 0) {
      await qemu.close();
      qemu = await Judge.qemu(name, installed);
    }
    yield SEED + done;
  }
}

for (const [name, { script, ...expected }] of Object.entries(DEVIATIONS)) {
  test(`QEMU differs: ${name}`, async () => {
    const steps = script(new Voice());
    assert.deepEqual(tell(steps, await play(qemu, steps)), expected.qemu, qemu.name);
    assert.deepEqual(tell(steps, await play(ours, steps)), expected.ours, ours.name);
  });
}

for (const [name, { play, ...expected }] of Object.entries(BY_HAND)) {
  test(`QEMU differs: ${name}`, async () => {
    for (const [judge, outcome] of [
      [await Judge.qemu(qemu.name, installed), expected.qemu],
      [await Judge.ours(), expected.ours],
    ] as const) {
      try {
        assert.match(await play(judge), outcome, judge.name);
      } finally {
        await judge.close();
      }
    }
  });
}

test(`QEMU is right of plain traffic: seeds ${SEED} and on`, async () => {
  for await (const seed of seeds(CASES / 4)) {
    const found = await differ(qemu, ours, traffic(new Dice(seed), PLAIN));
    assert.deepEqual(found.partings, [], `seed ${seed}\n${found.text}`);
  }
});

test(`QEMU differs in known ways only: seeds ${SEED} and on`, async (t) => {
  const times = new Map<string, number>();
  let alike = 0;
  for await (const seed of seeds(CASES)) {
    const dice = new Dice(seed);
    const found = await differ(qemu, ours, traffic(dice, randomTheme(dice)));
    if (unexplained(found) !== undefined) {
      const least = await shrink(qemu, ours, found);
      assert.fail(
        `seed ${seed}, step ${unexplained(least)?.step}: ${unexplained(least)?.what}\n${least.text}`,
      );
    }
    if (found.partings.length === 0) alike++;
    for (const { because } of found.partings) {
      for (const name of because) times.set(name, (times.get(name) ?? 0) + 1);
    }
  }
  for (const name of times.keys())
    assert.ok(Object.hasOwn(DEVIATIONS, name), `${name} has no test of its own`);
  const counts = [...times].sort(([, a], [, b]) => b - a).map(([name, count]) => `${name} ${count}`);
  t.diagnostic(`${qemu.name}: ${alike} of ${CASES} scripts alike; ${counts.join(', ')}`);
});

test('colo compare as a process does the same as in this one', async () => {
  const command = await Judge.command();
  try {
    for (const [name, { script, ours: expected }] of Object.entries(DEVIATIONS)) {
      const steps = script(new Voice());
      // With a running clock it may also ask because a frame waits, and tell the client its ACK.
      const said = (lines: readonly string[]) =>
        lines.map((line) =>
          line
            .replace(/(:|,) asks$/, '')
            .replace(/ an ACK of \d+/, '')
            .replace(/:? leaves?$/, ''),
        );
      assert.deepEqual(said(tell(steps, await play(command, steps))), said(expected), name);
    }
  } finally {
    await command.close();
  }
});
