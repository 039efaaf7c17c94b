/**
 * The life of a secondary's image, with power lost after each step that any file takes: whatever the state file says then, no VM may
 * boot on an image that is not whole.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Disk } from '../../src/disk/disk.ts';
import { SystemStore } from '../../src/disk/system-store.ts';
import { fakeTool, imageAt, imageText } from './fake-tool.ts';
import { LOSSES, type Loss, MemoryFiles, PowerLost } from './memory-files.ts';

const DISK: Disk = {
  id: 'vda',
  image: '/images/vda.raw',
  format: 'raw',
  device: 'virtio-blk-pci',
  cache: 'writeback',
  overlayDirectory: '/images',
};
const BYTES = 4096;

type Host = { readonly files: MemoryFiles; readonly store: SystemStore };

function start(files: MemoryFiles, host: string): Host {
  const store = new SystemStore({
    node: 'b',
    pair: 'web',
    tool: fakeTool(files),
    files,
    hostBoot: async () => host,
  });
  return { files, store };
}

/** What a QEMU does with the image: it is on the disk at once, which is the worst. */
function contain(files: MemoryFiles, path: string, contents: string): void {
  files.overwrite(path, imageText({ ...imageAt(files, path), contents }));
}

/**
 * A host returns with an old image, gets a copy, follows, is promoted, commits, and is alone. `reached` notes the generation of the
 * record. The contents say what they are: `whole ...` may be booted, `half ...` not.
 */
async function live({ files, store }: Host, reached: (generation: number) => void): Promise<void> {
  await store.makeBlank(DISK, BYTES, 3);
  contain(files, DISK.image, 'half copied');
  const { active } = await store.makeOverlays(DISK, BYTES);
  contain(files, DISK.image, 'whole, of the primary');
  await store.writeState(DISK, { state: 'secondary', generation: 3 });
  reached(4);
  await store.writeState(DISK, { state: 'secondary', generation: 4 });
  contain(files, active, 'whole, of the promoted VM');
  reached(5);
  await store.writeState(DISK, { state: 'promoting', generation: 5 });
  contain(files, DISK.image, 'half committed');
  contain(files, DISK.image, 'whole, of the promoted VM');
  await store.removeOverlays(DISK);
  contain(files, DISK.image, 'whole, with what the promoted VM wrote since');
  await store.writeState(DISK, { state: 'complete', generation: 5 });
  reached(6);
  await store.writeState(DISK, { state: 'complete', generation: 6 });
}

/** Lives until power is lost after so many steps; returns the record's generation, or null if it was not lost. */
async function liveUntil(host: Host, steps: number): Promise<number | null> {
  let generation = 3;
  host.files.stepsMax = host.files.stepCount + steps;
  try {
    await live(host, (next) => {
      generation = next;
    });
    return null;
  } catch (error) {
    assert.ok(error instanceof PowerLost, String(error));
    return generation;
  }
}

async function beginning(image: 'old' | 'none'): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  if (image === 'none') return files;
  files.put(DISK.image, imageText({ format: 'raw', bytes: BYTES, contents: 'whole, of last week' }));
  await start(files, 'boot-0').store.writeState(DISK, { state: 'complete', generation: 1 });
  return files;
}

/** Plays every step; `after` sees the host at its next start. */
async function everyStep(
  image: 'old' | 'none',
  loss: Loss | 'killed',
  after: (host: Host, generation: number, steps: number) => Promise<void>,
): Promise<number> {
  for (let steps = 1; ; steps++) {
    const files = await beginning(image);
    const generation = await liveUntil(start(files, 'boot-1'), steps);
    if (generation === null) return steps;
    // A node and a QEMU that are killed lose nothing that was written.
    files.lose(loss === 'killed' ? 'all-kept' : loss);
    await after(start(files, loss === 'killed' ? 'boot-1' : 'boot-2'), generation, steps);
  }
}

for (const image of ['old', 'none'] as const)
  for (const loss of [...LOSSES, 'killed'] as const)
    test(`no VM boots on an image that is not whole: ${image} image, ${loss}`, async () => {
      let booted = 0;
      const played = await everyStep(image, loss, async ({ files, store }, generation, steps) => {
        const before = files.text(DISK.image);
        try {
          await store.admit([DISK], generation + 1);
        } catch (error) {
          assert.match((error as { code: string }).code, /^COLO_DISK_(STATE|IMAGE)$/, `step ${steps}`);
          return;
        }
        booted++;
        const { contents } = imageAt(files, DISK.image);
        assert.match(contents, /^whole/, `step ${steps}`);
        if (before?.includes('wrote since') === true) assert.match(contents, /wrote since$/, `step ${steps}`);
        if (generation >= 5) assert.notEqual(contents, 'whole, of last week', `step ${steps}`);
      });
      assert.ok(played > 25, 'the story has steps');
      assert.ok(booted > 0, 'and some of them leave a whole image');
    });

for (const loss of [...LOSSES, 'killed'] as const)
  test(`whatever was cut off, the next copy goes through: ${loss}`, async () => {
    await everyStep('old', loss, async (host, generation, steps) => {
      await host.store.makeBlank(DISK, BYTES, generation + 1);
      await host.store.makeOverlays(DISK, BYTES);
      assert.equal((await host.store.readState(DISK))?.state, 'target', `step ${steps}`);
    });
  });
