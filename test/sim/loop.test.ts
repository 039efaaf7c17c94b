import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Die } from './guest/die.ts';
import { Loop, Process } from './loop.ts';

function make() {
  const loop = new Loop();
  const owner = new Process(loop, 'node', new Die(1));
  return { loop, owner };
}

test('a process that stops in the middle of its code performs the rest when it continues', () => {
  const { loop, owner } = make();
  const seen: string[] = [];
  loop.at(10, owner, () => {
    const before = owner.now();
    owner.act(() => seen.push(`first at ${loop.nowMs}`));
    owner.stopHere(500);
    seen.push(`${Math.round(owner.now() - before)} ms have passed for it`);
    owner.act(() => seen.push(`second at ${Math.round(loop.nowMs)}`));
    owner.after(100, () => seen.push(`timer at ${Math.round(loop.nowMs)}`));
  });
  loop.at(20, owner, () => seen.push(`event at ${Math.round(loop.nowMs)}`));
  loop.at(30, null, () => {
    assert.equal(owner.isMidway, true);
  });
  while (loop.step(1000));
  assert.deepEqual(seen, [
    'first at 10',
    '500 ms have passed for it',
    'second at 510',
    'event at 510',
    'timer at 610',
  ]);
  assert.equal(owner.isMidway, false);
});

test('a pause during a stop prolongs it', () => {
  const { loop, owner } = make();
  let atMs = 0;
  loop.at(10, owner, () => {
    owner.stopHere(100);
    owner.act(() => {
      atMs = loop.nowMs;
    });
  });
  loop.at(50, null, () => owner.pause(300));
  while (loop.step(1000));
  assert.equal(Math.round(atMs), 350);
});

test('a process that dies never performs its delayed actions', () => {
  const { loop, owner } = make();
  loop.at(10, owner, () => {
    owner.stopHere(100);
    owner.act(() => assert.fail('it is dead'));
  });
  loop.at(50, null, () => owner.kill());
  while (loop.step(1000));
});
