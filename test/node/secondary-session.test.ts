import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_KEY_WORDS } from '../../src/flow/key.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import { SecondarySession } from '../../src/node/secondary-session.ts';
import { LeasePromise } from '../../src/pair/lease.ts';
import type { Translation } from '../../src/translate/offset-map.ts';
import type { Instant } from '../../src/units.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { fakePair, pumpAll } from '../io/fake-stream.ts';

function translation(port: number): Translation {
  const key = new Array(FLOW_KEY_WORDS).fill(0);
  key[10] = (80 << 16) | port;
  return { key, vmIsn: 1, seqDelta: 1000, tsDelta: 0, clientPort: 80 };
}

function begun() {
  const paths = new TwoPaths();
  const time = new FakeTime();
  const ended: string[] = [];
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
      yielded() {},
      closed: (cause) => ended.push(cause),
    },
  });
  const [, qemuNear] = fakePair();
  const [peer, peerNear] = fakePair();
  const begin = () => session.begin(paths.secondary, { state: qemuNear }, { state: peerNear });
  const pumpStreams = () => pumpAll(qemuNear, peerNear);
  return { paths, time, begin, peer, pumpStreams, ended };
}

test('a map of offsets of which a part is missing leaves the one before in place', () => {
  const { paths, begin } = begun();
  const { offsets } = paths.secondary;
  const send = (first: boolean, last: boolean, ...ports: number[]) => {
    paths.primaryLink.send(MESSAGE.offsets, { first, last, offsets: ports.map(translation) });
    paths.settle();
  };
  send(true, true, 1);
  begin();
  assert.equal(offsets.size, 1, 'said before there was a path');
  send(true, false, 1, 2);
  assert.equal(offsets.size, 1, 'the primary may die now: those that it has not named would be lost');
  send(false, true, 3);
  assert.equal(offsets.size, 3);
});

test('the migration stream ends first: what lies on the link is read before anybody is told', async () => {
  for (const linkEnds of [true, false]) {
    const { paths, time, begin, peer, pumpStreams, ended } = begun();
    begin();
    paths.settle();
    paths.primaryLink.send(MESSAGE.offsets, { first: true, last: true, offsets: [translation(1)] });
    peer.close();
    pumpStreams();
    pumpStreams();
    assert.deepEqual(ended, [], 'its last words lie unread');
    paths.settle();
    assert.equal(paths.secondary.offsets.size, 1);
    if (linkEnds) {
      paths.primaryLink.close();
      paths.settle();
    } else await time.pass(60);
    assert.equal(ended.length, 1);
  }
});
