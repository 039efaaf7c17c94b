import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Disk } from '../../src/disk/disk.ts';
import { statePathOf } from '../../src/disk/state-file.ts';
import { SystemStore } from '../../src/disk/system-store.ts';
import { BLANK, type FakeImage, fakeTool, imageAt, imageText } from './fake-tool.ts';
import { MemoryFiles } from './memory-files.ts';

const MIB = 1024 * 1024;
const DISK: Disk = {
  id: 'vda',
  image: '/images/vda.raw',
  format: 'raw',
  device: 'virtio-blk-pci',
  cache: 'writeback',
  overlayDirectory: '/overlays',
};
const QCOW2: Disk = { ...DISK, id: 'vdb', image: '/images/vdb.qcow2', format: 'qcow2' };
const STATE = statePathOf(DISK.image);
const OWN: FakeImage = { format: 'raw', bytes: MIB, contents: 'ours' };

function rig({ node = 'a', host = 'boot-1', files = new MemoryFiles() } = {}) {
  const calls: string[][] = [];
  const tool = fakeTool(files, calls);
  const store = new SystemStore({ node, pair: 'web', tool, files, hostBoot: async () => host });
  return { files, store, calls };
}
/** Returns the error's code and text. */
async function complaint(done: Promise<unknown>): Promise<string> {
  try {
    await done;
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return `${code} ${message}`;
  }
  return 'accepted';
}

test('an image that is one file of its format passes, and its size is what the guest sees', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  files.put(QCOW2.image, imageText({ ...OWN, format: 'qcow2', bytes: 7 * MIB }));
  await store.check(DISK);
  await store.check(QCOW2);
  assert.equal(await store.virtualBytes(QCOW2), 7 * MIB);
});

const IMAGES: readonly [what: string, text: string | null, line: RegExp][] = [
  [
    'a missing image',
    null,
    /^COLO_DISK_IMAGE disk vdb: there is no \/images\/vdb.qcow2; make it, or correct vm.disks/,
  ],
  ['an image of another format', imageText(OWN), /^COLO_DISK_IMAGE .*Image is not in qcow2 format/],
  ['a folder', 'folder', /^COLO_DISK_IMAGE disk vdb: \/images\/vdb.qcow2 is not a file; give a file/],
  ['a read-only image', 'read-only', /^COLO_DISK_IMAGE disk vdb: .*EROFS.*; make it readable and writable/],
  [
    'an image with a backing file',
    imageText({ ...OWN, format: 'qcow2', backing: '/base.qcow2' }),
    /^COLO_DISK_IMAGE disk vdb: .* has the backing file \/base.qcow2; make it one file/,
  ],
  [
    'an image whose data is elsewhere',
    imageText({ ...OWN, format: 'qcow2', dataFile: '/x.raw' }),
    /has its data in \/x.raw; make it one file/,
  ],
  [
    'an encrypted image',
    imageText({ ...OWN, format: 'qcow2', encrypted: true }),
    /is encrypted; encrypt inside/,
  ],
  [
    'a corrupt image',
    imageText({ ...OWN, format: 'qcow2', corrupt: true }),
    /is marked as corrupt; repair it/,
  ],
];

for (const [what, text, line] of IMAGES)
  test(`${what} is refused, with the reason and what to do`, async () => {
    const { files, store } = rig();
    if (text !== null) files.put(QCOW2.image, text);
    assert.match(await complaint(store.check(QCOW2)), line);
    const before = files.paths();
    assert.match(await complaint(store.judge([QCOW2], 1)), line);
    assert.deepEqual(files.paths(), before);
    assert.match(await complaint(store.admit([QCOW2], 1)), line);
  });

test('a new raw disk whose image is a qcow2 file is a mistake; a guest that writes such a header later is none', async () => {
  const { files, store } = rig();
  files.put(DISK.image, 'QFI\xfb');
  assert.match(
    await complaint(store.admit([DISK], 1)),
    /is a qcow2 image, and its format is given as raw; set format: qcow2/,
  );
  files.overwrite(DISK.image, imageText(OWN));
  await store.admit([DISK], 1);
  files.overwrite(DISK.image, 'QFI\xfb');
  assert.match(
    await complaint(store.admit([DISK], 2)),
    /Image is not in raw format/,
    'the fake tool, not the store',
  );
});

