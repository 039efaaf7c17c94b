import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkDisks } from '../../src/cli/doctor-disks.ts';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import type { DiskState, DiskStore } from '../../src/disk/store.ts';
import { ColoError } from '../../src/error.ts';
import { NODE_YAML } from '../config/node-yaml.ts';
import { tempFolder } from '../temp-folder.ts';

const TMPFS = 0x01021994;
const EXT4 = 0xef53;

function configOf(folder: string, args = '[]') {
  const disks = `disks: [{ id: root, image: root.raw, format: raw, overlayDirectory: scratch }]`;
  return parseNodeConfig(NODE_YAML.replace('args: []', `args: ${args}, ${disks}`), join(folder, 'a.yaml'));
}
/** Of a store the doctor asks these alone. */
function storeOf(state: DiskState | null, problem: ColoError | null = null): DiskStore {
  const asked: Pick<DiskStore, 'check' | 'virtualBytes' | 'readState'> = {
    async check() {
      if (problem !== null) throw problem;
    },
    virtualBytes: async () => 1024,
    readState: async () => state,
  };
  return asked as DiskStore;
}

test('an image is shown with its size and its state', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'root.raw'), '');
  mkdirSync(join(folder, 'scratch'));
  const state: DiskState = { state: 'complete', generation: 7 };
  const [image, overlays, ...rest] = await checkDisks(configOf(folder), storeOf(state), () => EXT4);
  assert.deepEqual(image, {
    name: 'disk root',
    ok: true,
    found: `${folder}/root.raw, 1024 bytes, complete, generation 7`,
    advice: '',
  });
  assert.deepEqual(overlays, { name: 'overlays of root', ok: true, found: `${folder}/scratch`, advice: '' });
  assert.deepEqual(rest, []);
  const [unused] = await checkDisks(configOf(folder), storeOf(null), () => EXT4);
  assert.match(unused.found, /not used by a node yet$/);
});

test('an image that cannot be used is a problem, with what to do', async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'root.raw'), '');
  const cause = new ColoError(
    'COLO_DISK_STATE',
    'disk root: it belongs to node "b", not to "alpha"; give each its own',
  );
  const [image] = await checkDisks(configOf(folder), storeOf(null, cause), () => EXT4);
  assert.deepEqual(image, {
    name: 'disk root',
    ok: false,
    found: 'COLO_DISK_STATE: disk root: it belongs to node "b", not to "alpha"',
    advice: 'give each its own',
  });
});

test('an image that is not there is none for a primary, and will be made for a secondary', async (t) => {
  const folder = tempFolder(t);
  const [image, overlays] = await checkDisks(configOf(folder), storeOf(null), () => EXT4);
  assert.equal(image.ok, true);
  assert.match(image.found, /root.raw \(not there: made for the first copy/);
  assert.equal(overlays.ok, false, 'its file system may not be mounted');
  assert.equal(overlays.found, `there is no folder ${folder}/scratch`);
});

test('a folder that cannot be written is a problem', async (t) => {
  if (process.getuid?.() === 0) return t.skip('root writes everywhere');
  const folder = tempFolder(t);
  chmodSync(folder, 0o500);
  const checks = await checkDisks(configOf(folder), storeOf(null), () => EXT4);
  assert.deepEqual(
    checks.map(({ ok }) => ok),
    [false, false],
  );
});

test('overlays in memory, and a written disk in vm.args, are warned of', async (t) => {
  const folder = tempFolder(t);
  mkdirSync(join(folder, 'scratch'));
  const config = configOf(folder, '[-hda, /x.img]');
  const [, overlays, written] = await checkDisks(config, storeOf(null), () => TMPFS);
  assert.equal(overlays.ok, true);
  assert.match(overlays.found, /scratch is in memory/);
  assert.notEqual(overlays.advice, '');
  assert.equal(written.ok, true);
  assert.equal(written.found, 'vm.args hold -hda /x.img, which the guest may write to');
});
