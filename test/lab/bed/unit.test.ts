/** The rules by which the bed restarts a node are those of deploy/systemd/colo@.service. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unitRules } from '../../../lab/bed/unit.ts';

test("the project's unit is read", () => {
  const startLimit = { starts: 5, withinMs: 0 };
  assert.deepEqual(unitRules(), { restart: 'on-failure', restartMs: 1000, startLimit });
});

const unit = (lines: string): string => `[Service]\n${lines}\n`;

test('what the unit does not say is as systemd has it', () => {
  const startLimit = { starts: 5, withinMs: 10_000 };
  assert.deepEqual(unitRules(unit('Restart=always')), { restart: 'always', restartMs: 100, startLimit });
});

test('a limit of starts is read', () => {
  const { startLimit } = unitRules(unit('Restart=always\nStartLimitIntervalSec=60\nStartLimitBurst=3'));
  assert.deepEqual(startLimit, { starts: 3, withinMs: 60_000 });
});

test('a unit without a rule, or with one that the bed does not know, is an error', () => {
  for (const text of ['', unit('Restart=on-watchdog'), unit(''), unit('Restart=always\nRestartSec=2min')])
    assert.throws(() => unitRules(text), { code: 'COLO_LAB' });
});