test('a node that boots for the first time has its image on record', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  assert.equal(await store.readState(DISK), null);
  await store.admit([DISK], 1);
  assert.deepEqual(await store.readState(DISK), { state: 'complete', generation: 1 });
  assert.deepEqual(JSON.parse(files.text(STATE) ?? ''), {
    version: 1,
    pair: 'web',
    node: 'a',
    disk: 'vda',
    image: DISK.image,
    inode: 100,
    host: 'boot-1',
    overlays: DISK.overlayDirectory,
    state: 'complete',
    generation: 1,
  });
});

test('a secondary makes a blank image of the size of the primary, and is a target before there is one', async () => {
  const { files, store, calls } = rig();
  await store.makeBlank(DISK, 3 * MIB, 4);
  assert.deepEqual(imageAt(files, DISK.image), { format: 'raw', bytes: 3 * MIB, contents: BLANK });
  assert.deepEqual(await store.readState(DISK), { state: 'target', generation: 4 });
  assert.deepEqual(calls, [['create', '-q', '-f', 'raw', DISK.image, String(3 * MIB)]]);
  assert.match(
    await complaint(store.admit([DISK], 5)),
    /^COLO_DISK_STATE .* a copy of the other node's image was under way/,
  );
});

test('a secondary takes the image that it had, and one that is blank', async () => {
  const own = rig();
  own.files.put(DISK.image, imageText(OWN));
  await own.store.writeState(DISK, { state: 'complete', generation: 2 });
  await own.store.makeBlank(DISK, MIB, 4);
  assert.equal((await own.store.readState(DISK))?.state, 'target');
  const blank = rig();
  blank.files.put(DISK.image, imageText({ ...OWN, contents: BLANK }));
  await blank.store.makeBlank(DISK, MIB, 4);
  assert.equal((await blank.store.readState(DISK))?.state, 'target');
});

test('a secondary does not overwrite what no node has used', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  assert.match(
    await complaint(store.makeBlank(DISK, MIB, 4)),
    /^COLO_DISK_IMAGE disk vda: .* has contents, and no node has used it: a copy would overwrite them; move it away/,
  );
  assert.equal(files.text(STATE), null);
  assert.equal(imageAt(files, DISK.image).contents, 'ours');
});

test('a secondary refuses an image of another size, and leaves all as it was', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  await store.writeState(DISK, { state: 'complete', generation: 2 });
  const before = files.text(STATE);
  assert.match(
    await complaint(store.makeBlank(DISK, 2 * MIB, 4)),
    /has 1048576 bytes, and the primary's image 2097152; remove it and \/images\/vda.raw.colo/,
  );
  assert.equal(files.text(STATE), before);
});

test('the image of another node, pair or disk is neither booted nor overwritten', async () => {
  const { files, store } = rig({ node: 'b' });
  files.put(DISK.image, imageText(OWN));
  await store.writeState(DISK, { state: 'complete', generation: 2 });
  const before = files.text(STATE);
  const a = rig({ files });
  // The same file by another name, as on a file system that both hosts have.
  const linked = { ...DISK, image: '/link/vda.raw' };
  files.put(linked.image, imageText(OWN));
  for (const disk of [DISK, linked])
    for (const done of [
      a.store.check(disk),
      a.store.makeBlank(disk, MIB, 4),
      a.store.admit([disk], 3),
      a.store.readState(disk),
    ])
      assert.match(
        await complaint(done),
        /^COLO_DISK_STATE disk vda: .* belongs to node "b", not to "a"; give each node/,
      );
  assert.equal(files.text(STATE), before);
  assert.match(await complaint(store.check({ ...DISK, id: 'vdx' })), /belongs to disk "vda", not to "vdx"/);
});

