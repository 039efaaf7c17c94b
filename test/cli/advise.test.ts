/** `colo advise`: what is made of a node's counters, its text, and the command beside a running node and without one. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CHECKPOINT_REASONS } from '../../src/checkpoint/report.ts';
import { type AdviceReport, adviceFor } from '../../src/cli/advice.ts';
import { adviseText } from '../../src/cli/advise-text.ts';
import { DIVERGENCE_CLASSES } from '../../src/divergence/explained.ts';
import type { NodeStatus, SpentRow } from '../../src/observe/status.ts';
import { fakeStatus } from '../observe/fake-node.ts';
import { tempFolder } from '../temp-folder.ts';
import { type Result, runColo } from './colo.ts';
import { nodesIn } from './with-node.ts';

const folder = tempFolder();
const withNode = nodesIn(folder);

const colo = (...args: string[]): Promise<Result> => runColo(args, folder);

const spent = (row: Partial<SpentRow>): SpentRow => ({
  reason: 'diverged-bytes',
  class: null,
  service: null,
  checkpoints: 1,
  pausedMs: 10,
  totalMs: 15,
  ...row,
});

function statusWith(rows: SpentRow[], forMs = 600_000, rest: Partial<NodeStatus> = {}): NodeStatus {
  return { ...fakeStatus(), ...rest, spent: { forMs, rows } };
}

const BUSY = statusWith([
  spent({ class: 'order', service: 'tcp 6379', checkpoints: 1200, pausedMs: 18_000, totalMs: 25_000 }),
  spent({ class: 'clock', service: 'tcp 80', checkpoints: 300, pausedMs: 4500, totalMs: 6000 }),
  spent({ class: 'order', service: 'tcp 80', checkpoints: 30, pausedMs: 450, totalMs: 500 }),
  spent({ reason: 'wait-primary', service: 'tcp 22', checkpoints: 100, pausedMs: 1500, totalMs: 2000 }),
  spent({ reason: 'diverged-length', class: 'order', service: 'tcp 6379', checkpoints: 20, pausedMs: 300 }),
  spent({ reason: 'interval', checkpoints: 20, pausedMs: 200, totalMs: 300 }),
  spent({ reason: 'initial', checkpoints: 1, pausedMs: 20, totalMs: 30 }),
]);

const on = (report: AdviceReport, cause: string): string | undefined => {
  const found = report.advice.find((one) => one.cause === cause);
  return found === undefined ? undefined : `${found.change}: ${found.text}`;
};

test('the text has what was spent, the dearest first, and advice on what costs most', () => {
  assert.equal(
    adviseText(adviceFor(BUSY)),
    `node             alpha of pair web, primary, protected
checkpoints      1 671 in 10 min 0 s (2.8/s)
VM stopped       for 25 s, 4.2% of the time

spent on         checkpoints  VM stopped   share  services
order                  1 250      18.8 s     75%  tcp 6379: 1 220, tcp 80: 30
clock                    300       4.5 s     18%  tcp 80: 300
wait-primary             100       1.5 s      6%  tcp 22: 100
interval                  20      200 ms    0.8%
initial                    1       20 ms  < 0.1%

order            in the guest: The VMs took the requests of several clients in
                 another order. They now get their input in portions, which
                 mends most of that. One virtual processor, and one worker
                 process for each port, mend more.

clock            nothing to do: A second turned between the VMs' work on one
                 request, at most once a second. Nothing need be changed. The
                 guest's clock has stood for 5.4 s in all: "The guest's clock"
                 in docs/operation.md has the lines for chrony.

wait-primary     on the hosts: The secondary's VM did not send the same in time.
                 By "colo status" its output is late 0.5 ms (median), ahead 1.5
                 ms (p99). See whether its host gives it a processor, and what
                 the link's delay is. Some are normal.`,
  );
});

test('causes are added up over reasons and services, and shares are of the time for which the VM stood', () => {
  const report = adviceFor(BUSY);
  assert.deepEqual(report.spent[0], {
    cause: 'order',
    checkpoints: 1250,
    pausedMs: 18_750,
    totalMs: 25_515,
    share: 18_750 / 24_970,
    services: [
      { service: 'tcp 6379', checkpoints: 1220, pausedMs: 18_300 },
      { service: 'tcp 80', checkpoints: 30, pausedMs: 450 },
    ],
  });
  assert.deepEqual(
    [report.checkpoints, report.pausedMs, report.pausedShare],
    [1671, 24_970, 24_970 / 600_000],
  );
});

test('the advice follows how often a cause comes', () => {
  const clock = (checkpoints: number): string | undefined =>
    on(adviceFor(statusWith([spent({ class: 'clock', checkpoints })], 100_000)), 'clock');
  assert.match(clock(100) ?? '', /^nothing: /);
  assert.match(clock(500) ?? '', /^guest: .*milliseconds/);
  const random = (checkpoints: number): string | undefined =>
    on(adviceFor(statusWith([spent({ class: 'random', checkpoints })], 100_000)), 'random');
  assert.match(random(1) ?? '', /^nothing: /);
  assert.match(random(50) ?? '', /^vm: .*-rdrand,-rdseed/);
});

test('the advice on order follows what portions do', () => {
  const { secondary } = fakeStatus();
  assert.ok(secondary !== null);
  for (const [why, blindness, expected] of [
    [null, null, /^guest: .* now get their input in portions/],
    ['no-gain', null, /^guest: .* did not help/],
    ['never-sleeps', null, /^guest: .* never sleeps/],
    ['blind', 'no /proc', /^host: .* guests sleep: no \/proc\.$/],
    ['not-needed', null, /^nothing: .* where that comes often/],
  ] as const) {
    const portions = { ...secondary.portions, why, blindness };
    const status = statusWith([spent({ class: 'order' })], 1000, { secondary: { ...secondary, portions } });
    assert.match(on(adviceFor(status), 'order') ?? '', expected);
  }
  const alone = statusWith([spent({ class: 'order' })], 1000, { secondary: null });
  assert.match(on(adviceFor(alone), 'order') ?? '', /^nothing: /);
});

test('every class and every reason has advice that fits into the text', () => {
  for (const one of DIVERGENCE_CLASSES) {
    const report = adviceFor(statusWith([spent({ class: one })]));
    assert.ok((on(report, one) ?? '').length > 30, one);
  }
  for (const reason of CHECKPOINT_REASONS.filter((one) => !one.startsWith('diverged'))) {
    const report = adviceFor(statusWith([spent({ reason })]));
    assert.ok((on(report, reason) ?? '').length > 20, reason);
  }
});

test('what matters more than checkpoints comes first', () => {
  const first = (rest: Partial<NodeStatus>): string | undefined =>
    adviceFor(statusWith([spent({})], 1000, rest)).advice[0].cause;
  const { secondary } = fakeStatus();
  assert.ok(secondary !== null);
  assert.equal(first({ role: 'secondary', secondary: null }), 'secondary');
  assert.equal(first({ phase: 'alone', secondary: null }), 'alone');
  assert.equal(first({ secondary: { ...secondary, unmatched: true } }), 'unmatched');
  assert.equal(first({}), 'diverged-bytes');
});

test('a node without a checkpoint has no figures that divide by zero', () => {
  const report = adviceFor(statusWith([], 0));
  assert.deepEqual([report.perSecond, report.pausedShare, report.spent, report.advice], [0, 0, [], []]);
  assert.match(adviseText(report), /^checkpoints +none yet$/m);
});

test('every line has at most 80 columns and no control characters', () => {
  const rows = Array.from({ length: 70 }, (_, i) =>
    spent({ class: 'order', service: `tcp \u001b[2J${i}`, checkpoints: 123_456_789, pausedMs: 1e9 }),
  );
  const status = statusWith(rows, 1e9, { pair: `${'x'.repeat(100)}\n` });
  const lines = adviseText(adviceFor(status)).split('\n');
  assert.ok(lines.every((line) => line.length <= 80));
  assert.ok(!lines.join('').includes('\u001b'));
});

test('a running node is asked, as text and as JSON', async () => {
  await withNode(
    async ({ config, socket }) => {
      const [text, json] = await Promise.all([
        colo('advise', '-c', config),
        colo('advise', '--socket', socket, '--json'),
      ]);
      assert.deepEqual([text.code, text.err, text.out], [0, '', `${adviseText(adviceFor(BUSY))}\n`]);
      assert.deepEqual([json.code, json.err], [0, '']);
      assert.deepEqual(JSON.parse(json.out), adviceFor(BUSY));
    },
    { status: () => BUSY },
  );
});

test('a node that does not run, one that is older, and a wrong configuration', async () => {
  const wrong = join(folder, 'wrong.yaml');
  writeFileSync(wrong, 'node: alpha\npear: web\n');
  const gone = await colo('advise', '--socket', join(folder, 'no.sock'), '--json');
  assert.equal(gone.code, 1);
  assert.match(gone.out, /"code":"COLO_NODE_UNREACHABLE"/);
  const refused = await colo('advise', '-c', wrong);
  assert.deepEqual([refused.code, refused.out], [2, '']);
  assert.match(refused.err, /^COLO_CONFIG_UNKNOWN_KEY: .*wrong\.yaml:2:1: /);
  const { spent: _, ...older } = fakeStatus();
  await withNode(
    async ({ socket }) => {
      const { code, err } = await colo('advise', '--socket', socket);
      assert.equal(code, 1);
      assert.match(err, /^COLO_NODE_PROTOCOL: .* upgrade it, and restart it$/m);
    },
    { status: () => older as NodeStatus },
  );
});
