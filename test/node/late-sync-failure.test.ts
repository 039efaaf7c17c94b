/** A first copy that is complete, or fails, after its session has ended does not affect the next session. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { type Hello, MESSAGE } from '../../src/link/link-protocol.ts';
import { AsPrimary } from '../../src/node/as-primary.ts';
import type { GuardedVm } from '../../src/node/guarded-vm.ts';
import { VmPauses } from '../../src/qemu/vm-pauses.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { fakePair } from '../io/fake-stream.ts';
import { candidate } from './candidate.ts';
import { fakeParts } from './parts.ts';

const failure = new ColoError('COLO_QEMU_EXITED', 'QEMU ended');
const HELLO = { channel: 'data', node: 'a', role: 'candidate', generation: 3 } as Hello;

test('a failed copy is reported and dispatched, unless its session has ended', async () => {
  for (const late of [false, true]) {
    const { data, received, startSync, failStart, pump, types } = await candidate();
    await startSync();
    if (late) data.close();
    await pump();
    failStart();
    await pump();
    assert.deepEqual(received, late ? [] : [MESSAGE.failed]);
    assert.deepEqual(types(), ['linkUp', 'syncAsked', late ? 'linkLost' : 'syncFailed']);
  }
});

test('a copy begins, unless its session has ended', async () => {
  for (const late of [false, true]) {
    const { secondary, data, opened, received, startSync, pump, streams } = await candidate();
    const [qemu] = fakePair();
    const waiting = Promise.withResolvers<void>();
    secondary.vm.start = async () =>
      ({
        colo: { prepare: () => waiting.promise },
        openIncoming: async () => ({ state: qemu, disks: new Map() }),
      }) as unknown as GuardedVm;
    await startSync();
    if (late) data.close();
    await pump();
    waiting.resolve();
    await pump();
    assert.deepEqual(received, late ? [] : [MESSAGE.syncReady]);
    assert.ok(opened.state !== undefined);
    assert.deepEqual([qemu.open, streams[2].open], [!late, !late], 'streams that no session uses are closed');
  }
});

test('a primary whose copy fails ends the session of that copy, and no later one', async () => {
  for (const late of [false, true]) {
    const { parts, time, dispatched } = fakeParts();
    const primary = AsPrimary.toBoot(parts, 1);
    const copied = Promise.withResolvers<void>();
    Object.defineProperty(primary.vm, 'vm', {
      value: {
        colo: { resetAfterFailover: () => copied.promise },
        pauses: new VmPauses(time),
        watch: { standing: null },
      },
    });
    const [first, second] = [new TwoPaths().primaryLink, new TwoPaths().primaryLink];
    for (const link of [first, second]) link.unlisten();
    primary.openSession(first, HELLO);
    const copy = primary.copy(1);
    if (late) {
      first.close();
      primary.openSession(second, HELLO);
    }
    copied.reject(failure);
    await copy;
    await time.pass(1);
    assert.equal(first.isOpen, false);
    assert.equal(primary.session?.link, late ? second : undefined);
    assert.equal(second.isOpen, true);
    assert.deepEqual(
      dispatched.at(-1),
      late ? { type: 'linkUp', peer: 'a' } : { type: 'linkLost', cause: 'QEMU ended' },
    );
  }
});