const STATE_FILES: readonly [what: string, change: (text: string) => string, line: RegExp][] = [
  [
    'half of a state file',
    (text) => text.slice(0, 40),
    /the state file \/images\/vda.raw.colo cannot be used: it is not whole/,
  ],
  ['an empty state file', () => '', /it is empty/],
  [
    'a state file of a later release',
    (text) => text.replace('"version": 1', '"version": 2'),
    /it is of version 2, and this release knows version 1/,
  ],
  ['a state that is none', (text) => text.replace('"complete"', '"good"'), /cannot be used: state: /],
  ['a state file with more in it', (text) => text.replace('{', '{ "x": 1,'), /cannot be used: /],
];

for (const [what, change, line] of STATE_FILES)
  test(`${what} is refused at the boot, and a copy replaces it`, async () => {
    const { files, store } = rig();
    files.put(DISK.image, imageText(OWN));
    await store.writeState(DISK, { state: 'complete', generation: 2 });
    files.overwrite(STATE, change(files.text(STATE) ?? ''));
    for (const done of [store.admit([DISK], 3), store.check(DISK), store.readState(DISK)]) {
      const text = await complaint(done);
      assert.match(text, /^COLO_DISK_STATE /);
      assert.match(text, line);
    }
    await store.makeBlank(DISK, MIB, 4);
    assert.deepEqual(await store.readState(DISK), { state: 'target', generation: 4 });
  });

test('an image that was moved, or was put in the place of another, is not booted', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  await store.writeState(DISK, { state: 'complete', generation: 2 });
  const moved = { ...DISK, image: '/images/other.raw' };
  files.put(moved.image, imageText(OWN));
  files.put(statePathOf(moved.image), files.text(STATE) ?? '');
  assert.match(
    await complaint(store.admit([moved], 3)),
    /it was moved here from \/images\/vda.raw; if its contents are right, remove/,
  );
  files.put(DISK.image, imageText({ ...OWN, contents: 'last week' }));
  assert.match(await complaint(store.admit([DISK], 3)), /another file was put in its place/);
  await files.remove(STATE);
  await store.admit([DISK], 3);
});

test('an image that is older than the record is not booted', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  await store.writeState(DISK, { state: 'complete', generation: 2 });
  assert.match(
    await complaint(store.admit([DISK], 20)),
    /its generation is 2, and the arbiter's record has 20: it is an older copy/,
  );
});

test('overlays are made anew, with the size of the image, where the configuration says', async () => {
  const { files, store } = rig();
  files.put('/overlays/web.a.vda.active.qcow2', 'of the last time');
  const { active, hidden } = await store.makeOverlays(DISK, 5 * MIB);
  assert.deepEqual(
    [active, hidden],
    ['/overlays/web.a.vda.active.qcow2', '/overlays/web.a.vda.hidden.qcow2'],
  );
  for (const path of [active, hidden])
    assert.deepEqual(imageAt(files, path), { format: 'qcow2', bytes: 5 * MIB, contents: BLANK });
  await store.removeOverlays(DISK);
  await store.removeOverlays(DISK);
  assert.deepEqual(files.paths(), []);
});

test('a folder that is not there is not made: its file system may not be mounted', async () => {
  const { store } = rig();
  const disk = { ...DISK, image: '/no-folder/a.raw' };
  assert.match(
    await complaint(store.makeBlank(disk, MIB, 1)),
    /^COLO_DISK_IMAGE disk vda: there is no folder \/no-folder; mount its file system, or make it/,
  );
});

test('a file system without room is named, and nothing half is left', async () => {
  const tool = rig();
  tool.files.isFull = true;
  assert.match(
    await complaint(tool.store.makeOverlays(DISK, MIB)),
    /^COLO_DISK_SPACE there is no room for \/overlays\/web.a.vda.hidden.qcow2; make room in \/overlays/,
  );
  assert.deepEqual(tool.files.paths(), []);
  const full = rig();
  full.files.put(DISK.image, imageText(OWN));
  full.files.failure = 'ENOSPC';
  assert.match(
    await complaint(full.store.writeState(DISK, { state: 'target', generation: 1 })),
    /^COLO_DISK_SPACE disk vda: there is no room for \/images\/vda.raw.colo; make room in \/images/,
  );
  assert.equal(full.files.text(STATE), null);
  // The next write is not held up by one that failed.
  full.files.failure = null;
  await full.store.writeState(DISK, { state: 'target', generation: 1 });
});

