/** A primary's session whose VM has a disk: the order of the copy, READY, and the question of each checkpoint. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CheckpointPolicy } from '../../src/checkpoint/policy.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import { PrimarySession } from '../../src/node/primary-session.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { u32 } from '../frames.ts';
import { fakePair } from '../io/fake-stream.ts';
import { passing } from './session-rig.ts';

/** The test plays the secondary's node, both QEMUs and the disks. */
async function syncing() {
  const paths = new TwoPaths();
  const time = new FakeTime();
  const [pvmQemu, pvmNear] = fakePair();
  const [svmQemu, hop] = fakePair();
  const [disk] = fakePair();
  const log: string[] = [];
  paths.onControl = (side, type) => {
    if (side === 'secondary' && type === MESSAGE.gate)
      paths.secondaryLink.send(MESSAGE.gated, { epoch: 0, drained: true });
  };
  paths.primaryLink.unlisten();
  const copied = Promise.withResolvers<void>();
  const attached = Promise.withResolvers<void>();
  const disks = { reply: Promise.withResolvers<string | null>(), lost: (_: string): void => {} };
  const session = new PrimarySession({
    link: paths.primaryLink,
    path: paths.primary,
    vm: {
      disks: {
        sizes: async () => [{ id: 'data', bytes: 4096 }],
        open: (streams, lost) => {
          assert.deepEqual([...streams.keys()], ['data']);
          disks.lost = lost;
          log.push('open');
          return {
            copy: () => copied.promise,
            attach: () => {
              log.push('attach');
              return attached.promise;
            },
            lostWrite: () => {
              log.push('asked');
              return disks.reply.promise;
            },
            close: () => log.push('disks closed'),
          };
        },
      },
      openCopy: async () => {
        log.push('migrate');
        return { state: pvmNear, disks: new Map() };
      },
      requestCheckpoint: async () => {},
      standing: () => null,
    },
    policy: new CheckpointPolicy({ intervalMsMax: 60_000, waitMsMin: 5, waitMsMax: 50, ackWaitMsMax: 50 }),
    clock: time,
    timers: time,
    heartbeat: { intervalMs: 100, leaseMs: 600_000, silenceMsMax: 600_000 },
    events: {
      disksCopied: () => log.push('copied'),
      firstCommit: () => log.push('first commit'),
      checkpoint() {},
      taken() {},
      written() {},
      takeoverAsked() {},
      peerUplink() {},
      peerSummary() {},
      closed: (cause) => log.push(`closed: ${cause}`),
    },
  });
  const pass = passing(paths, time, pvmNear, hop);
  const synced = session.sync(1);
  synced.catch(() => {});
  await settled();
  paths.secondaryLink.send(MESSAGE.syncReady, {});
  session.copyChannel('state', hop);
  session.copyChannel('disk:data', disk);
  await pass();
  return { session, log, pass, time, synced, pvmQemu, svmQemu, copied, attached, disks };
}

/** As far as both VMs in COLO. */
async function attached() {
  const all = await syncing();
  all.copied.resolve();
  await all.pass();
  all.svmQemu.write(u32(0), () => {});
  await all.pass();
  all.attached.resolve();
  await all.pass();
  all.pvmQemu.inbox = Buffer.alloc(0);
  return all;
}

test('the state is copied when the disks are, and the PVM gets READY when they have their replication', async () => {
  const { log, pass, copied, attached, svmQemu, pvmQemu } = await syncing();
  assert.deepEqual(log, ['open']);
  copied.resolve();
  await pass();
  assert.deepEqual(log, ['open', 'copied', 'migrate']);
  svmQemu.write(u32(0), () => {});
  await pass();
  assert.equal(log.at(-1), 'attach');
  assert.equal(pvmQemu.inbox.length, 0);
  attached.resolve();
  await pass();
  assert.deepEqual([...pvmQemu.inbox], [0, 0, 0, 0]);
});

test('a secondary lacks a byte of the state until the disks have replied, and has no state after a lost write', async () => {
  for (const lost of [null, 'I/O error occurred']) {
    const { log, pass, disks, svmQemu, pvmQemu } = await attached();
    pvmQemu.write(u32(1), () => {});
    await pass();
    svmQemu.write(u32(2), () => {});
    await pass();
    svmQemu.inbox = Buffer.alloc(0);
    pvmQemu.write(u32(3), () => {});
    await pass();
    assert.equal(log.at(-1), 'asked');
    assert.equal(svmQemu.inbox.toString('hex'), '000000');
    disks.reply.resolve(lost);
    await pass();
    if (lost === null) assert.equal(svmQemu.inbox.toString('hex'), '00000003');
    else {
      assert.equal(svmQemu.inbox.toString('hex'), '000000');
      assert.deepEqual(log.slice(-2), [
        'disks closed',
        "closed: a write did not reach the secondary's disk: I/O error occurred",
      ]);
    }
  }
});

test('disks that do not follow any more end the session, but not one that is handed over', async () => {
  const ended = await attached();
  ended.disks.lost('disk data: no request had a reply');
  assert.equal(ended.log.at(-1), 'closed: disk data: no request had a reply');
  const yielded = await attached();
  yielded.session.yield();
  yielded.disks.lost('disk data: the peer closed its connection');
  assert.ok(!yielded.log.some((line) => line.startsWith('closed')));
});

test('a secondary whose QEMU never begins is given up after ten seconds without a byte', async () => {
  const { log, pass, copied } = await syncing();
  copied.resolve();
  await pass(9_990);
  assert.ok(!log.some((line) => line.startsWith('closed')));
  await pass(20);
  assert.match(log.at(-1) ?? '', /^closed: the secondary's QEMU did not begin within 10000 ms/);
});
