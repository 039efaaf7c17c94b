import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CheckpointPolicy } from '../../src/checkpoint/policy.ts';
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import { ColoError } from '../../src/error.ts';
import { tcpKeyOf } from '../../src/flow/key.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import type { PlacesBody } from '../../src/link/places-message.ts';
import type { Values } from '../../src/link/values-message.ts';
import { PrimarySession } from '../../src/node/primary-session.ts';
import { Places } from '../../src/pair/places.ts';
import { httpDate } from '../../src/unify/http-date.ts';
import type { Seq } from '../../src/units.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { differing } from '../divergence/differing.ts';
import { arpFrame, u32, VM_MAC } from '../frames.ts';
import { fakePair } from '../io/fake-stream.ts';
import { passing } from './session-rig.ts';

const CONNECTION = tcpKeyOf({
  family: 4,
  vlans: [],
  localAddress: '0a00020f',
  localPort: 80,
  remoteAddress: '0a000202',
  remotePort: 40112,
});

/** A session whose first copy has reached QEMU's READY; the test plays the secondary's node and both QEMUs. */
async function copied(requestCheckpoint: () => Promise<void>, silenceMsMax = 600_000) {
  const paths = new TwoPaths();
  const time = new FakeTime();
  const [pvmQemu, pvmNear] = fakePair();
  const [svmQemu, hop] = fakePair();
  const log: string[] = [];
  const reports: CheckpointReport[] = [];
  const places = new Places(VM_MAC);
  const placesSent: PlacesBody['places'][] = [];
  paths.onControl = (side, type, body) => {
    if (type === MESSAGE.places) placesSent.push((body as PlacesBody).places);
    if (type === MESSAGE.values) log.push(`values ${(body as Values).values.length}`);
    if (side === 'secondary' && type === MESSAGE.gate)
      paths.secondaryLink.send(MESSAGE.gated, { epoch: 0, drained: true });
  };
  paths.onOffsets = (map) => log.push(`offsets ${map.length}`);
  paths.primaryLink.unlisten();
  const policy = new CheckpointPolicy({
    intervalMsMax: 60_000,
    waitMsMin: 5,
    waitMsMax: 50,
    ackWaitMsMax: 50,
  });
  const vm = { standing: null as string | null };
  const session = new PrimarySession({
    link: paths.primaryLink,
    path: paths.primary,
    vm: {
      disks: null,
      openCopy: async () => ({ state: pvmNear, disks: new Map() }),
      requestCheckpoint,
      standing: () => vm.standing,
    },
    policy,
    places,
    clock: time,
    timers: time,
    heartbeat: { intervalMs: 100, leaseMs: 600_000, silenceMsMax },
    events: {
      disksCopied: () => log.push('disks copied'),
      firstCommit: () => log.push('first commit'),
      checkpoint: (report) => {
        log.push('checkpoint');
        reports.push(report);
      },
      taken() {},
      written() {},
      takeoverAsked: () => log.push('takeover'),
      peerUplink() {},
      peerSummary() {},
      closed: (cause) => log.push(`closed: ${cause}`),
    },
  });
  const pass = passing(paths, time, pvmNear, hop);
  const synced = session.sync(1);
  synced.catch(() => {});
  paths.secondaryLink.send(MESSAGE.syncReady, {});
  session.copyChannel('state', hop);
  svmQemu.write(u32(0), () => {});
  await pass();
  /** Both QEMUs take a checkpoint. */
  const take = async () => {
    pvmQemu.write(u32(1), () => {});
    for (const message of [2, 5, 6]) {
      await pass();
      svmQemu.write(u32(message), () => {});
    }
    await pass();
  };
  return {
    vm,
    places,
    placesSent,
    paths,
    session,
    policy,
    log,
    reports,
    pass,
    take,
    synced,
    pvmQemu,
    svmQemu,
  };
}

test('a requested checkpoint that fails ends the session, since only that opens the gate', async () => {
  let refuse = false;
  const ask = async () => {
    if (refuse) throw new ColoError('COLO_QMP_TIMEOUT', 'no reply');
  };
  const all = await copied(ask);
  await all.take();
  await all.synced;
  refuse = true;
  await assert.rejects(all.session.checkpoint('requested'), { code: 'COLO_QMP_TIMEOUT' });
  await settled();
  assert.equal(all.log.at(-1), 'closed: no reply');
});

test('a commit that changes the map of offsets sends it at once', async () => {
  const all = await copied(async () => {});
  const mapsSent = () => all.log.filter((line) => line.startsWith('offsets')).length;
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  all.svmQemu.write(u32(2), () => {});
  await all.pass();
  const before = mapsSent();
  all.paths.primary.offsets.add(Int32Array.from(CONNECTION), {
    vmIsn: 1,
    seqDelta: 2,
    tsDelta: 3,
    clientPort: 80,
  });
  all.svmQemu.write(u32(5), () => {});
  await all.pass();
  assert.equal(mapsSent(), before + 1);
  assert.ok(
    !all.log.includes('first commit'),
    'the gate is still closed: its input is not yet on its way to both VMs',
  );
  all.svmQemu.write(u32(6), () => {});
  await all.pass();
  assert.ok(all.log.includes('first commit'));
});

