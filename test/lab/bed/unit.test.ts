/** The rules by which the bed restarts a node are those of the unit in docs/operation.md. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unitRules } from '../../../lab/bed/unit.ts';

test('the unit of the page is read', () => {
  assert.deepEqual(unitRules(), { restart: 'on-failure', restartMs: 1000 });
});

const page = (lines: string): string =>
  `\`/etc/systemd/system/colo@.service\`:\n\n\`\`\`ini\n[Service]\n${lines}\n\`\`\`\nRestart=always\n`;

test('without RestartSec systemd waits 100 ms', () => {
  assert.deepEqual(unitRules(page('Restart=always')), { restart: 'always', restartMs: 100 });
});

test('a page without the unit, or with a rule that the bed does not know, is an error', () => {
  for (const text of ['', page('Restart=on-watchdog'), page('')])
    assert.throws(() => unitRules(text), { code: 'COLO_LAB' });
});
