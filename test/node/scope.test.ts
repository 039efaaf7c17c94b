import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Scope } from '../../src/node/scope.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

test('the end of a scope ends the scopes below it, and no other', () => {
  const node = new Scope();
  const [state, role] = [new Scope(node), new Scope(node)];
  const session = new Scope(role);
  role.end();
  assert.deepEqual([node.isOver, state.isOver, role.isOver, session.isOver], [false, false, true, true]);
  assert.equal(session.signal.aborted, true);
  assert.equal(new Scope(role).isOver, true, 'a scope that begins below an ended one is over at once');
  node.end();
  assert.equal(state.isOver, true);
});

test('a scope that begins while its parent ends is over at once', () => {
  const node = new Scope();
  let late: Scope | null = null;
  new Scope(node).signal.addEventListener('abort', () => {
    late = new Scope(node);
  });
  node.end();
  assert.equal((late as Scope | null)?.isOver, true);
});

test('a timer of a scope calls once, unless the scope has ended', async () => {
  const time = new FakeTime();
  const [lasting, ended] = [new Scope(), new Scope()];
  const calls: string[] = [];
  lasting.after(time, 10, () => calls.push('lasting'));
  ended.after(time, 10, () => calls.push('ended'));
  await time.pass(5);
  ended.end();
  ended.after(time, 1, () => calls.push('too late'));
  await time.pass(50);
  assert.deepEqual(calls, ['lasting']);
});
