import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Disk } from '../../src/disk/disk.ts';
import type { DiskState, DiskStore } from '../../src/disk/store.ts';
import { ColoError } from '../../src/error.ts';
import { NodeDisks } from '../../src/node/node-disks.ts';
import { OwnImages } from '../../src/node/own-images.ts';
import type { Pair } from '../../src/pair/machine.ts';
import type { VmDisks } from '../../src/qemu/vm-disks.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { NO_DISKS } from './no-disks.ts';

const DISKS: Disk[] = ['root', 'data'].map((id) => ({
  ...{ id, image: `/${id}.raw`, format: 'raw', device: 'virtio-blk-pci', cache: 'writeback' },
  overlayDirectory: '/',
}));

/** Images of which the test sees what is done with them. */
function rig(disks: readonly Disk[] = DISKS) {
  const log: string[] = [];
  const store = { refuses: '' as string, full: false };
  const fake: DiskStore = {
    ...NO_DISKS,
    judge: async (_, generation) => {
      log.push(`judge ${generation}`);
      if (store.refuses !== '') throw new ColoError('COLO_DISK_STATE', store.refuses);
    },
    makeBlank: async ({ id }, bytes, generation) => {
      log.push(`blank ${id} ${bytes} ${generation}`);
    },
    makeOverlays: async ({ id }) => {
      log.push(`overlays ${id}`);
      return { active: `/${id}.active`, hidden: `/${id}.hidden` };
    },
    removeOverlays: async ({ id }) => {
      log.push(`remove ${id}`);
    },
    writeState: async ({ id }, { state, generation }: DiskState) => {
      if (store.full) throw new ColoError('COLO_DISK_SPACE', 'no room');
      log.push(`${id} ${state} ${generation}`);
    },
  };
  const events = {
    emit: (type: string) => {
      log.push(type);
    },
  };
  const time = new FakeTime();
  const node = new NodeDisks(disks, fake, events);
  const images = new OwnImages(
    {
      disks: node,
      events,
      surroundings: { clock: time, timers: time, transports: { connect: never, listen: never, unlink() {} } },
    },
    4,
  );
  return { node, images, store, log };
}

const never = (): never => assert.fail('nothing is connected here');
const BOOTING = { state: { name: 'claiming', purpose: 'boot' } } as Pair;

test('a candidate makes its images places for a copy, before its VM opens them', async () => {
  const { node, log } = rig();
  const sizes = DISKS.map(({ id }) => ({ id, bytes: 4096 }));
  const followed = await node.prepareCopy(sizes, 5);
  assert.deepEqual(log, ['blank root 4096 5', 'overlays root', 'blank data 4096 5', 'overlays data']);
  assert.deepEqual(followed[1], { id: 'data', active: '/data.active', hidden: '/data.hidden' });
});

test('nodes with other disks, or in another order, do not touch an image', async () => {
  const { node, log } = rig();
  for (const ids of [[], ['root'], ['data', 'root'], ['root', 'data', 'more']]) {
    const sizes = ids.map((id) => ({ id, bytes: 4096 }));
    await assert.rejects(node.prepareCopy(sizes, 5), { code: 'COLO_DISK_OTHER', message: /root, data/ });
  }
  assert.deepEqual(log, []);
});

test('a node asks whether it may boot its images before it claims that, and at no other time', async () => {
  const { node, store, log } = rig();
  assert.equal(await node.unfit(BOOTING, 7), null);
  store.refuses = 'half a copy';
  assert.equal(await node.unfit(BOOTING, 8), 'COLO_DISK_STATE: half a copy');
  assert.deepEqual(log, ['judge 7', 'judge 8']);
  assert.equal(await node.unfit({ state: { name: 'claiming', purpose: 'alone' } } as Pair, 9), null);
  assert.equal(log.length, 2);
  assert.equal(await rig([]).node.unfit(BOOTING, 9), null);
});

test('states are written in the order in which they became true', async () => {
  const { node, log } = rig();
  await Promise.all([node.record('promoting', 2), node.record('complete', 2)]);
  assert.deepEqual(log, ['root promoting 2', 'data promoting 2', 'root complete 2', 'data complete 2']);
});

test('overlays are removed as soon as the images are whole, and before that is on record', async () => {
  const { images, log } = rig();
  const done = Promise.withResolvers<void>();
  images.promoted({ committed: () => done.promise } as VmDisks, 3);
  const recorded = images.record(4);
  assert.equal(images.isCommitting, true);
  assert.equal(log.length, 0, 'nothing is whole yet');
  done.resolve();
  assert.equal(await images.areWhole(), true);
  await recorded;
  assert.deepEqual(log, [
    ...['remove root', 'remove data', 'root complete 3', 'data complete 3', 'disk.committed'],
    ...['root complete 4', 'data complete 4'],
  ]);
});

test('a state that cannot be written is an event', async () => {
  const { node, store, log } = rig();
  store.full = true;
  await node.record('complete', 3);
  assert.deepEqual(log, ['disk.state-failed', 'disk.state-failed']);
});

test('images whose overlays are lost are never on record as whole', async () => {
  const { images, log } = rig();
  images.promoted({ committed: () => Promise.reject(new Error('QMP closed')) } as unknown as VmDisks, 3);
  await images.record(4);
  assert.equal(await images.areWhole(), false);
  assert.deepEqual(log, ['disk.commit-failed']);
});

test('images that lack a write are neither whole again nor on record as such, whatever this node wins', async () => {
  const { images, log } = rig();
  await images.record(5);
  images.lack();
  await images.record(6);
  assert.equal(await images.areWhole(), false);
  assert.deepEqual(log, [...['root complete 5', 'data complete 5'], ...['root lacking 5', 'data lacking 5']]);
});
