import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PassedOn } from '../../src/datapath/passed-on.ts';
import { tcpKeyOf } from '../../src/flow/key.ts';
import { MESSAGE, POWERED_OFF } from '../../src/link/link-protocol.ts';
import type { ConnectionOffsets } from '../../src/link/offsets-message.ts';
import { valuesMessage } from '../../src/link/values-message.ts';
import { SecondarySession } from '../../src/node/secondary-session.ts';
import { LeasePromise } from '../../src/pair/lease.ts';
import { httpDate } from '../../src/unify/http-date.ts';
import type { Instant, Seq } from '../../src/units.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { fakePair, pumpAll } from '../io/fake-stream.ts';

function connection(remotePort: number): ConnectionOffsets {
  const key = tcpKeyOf({
    family: 4,
    vlans: [],
    localAddress: '0a00020f',
    localPort: 80,
    remoteAddress: '0a000202',
    remotePort,
  });
  return { key, vmIsn: 1, seqDelta: 1000, tsDelta: 0, clientPort: 80 };
}

function begun() {
  const paths = new TwoPaths();
  const time = new FakeTime();
  const ended: string[] = [];
  paths.secondaryLink.unlisten();
  const session = new SecondarySession({
    link: paths.secondaryLink,
    promise: new LeasePromise(1000, time.now() as Instant),
    clock: time,
    timers: time,
    silenceMsMax: 1000,
    events: {
      syncAsked() {},
      committed() {},
      protected() {},
      places() {},
      peerUplink() {},
      peerSummary() {},
      takeoverOffered() {},
      yielded() {},
      poweredOff: () => ended.push('powered off'),
      closed: (cause) => ended.push(cause),
    },
  });
  const [, qemuNear] = fakePair();
  const [peer, peerNear] = fakePair();
  const disks = ['root', 'data'].map((id) => ({ id, image: fakePair(), primary: fakePair() }));
  const begin = (has: 'no-disks' | 'disks' = 'no-disks') => {
    const those = has === 'disks' ? disks : [];
    session.begin(
      paths.secondary,
      { state: qemuNear, disks: new Map(those.map(({ id, image }) => [id, image[1]])) },
      { state: peerNear, disks: new Map(those.map(({ id, primary }) => [id, primary[1]])) },
      () => null,
    );
  };
  const pumpStreams = () =>
    pumpAll(qemuNear, peerNear, ...disks.flatMap(({ image, primary }) => [image[1], primary[1]]));
  return { paths, time, session, begin, peer, pumpStreams, disks, ended };
}

test('a map of offsets replaces the former one, and is stored if it arrives before the copy', () => {
  const { paths, begin } = begun();
  const { offsets } = paths.secondary;
  const send = (...ports: number[]) => {
    paths.primaryLink.sendOffsets(ports.map(connection));
    paths.settle();
  };
  send(1, 2);
  begin();
  assert.equal(offsets.size, 2);
  send(3);
  assert.equal(offsets.size, 1);
});

test('so do values of fields that clients were told by another VM', () => {
  const { paths, begin } = begun();
  const { values } = paths.secondary.offsets;
  const own = Buffer.from(httpDate(new Date(0)));
  const told = Buffer.from(httpDate(new Date(1000)));
  const send = (...ports: number[]) => {
    const all = ports.map((port) => ({
      key: Int32Array.from(connection(port).key),
      seq: 7 as Seq,
      own,
      told,
    }));
    paths.primaryLink.send(MESSAGE.values, valuesMessage(all));
    paths.settle();
  };
  send(1, 2);
  begin();
  assert.equal(values.size, 2);
  send(3);
  assert.deepEqual(
    values
      .all()
      .map((value) => [value.key.at(-1), value.seq, Buffer.from(value.own), Buffer.from(value.told)]),
    [[(80 << 16) | 3, 7, own, told]],
  );
  send();
  assert.equal(values.size, 0);
});

test('a primary whose guest has been switched off says so before it closes the link', () => {
  const { paths, ended } = begun();
  paths.primaryLink.sendFailed('', POWERED_OFF);
  paths.primaryLink.close();
  paths.settle();
  assert.deepEqual(ended.slice(0, 1), ['powered off']);
});

test('when the migration stream ends first, the link is read to its end before the session notifies of its own', async () => {
  for (const linkEnds of [true, false]) {
    const { paths, time, begin, peer, pumpStreams, ended } = begun();
    begin();
    paths.settle();
    paths.primaryLink.sendOffsets([connection(1)]);
    peer.close();
    pumpStreams();
    pumpStreams();
    assert.deepEqual(ended, [], 'the link has not been read yet');
    paths.settle();
    assert.equal(paths.secondary.offsets.size, 1);
    if (linkEnds) {
      paths.primaryLink.close();
      paths.settle();
    } else await time.pass(60);
    assert.equal(ended.length, 1);
  }
});

test('a link is lost silenceMsMax after the last heartbeat, whenever that came', async () => {
  for (const heardMs of [10, 260, 990]) {
    const { paths, time, ended } = begun();
    await time.pass(heardMs);
    paths.primaryLink.sendHeartbeat(MESSAGE.heartbeat, 1);
    paths.settle();
    await time.pass(998);
    assert.deepEqual(ended, []);
    await time.pass(3);
    assert.deepEqual(ended, ['the primary sent no heartbeat for 1000 ms'], `after ${heardMs} ms`);
  }
});

test('a former primary that has died meanwhile passes nothing on, and the session ends when its migration stream was read', () => {
  const { paths, session, begin, peer, pumpStreams, ended } = begun();
  begin();
  paths.settle();
  paths.primaryLink.close();
  paths.settle();
  assert.deepEqual(ended, [], 'a commit may still be seen on the migration stream');
  let ends = 0;
  session.handOver({ end: () => ends++ } as unknown as PassedOn, 3);
  assert.equal(ends, 1);
  peer.close();
  pumpStreams();
  pumpStreams();
  assert.deepEqual([ended, ends], [['link closed'], 1]);
});

test('after a move the session passes on what the former primary hears, outlives the migration stream, and ends with the link', () => {
  const { paths, session, begin, peer, pumpStreams, ended } = begun();
  begin();
  paths.settle();
  const took: number[] = [];
  paths.onControl = (side, type) => {
    if (side === 'primary') took.push(type);
  };
  let isOver = false;
  const passedOn = {
    take() {},
    taken() {},
    end: () => {
      isOver = true;
    },
  } as unknown as PassedOn;
  session.handOver(passedOn, 3);
  paths.settle();
  assert.deepEqual(took, [MESSAGE.taken]);
  peer.close();
  pumpStreams();
  pumpStreams();
  assert.deepEqual(ended, []);
  paths.primaryLink.close();
  paths.settle();
  assert.deepEqual([ended, isOver], [['link closed'], true]);
});

test('the ends of several disks do not end a session that is handed over before they count', async () => {
  const { time, session, begin, pumpStreams, disks, ended } = begun();
  begin('disks');
  for (const { primary } of disks) primary[0].close();
  pumpStreams();
  let ends = 0;
  session.handOver({ end: () => ends++ } as unknown as PassedOn, 3);
  await time.pass(200);
  assert.deepEqual([ended, ends], [[], 0]);
});
