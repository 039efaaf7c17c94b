import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimQemu } from './sim-qemu.ts';
import { runWorld, type WorldResult } from './world.ts';

/**
 * A world that once broke a rule, or shows much. `reaches`: the count which shows that it still meets its subject; `without`: faults that
 * would keep it from that.
 */
type Kept = {
  seed: number;
  why: string;
  reaches: [what: string, times: number];
  without?: readonly number[];
};

const KEPT: readonly Kept[] = [
  {
    seed: 13,
    why: 'both copies are lost and the service starts from nothing',
    reaches: ['cold starts', 1],
  },
  { seed: 2, why: 'three promotions', reaches: ['failover.done', 3] },
  {
    seed: 174,
    why: "a late write makes the network take the old primary's port for the VM's",
    reaches: ['late writes', 1],
  },
  {
    seed: 910002820,
    why: 'a VM repeats a SYN-ACK between two failovers',
    reaches: ['failover.done', 2],
  },
  {
    seed: 960021409,
    why: 'an uplink loses output that it has not taken, and then the primary dies',
    reaches: ['uplink.lost', 1],
  },
  {
    seed: 920003830,
    why: 'a migration channel of an earlier try has ended before it is used',
    reaches: ['sync.failed', 1],
  },
  {
    seed: 316080062,
    why: 'the guest of a secondary is dead, and commits release only ACKs that are owed',
    reaches: ['checks of a useless secondary', 1],
  },
  {
    seed: 990002747,
    why: 'half resets overlap, and the link is as fast afterwards as before',
    reaches: ['link.lost', 2],
  },
  {
    seed: 1100001547,
    why: "a survivor's first segment of a connection is a retransmission, and the next one comes after a gap",
    reaches: ['failover.done', 1],
  },
  {
    seed: 1200004320,
    why: 'the link brings more frames before the silent uplink does than one place of its table holds',
    reaches: ['failover.done', 2],
  },
  {
    seed: 1300001008,
    why: 'a late write has the last ACKs of connections whose ports clients have used again',
    reaches: ['late writes', 1],
    without: [0],
  },
  {
    seed: 81,
    why: 'the VM moves in order, far from any fault, so that each datagram around the move is judged',
    reaches: ['orderly moves judged', 1],
  },
  {
    seed: 67,
    why: 'the guest switches itself off while nothing else is broken',
    reaches: ['guests switched off in peace', 1],
  },
  {
    seed: 73,
    why: 'replies differ while the guest of the secondary is off, so no checkpoint is taken for a second',
    reaches: ['guests switched off: secondary', 1],
  },
  {
    seed: 1800009027,
    why: 'an operator stops a VM, its node goes alone and stops it again, and the operator lets it run',
    reaches: ['VMs of a primary that stand: paused', 1],
  },
  {
    seed: 1800007740,
    why: 'clients that nobody hears for 8 s repeat their requests as late',
    reaches: ['failover.done', 1],
  },
  {
    seed: 1800019585,
    why: 'an uplink is taken from a primary that stands before a write with many datagrams',
    reaches: ['uplink.yields', 1],
  },
  {
    seed: 1900000008,
    why: 'a node is promoted a moment before its uplink is back',
    reaches: ['promotions without an uplink', 1],
    without: [1, 2],
  },
  {
    seed: 1800009358,
    why: "the secondary's QEMU hangs in a checkpoint that waits for a primary's VM which an operator has stopped",
    reaches: ['hung VMs of a secondary', 1],
  },
  {
    seed: 1800011419,
    why: 'a promoted VM repeats what it had sent before its node first saw the connection, after a checkpoint',
    reaches: ['orderly moves', 1],
  },
  {
    seed: 82,
    why: "a survivor's VM and its copy go on after one gap, and the copy's retransmission before it was longer",
    reaches: ['failover.done', 2],
  },
];
/** CPU time for new worlds: a slow machine tries fewer. */
const FRESH_MS = 10_000;

function assertWell(result: WorldResult): void {
  assert.deepEqual(result.violations, [], `npm run sim -- --seed ${result.seed}`);
}

for (const { seed, why, reaches, without = [] } of KEPT) {
  test(`world ${seed}: ${why}`, async () => {
    const result = await runWorld(seed, { without: new Set(without) });
    assertWell(result);
    const [what, times] = reaches;
    assert.ok((result.stats[what] ?? 0) >= times, `${what}: ${result.stats[what]}`);
  });
}

test('the same seed is the same world', async () => {
  const lines: string[][] = [[], []];
  for (const log of lines) await runWorld(5, { trace: (line) => log.push(line) });
  assert.ok(lines[0].length > 100);
  assert.deepEqual(lines[0], lines[1]);
});

test('a node waits for a QEMU that takes seconds to leave COLO: it has the last VM', async (t) => {
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

/** Faults that wait for a moment: each must find it in some world. */
const STRIKES = [
  'bursts of primary',
  'bursts of secondary',
  'bursts of vms',
  'bursts of clients',
  'checkpoints for limit-flows',
  'checkpoints in periodic mode',
  'checks of a useless secondary',
  'claims that ended in an error and came late',
  'claims whose reply was lost',
  'claims whose request was lost',
  'failovers asked of a primary',
  'failovers asked of a secondary',
  'fences done',
  'fences failed',
  'guests switched off: both',
  'hung VMs of a primary',
  'hung VMs of a secondary',
  'late writes',
  'muted primaries',
  'offers to take over',
  'orderly moves',
  'primaries that died with output waiting',
  'stalled long writes',
  'stalled writes',
  'uplinks that came up at a primary',
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

test('worlds of new seeds break no rule', async (t) => {
  const first = (Date.now() % 1_000_000) * 1000;
  const startMicros = process.cpuUsage().user;
  let seed = first;
  for (; process.cpuUsage().user - startMicros < FRESH_MS * 1000; seed++) assertWell(await runWorld(seed));
  t.diagnostic(`seeds ${first}..${seed - 1}`);
});
