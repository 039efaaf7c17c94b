import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimQemu } from './sim-qemu.ts';
import { runWorld, type WorldResult } from './world.ts';

/** Worlds that once broke a rule, or show much: each has its reason. */
const KEPT: ReadonlyMap<number, string> = new Map([
  [1, 'both copies are lost and the service starts afresh'],
  [2, 'three promotions'],
  [174, "a late write makes the network take the old primary's port for the VM's"],
  [910002820, 'a VM repeats a SYN-ACK between two failovers'],
  [960021409, 'an uplink loses what it has not taken, and then the primary dies'],
  [920003830, 'a migration channel of an earlier try has ended before it is used'],
]);
/** CPU time that new worlds may take: a slow machine tries fewer. */
const FRESH_MS = 10_000;

function assertWell(result: WorldResult): void {
  assert.deepEqual(result.violations, [], `npm run sim -- --seed ${result.seed}`);
}

for (const [seed, why] of KEPT) {
  test(`world ${seed}: ${why}`, async () => {
    assertWell(await runWorld(seed));
  });
}

test('the same seed is the same world', async () => {
  const lines: string[][] = [[], []];
  for (const log of lines) await runWorld(5, { trace: (line) => log.push(line) });
  assert.ok(lines[0].length > 100);
  assert.deepEqual(lines[0], lines[1]);
});

test('a QEMU that takes seconds to leave COLO is waited for: it has the last VM', async (t) => {
  type Inside = { later(ms: number, run: () => void): void } & Record<string, () => void>;
  let slow = 0;
  const inside = SimQemu.prototype as unknown as Inside;
  for (const name of ['primaryFailsOver', 'secondaryFailsOver']) {
    const failsOver = inside[name];
    t.mock.method(inside, name, function (this: Inside) {
      slow++;
      this.later(5000, () => failsOver.call(this));
    });
  }
  const lines: string[] = [];
  await runWorld(1, { trace: (line) => lines.push(line) });
  assert.ok(slow > 0);
  assert.deepEqual(
    lines.filter((line) => line.includes('QEMU did not fail over')),
    [],
  );
});

/** Faults that wait for a moment, which has to come. */
const STRIKES = [
  'bursts of primary',
  'bursts of secondary',
  'bursts of vms',
  'bursts of clients',
  'checkpoints for limit-flows',
  'claims whose reply was lost',
  'claims whose request was lost',
  'late writes',
  'muted primaries',
  'primaries that died with output waiting',
  'stalled long writes',
  'stalled writes',
];

test('worlds 3 to 42, in which each fault finds its moment', async () => {
  const seen = new Set<string>();
  for (let seed = 3; seed <= 42; seed++) {
    const result = await runWorld(seed);
    assertWell(result);
    for (const what of Object.keys(result.stats)) seen.add(what);
  }
  for (const what of STRIKES) assert.ok(seen.has(what), `no ${what} in these worlds`);
});

test('worlds that nobody has seen yet', async (t) => {
  const first = (Date.now() % 1_000_000) * 1000;
  const startMicros = process.cpuUsage().user;
  let seed = first;
  for (; process.cpuUsage().user - startMicros < FRESH_MS * 1000; seed++) assertWell(await runWorld(seed));
  t.diagnostic(`seeds ${first}..${seed - 1}`);
});
