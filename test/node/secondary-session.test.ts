import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_KEY_WORDS } from '../../src/flow/key.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import { SecondarySession } from '../../src/node/secondary-session.ts';
import { LeasePromise } from '../../src/pair/lease.ts';
import type { Translation } from '../../src/translate/offset-map.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { fakePair } from '../io/fake-stream.ts';

function translation(port: number): Translation {
  const key = new Array(FLOW_KEY_WORDS).fill(0);
  key[10] = (80 << 16) | port;
  return { key, vmIsn: 1, seqDelta: 1000, tsDelta: 0, clientPort: 80 };
}

function begun() {
  const paths = new TwoPaths();
  const time = new FakeTime();
  const session = new SecondarySession({
    link: paths.secondaryLink,
    promise: new LeasePromise(1000, time.now()),
    clock: time,
    timers: time,
    silenceMsMax: 1000,
    events: { syncAsked() {}, committed() {}, protected() {}, yielded() {}, closed() {} },
  });
  const begin = () => session.begin(paths.secondary, fakePair()[0], fakePair()[0]);
  return { paths, begin };
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
