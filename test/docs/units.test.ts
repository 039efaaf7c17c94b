/** The systemd units of deploy/systemd: what systemd itself says of them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempFolder } from '../temp-folder.ts';
import { ROOT, readDoc } from './tables.ts';

const FOLDER = join(ROOT, 'deploy/systemd');
const UNITS = readdirSync(FOLDER)
  .toSorted()
  .map((name) => ({ name, text: readFileSync(join(FOLDER, name), 'utf8') }));

test('systemd finds nothing wrong with the units', (t) => {
  const path = tempFolder(t);
  assert.deepEqual(
    UNITS.map(({ name }) => name),
    ['colo-dashboard@.service', 'colo-uplink@.service', 'colo@.service'],
  );
  // Their programs are not on this machine.
  for (const { name, text } of UNITS)
    writeFileSync(
      join(path, name),
      text
        .replaceAll(/^(Exec\w+=[-+]*)\S+/gm, '$1/bin/true')
        .replaceAll(/^(User|SupplementaryGroups)=.*$/gm, ''),
    );
  const units = UNITS.map(({ name }) => join(path, name.replace('@.', '@a.')));
  const ran = spawnSync('systemd-analyze', ['verify', '--man=no', ...units], { encoding: 'utf8' });
  if (ran.error !== undefined) {
    t.skip('NOT COVERED: systemd-analyze is not on this machine');
    return;
  }
  assert.equal(`${ran.stdout}${ran.stderr}`, '');
  assert.equal(ran.status, 0);
});

test('a restart of the uplink does not stop the VM, and the node is watched', () => {
  const node = UNITS.find(({ name }) => name === 'colo@.service')?.text ?? '';
  for (const line of [
    'Type=notify',
    'NotifyAccess=main',
    'KillMode=mixed',
    'Restart=on-failure',
    'StartLimitIntervalSec=0',
    'Wants=network-online.target colo-uplink@%i.service',
  ])
    assert.ok(node.split('\n').includes(line), line);
  assert.match(node, /^WatchdogSec=\d+$/m);
  // These would stop the node, and with it the VM, when the uplink is restarted by hand.
  assert.doesNotMatch(node, /^(Requires|BindsTo|PartOf)=/m);
});

test('the uplink is tried again until its bridge is there', () => {
  const uplink = UNITS.find(({ name }) => name === 'colo-uplink@.service')?.text ?? '';
  for (const line of ['Wants=network-online.target', 'StartLimitIntervalSec=0', 'Restart=always'])
    assert.ok(uplink.split('\n').includes(line), line);
  // systemd's 0.1 s: the primary's uplink is to be back long before the VM would move.
  assert.doesNotMatch(uplink, /^RestartSec=/m);
});

test('docs/operation.md names each unit', () => {
  const page = readDoc('docs/operation.md');
  for (const { name } of UNITS) assert.ok(page.includes(`(../deploy/systemd/${name})`), name);
});

test('the program of a unit is one that systemd finds in a checkout and in a package alike', () => {
  for (const { name, text } of UNITS) assert.doesNotMatch(text, /\/colo (node|reload|dashboard)/, name);
});

test('the dashboard prints no token into the journal, and the node comes first', () => {
  const unit = UNITS.find(({ name }) => name === 'colo-dashboard@.service')?.text ?? '';
  assert.match(unit, /^ExecStart=.* --token-file \/var\/lib\/colo\/%i-dashboard\.token$/m);
  assert.doesNotMatch(unit, /^(Wants|Requires|BindsTo|PartOf)=/m);
  const weight = (text = ''): number => Number(/^CPUWeight=(\d+)$/m.exec(text)?.[1]);
  assert.ok(weight(unit) < 100 && weight(UNITS.find(({ name }) => name === 'colo@.service')?.text) > 100);
});