test('what clients were told of another VM’s fields is sent with the map, until there is none', async () => {
  const all = await copied(async () => {});
  const { values } = all.paths.primary.offsets;
  const date = Buffer.from(httpDate(new Date(0)));
  const sent = () => all.log.filter((line) => line.startsWith('values')).join(', ');
  assert.equal(sent(), '', 'there is nothing to tell');
  values.add({ key: Int32Array.from(CONNECTION), seq: 1 as Seq, own: date, told: date });
  await all.take();
  await all.synced;
  assert.equal(sent(), 'values 1', 'after the commit');
  values.clear();
  for (let i = 0; i < 2; i++) {
    const taken = all.session.checkpoint('requested');
    await all.take();
    await taken;
  }
  assert.equal(sent(), 'values 1, values 0');
});

test('a peer that replies to no heartbeat is lost after silenceMsMax, not at the next heartbeat', async () => {
  const { log, pass } = await copied(async () => {}, 230);
  await pass(223);
  assert.ok(!log.some((line) => line.startsWith('closed')));
  await pass(4);
  assert.equal(log.at(-1), 'closed: the peer replied to no heartbeat for 230 ms');
});

test('a checkpoint reports what it was taken for: the first divergence, or the flow that waited', async () => {
  const all = await copied(async () => {});
  await all.take();
  await all.synced;
  const first = differing('diverged-length');
  all.policy.diverged(first);
  all.policy.diverged(differing('diverged-bytes'));
  all.session.hurry();
  await all.pass();
  // The end of the epoch settles its class.
  first.class = 'order';
  await all.take();
  // The path's clock stands; the session's has gone on.
  all.paths.nowMs = 0;
  all.paths.pvm.send('waits');
  await all.pass(30);
  await all.take();
  const [initial, diverged, waited] = all.reports.map(({ reason, class: one, flow, service }) => {
    return { reason, class: one, flow, service };
  });
  assert.deepEqual(initial, { reason: 'initial', class: undefined, flow: undefined, service: undefined });
  const { flow, service } = differing('diverged-length');
  assert.deepEqual(diverged, { reason: 'diverged-length', class: 'order', flow, service });
  assert.deepEqual(waited, {
    reason: 'wait-primary',
    class: undefined,
    flow: 'udp 10.0.2.15:53 <-> 10.0.2.2:5353',
    service: 'udp 53',
  });
});

test('the secondary is told where the VM is: at the start, and again with a heartbeat when that has changed', async () => {
  const all = await copied(async () => {});
  const untagged = { tags: [], addresses: [] };
  assert.deepEqual(all.placesSent, [[untagged]]);
  await all.pass(500);
  assert.equal(all.placesSent.length, 1);
  const frame = arpFrame({ sourceMac: VM_MAC, source: '10.9.0.1', tags: [{ id: 9 }] });
  all.places.sent(frame, 0, frame.length);
  await all.pass(200);
  const tagged = { tags: [{ etherType: 0x8100, id: 9 }], addresses: ['0a090001'] };
  assert.deepEqual(all.placesSent.slice(1), [[untagged, tagged]]);
});

test('a VM that stands is not copied, whoever asks for that, until it runs', async () => {
  const all = await copied(async () => {});
  await all.take();
  await all.synced;
  const checkpoints = () => all.log.filter((line) => line === 'checkpoint').length;
  assert.equal(checkpoints(), 1);
  all.vm.standing = 'the VM was stopped by an operator';
  await assert.rejects(all.session.checkpoint('requested'), { code: 'COLO_VM_STANDS' });
  // Output that waits, and a QEMU that asks by itself.
  all.paths.pvm.send('differs');
  all.pvmQemu.write(u32(1), () => {});
  await all.pass(1000);
  assert.equal(all.session.isCheckpointing, false);
  all.vm.standing = null;
  await all.pass(50);
  assert.equal(all.session.isCheckpointing, true);
  await all.take();
  assert.equal(checkpoints(), 2);
});

test('a takeover waits for the end of a checkpoint, and none begins after it; the end of the stream is expected then', async () => {
  const all = await copied(async () => {});
  await all.take();
  await all.synced;
  const taken = all.session.checkpoint('requested');
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  all.paths.secondaryLink.send(MESSAGE.takeover, {});
  await all.pass();
  assert.ok(!all.log.includes('takeover'), 'in the middle of a checkpoint neither VM may be the only one');
  for (const message of [2, 5, 6]) {
    all.svmQemu.write(u32(message), () => {});
    await all.pass();
  }
  await taken;
  assert.equal(all.log.at(-1), 'takeover');
  all.session.yield();
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  assert.equal(all.session.isCheckpointing, false);
  all.svmQemu.close();
  await all.pass();
  assert.equal(all.log.at(-1), 'takeover', 'the session lives');
});
