/** When the bench of dying hosts holds, without a host. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Death, HostsRun } from '../../bench/hosts/deaths.ts';
import { report } from '../../bench/hosts.ts';

const DEATH: Death = {
  ...{ strike: 'kill', blackoutMs: 300, detectMs: 20, arbiterMs: 30, promoteMs: 40 },
  ...{ firstFrameMs: 10, restMs: 200, protectedMs: 9000 },
};
const GOOD: HostsRun = { deaths: [DEATH], acknowledged: 100, lost: 0, broken: 0, texts: [] };

test('it holds if replies were checked, nothing was lost or broken, and every figure was measured', () => {
  const { ok, lastLine } = report(GOOD, () => {});
  assert.equal(ok, true);
  assert.deepEqual(lastLine, { deaths: [DEATH], lost: 0, broken: 0 });
  const bad: readonly Partial<HostsRun>[] = [
    { acknowledged: 0 },
    { lost: 1 },
    { broken: 1 },
    { deaths: [DEATH, { ...DEATH, promoteMs: Number.NaN }] },
  ];
  for (const part of bad)
    assert.equal(report({ ...GOOD, ...part }, () => {}).ok, false, JSON.stringify(part));
});

test('a figure that was not measured is printed with its death', () => {
  const lines: string[] = [];
  report({ ...GOOD, deaths: [{ ...DEATH, detectMs: Number.NaN }] }, (line) => lines.push(line));
  assert.match(lines.at(-1) ?? '', /^FAILED: kill +300 +NaN +30 /);
});
