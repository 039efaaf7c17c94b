/** The rules by which the bed restarts a node are those of the unit in docs/operation.md. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unitRules } from '../../../lab/bed/unit.ts';

test('the unit of the page is read', () => {
  const startLimit = { starts: 5, withinMs: 0 };
  assert.deepEqual(unitRules(), { restart: 'on-failure', restartMs: 1000, startLimit });
});

const page = (lines: string): string =>
  `\`/etc/systemd/system/colo@.service\`:\n\n\`\`\`ini\n[Service]\n${lines}\n\`\`\`\nRestart=always\n`;

test('what the unit does not say is as systemd has it', () => {
  const startLimit = { starts: 5, withinMs: 10_000 };
  assert.deepEqual(unitRules(page('Restart=always')), { restart: 'always', restartMs: 100, startLimit });
});

test('a limit of starts is read', () => {
  const { startLimit } = unitRules(page('Restart=always\nStartLimitIntervalSec=60\nStartLimitBurst=3'));
  assert.deepEqual(startLimit, { starts: 3, withinMs: 60_000 });
});

test('a page without the unit, or with a rule that the bed does not know, is an error', () => {
  for (const text of ['', page('Restart=on-watchdog'), page(''), page('Restart=always\nRestartSec=2min')])
    assert.throws(() => unitRules(text), { code: 'COLO_LAB' });
});