/** A node that was promoted and ended before its image was on record as whole. */
async function promoting() {
  const { files, store } = rig();
  files.put(`${DISK.overlayDirectory}/of-another-vm`, '');
  files.put(DISK.image, imageText({ ...OWN, contents: 'half or whole' }));
  const overlays = await store.makeOverlays(DISK, MIB);
  await store.writeState(DISK, { state: 'promoting', generation: 6 });
  return { files, store, ...overlays };
}

test('an image is whole when its overlays are gone, which a node removes at the end of the commit', async () => {
  const { files, store } = await promoting();
  await store.removeOverlays(DISK);
  await store.admit([DISK], 7);
  assert.deepEqual(await store.readState(DISK), { state: 'complete', generation: 7 });
  assert.deepEqual(
    files.paths().filter((path) => !path.endsWith('of-another-vm')),
    [DISK.image, STATE],
  );
});

test('an image with an overlay beside it is not booted, and the overlay is not written into it', async () => {
  for (const gone of ['active', 'hidden', null] as const) {
    const one = await promoting();
    if (gone !== null) await one.files.remove(one[gone]);
    assert.match(
      await complaint(one.store.admit([DISK], 7)),
      /ended while the overlays of a promotion were written into it; the other node's image is whole/,
    );
    assert.equal(imageAt(one.files, DISK.image).contents, 'half or whole');
    assert.equal((await one.store.readState(DISK))?.state, 'promoting');
  }
});

test('after a loss of power such an image is not booted, whatever is beside it', async () => {
  const { files, store } = await promoting();
  await store.removeOverlays(DISK);
  const restarted = rig({ files, host: 'boot-2' });
  assert.match(await complaint(restarted.store.admit([DISK], 7)), /^COLO_DISK_STATE /);
});

test('overlays that may be in another folder, or in one that is not mounted, are not taken for gone', async () => {
  const { files, store } = await promoting();
  await store.removeOverlays(DISK);
  const gone = [
    { ...DISK, overlayDirectory: '/elsewhere' },
    { ...DISK, overlayDirectory: '/not-mounted' },
  ];
  files.put('/elsewhere/other', '');
  for (const disk of gone) assert.match(await complaint(store.admit([disk], 7)), /^COLO_DISK_STATE /);
  await store.writeState(gone[1], { state: 'promoting', generation: 7 });
  assert.match(await complaint(store.admit([gone[1]], 7)), /^COLO_DISK_STATE /);
});

test('a VM boots on all of its images or on none', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  files.put(QCOW2.image, imageText({ ...OWN, format: 'qcow2' }));
  await store.writeState(QCOW2, { state: 'target', generation: 6 });
  assert.match(await complaint(store.admit([DISK, QCOW2], 7)), /disk vdb: .* is not to be booted/);
  assert.equal(await store.readState(DISK), null, 'nothing was begun');
});

test('images are judged as they would be at a boot, and nothing is changed', async () => {
  const { files, store } = rig();
  files.put(DISK.image, imageText(OWN));
  await store.writeState(DISK, { state: 'complete', generation: 6 });
  const before = files.paths().map((path) => files.text(path));
  await store.judge([DISK], 7);
  assert.match(await complaint(store.judge([DISK], 1)), /^COLO_DISK_STATE /);
  assert.deepEqual(
    files.paths().map((path) => files.text(path)),
    before,
  );
  await store.writeState(DISK, { state: 'target', generation: 6 });
  assert.match(await complaint(store.judge([DISK], 7)), /^COLO_DISK_STATE .* is not to be booted/);
});
