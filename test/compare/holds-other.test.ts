/** Whether output of several flows is held: what makes a divergence one of order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rig, udp } from './rig.ts';

/** Of the oldest PVM frame that is held. */
function holdsOther({ comparator }: Rig): boolean {
  return comparator.holdsOther(comparator.primary.oldest);
}

test('one flow is no other, however much of it is held', () => {
  const rig = new Rig();
  for (const text of ['a', 'b', 'c']) rig.pvm(udp(text));
  assert.equal(holdsOther(rig), false);
});

for (const vm of ['pvm', 'svm'] as const)
  test(`output of another flow counts: ${vm}`, () => {
    const rig = new Rig();
    rig.pvm(udp('a'));
    rig[vm](udp('b', 5001));
    assert.equal(holdsOther(rig), true);
  });

test('of each VM the 64 oldest frames are looked at', () => {
  for (const [frames, seen] of [
    [63, true],
    [64, false],
  ] as const) {
    const rig = new Rig();
    for (let i = 0; i < frames; i++) rig.pvm(udp(`${i}`));
    rig.pvm(udp('b', 5001));
    assert.equal(holdsOther(rig), seen);
  }
});
