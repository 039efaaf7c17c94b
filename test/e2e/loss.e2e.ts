/**
 * Transfers over a lossy network between real Linux stacks, through `colo rewrite` and `colo compare`, without anything that takes
 * checkpoints (bench/loss.ts): a connection that needed one would stand still.
 *
 * It needs root, or user namespaces and /dev/net/tun. Root gets no excuse; for another user who may not, the test is skipped, and
 * says why.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const BENCH = fileURLToPath(new URL('../../bench/main.ts', import.meta.url));

type Row = {
  name: string;
  columns: { colo: Record<'runs' | 'finished' | 'matched' | 'divergences', number> };
};

/** Runs the bench, which prints one line of JSON. Returns its rows, or why this user may not. */
function transfers(...args: string[]): Row[] | string {
  const { stdout, stderr } = spawnSync(process.execPath, [BENCH, 'loss', '--json', ...args], {
    encoding: 'utf8',
  });
  const last = stdout.trim().split('\n').at(-1) ?? '';
  if (last.startsWith('{')) return (JSON.parse(last) as { rows: Row[] }).rows;
  return stderr.trim().split('\n').at(-1) ?? 'it printed nothing';
}

/** What, how many rows of the bench that is, and its arguments. */
const CASES: readonly (readonly [string, number, ...string[]])[] = [
  ['with 3 % loss', 2, '--loss', '3'],
  ['over IPv6, with 5 % loss', 2, '--loss', '5', '--variants', 'ipv6', '--megabytes', '0.5'],
  [
    'into a smaller receive buffer of the secondary VM',
    1,
    ...['--loss', '2', '--variants', 'smaller-secondary', '--directions', 'up'],
  ],
];

for (const [about, count, ...args] of CASES) {
  test(`transfers end and match ${about}`, (t) => {
    const rows = transfers('--megabytes', '2', '--runs', '1', ...args);
    if (typeof rows === 'string' && process.getuid?.() !== 0) {
      t.skip(rows);
      return;
    }
    assert.ok(typeof rows !== 'string', String(rows));
    assert.equal(rows.length, count);
    for (const { name, columns } of rows) {
      const { runs, finished, matched, divergences } = columns.colo;
      assert.deepEqual({ name, finished, divergences }, { name, finished: runs, divergences: 0 });
      assert.ok(matched > 0, name);
    }
  });
}
