import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Drops } from '../../src/dropin/drops.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

test('a spell of drops has one event at its beginning and one at its end, however many frames it has', async () => {
  const time = new FakeTime();
  const events: string[] = [];
  const drops = new Drops('out', time, {
    dropping: (place) => events.push(`dropping ${place}`),
    dropped: (place, frames) => events.push(`dropped ${place} ${frames}`),
  });
  for (let i = 0; i < 50; i++) {
    for (let frames = 0; frames < 10; frames++) drops.add();
    await time.pass(100);
  }
  assert.deepEqual(events, ['dropping out']);
  await time.pass(2000);
  assert.deepEqual(events, ['dropping out', 'dropped out 500']);
  drops.add();
  drops.close();
  drops.close();
  await time.pass(5000);
  assert.deepEqual(events.slice(2), ['dropping out', 'dropped out 1']);
  assert.equal(drops.frames, 501);
  assert.equal(time.waiting, 0);
});
