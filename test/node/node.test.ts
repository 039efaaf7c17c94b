import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { ColoNode } from '../../src/node/node.ts';
import { settled } from '../checkpoint/fake-time.ts';
import { fakeParts } from './parts.ts';

test('an arbiter that cannot be written is reported once, however often it is asked and read', async () => {
  const { parts, time, emitted } = fakeParts({
    transports: { listen: async () => ({ close: async () => {} }) },
  });
  let asked = 0;
  let cause = 'no space';
  const node = new ColoNode({
    config: parts.config,
    arbiter: {
      read: async () => ({ revision: 0, record: null }),
      compareAndSwap: async () => {
        asked++;
        throw new ColoError('COLO_ARBITER_UNREACHABLE', cause);
      },
      probe: async () => {
        throw new ColoError('COLO_ARBITER_UNREACHABLE', cause);
      },
      close() {},
    },
    events: parts.events,
    surroundings: parts.surroundings,
    launcher: parts.launcher,
  });
  const reports = () => emitted.filter((type) => type === 'arbiter.failed').length;
  const retried = async (times: number) => {
    for (const end = asked + times; asked < end; ) {
      await time.pass(100);
      await settled();
    }
  };
  void node.start();
  await retried(5);
  assert.equal(reports(), 1);
  cause = 'no such folder';
  await retried(5);
  assert.equal(reports(), 2, 'another cause is new');
  void node.stop();
  await node.done;
});
