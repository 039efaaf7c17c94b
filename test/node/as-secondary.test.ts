import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import { Scope } from '../../src/node/scope.ts';
import { candidate } from './candidate.ts';

/** A secondary whose link has just been lost; `overAtMs` is the end of the lease that it has promised. */
async function withoutLink() {
  const all = await candidate();
  all.data.sendHeartbeat(MESSAGE.heartbeat, 1);
  await all.pump();
  const overAtMs = all.secondary.session?.promise.overAtMs ?? 0;
  all.data.close();
  await all.pump();
  assert.deepEqual(all.types(), ['linkUp', 'linkLost']);
  const leaseOvers = () => all.types().filter((type) => type === 'leaseOver').length;
  return { ...all, overAtMs, leaseOvers };
}

test('leaseOver is dispatched once, when the promised lease is over and no earlier', async () => {
  const { secondary, parts, time, overAtMs, leaseOvers } = await withoutLink();
  assert.ok(overAtMs > time.now());
  secondary.waitForLease(new Scope(parts.scope));
  await time.pass(overAtMs - time.now() - 1);
  assert.equal(leaseOvers(), 0);
  await time.pass(1);
  assert.equal(leaseOvers(), 1);
  await time.pass(1000);
  assert.equal(leaseOvers(), 1);
});

test('a timer that fires early does not end the wait for the lease', async () => {
  const { secondary, parts, time, overAtMs, leaseOvers } = await withoutLink();
  const { after } = time;
  time.after = (ms, call) => after.call(time, Math.floor(ms / 2), call);
  secondary.waitForLease(new Scope(parts.scope));
  await time.pass(overAtMs - time.now() - 1);
  assert.equal(leaseOvers(), 0);
  await time.pass(1);
  assert.equal(leaseOvers(), 1);
});

test('the end of the state ends its wait for the lease', async () => {
  const { secondary, parts, time, leaseOvers } = await withoutLink();
  const entered = new Scope(parts.scope);
  secondary.waitForLease(entered);
  entered.end();
  secondary.waitForLease(entered);
  await time.pass(1000);
  assert.equal(leaseOvers(), 0);
});

test('a session that is closed twice dispatches linkLost once', async () => {
  const { secondary, pump, dispatched } = await candidate();
  const { session } = secondary;
  session?.close('first cause');
  session?.close('second cause');
  await pump();
  assert.deepEqual(dispatched, [
    { type: 'linkUp', peer: 'a' },
    { type: 'linkLost', cause: 'first cause' },
  ]);
  assert.equal(secondary.session, null);
});

for (const how of ['end', 'fence'] as const) {
  test(`a secondary dispatches nothing for a link that closes after its ${how}`, async () => {
    const { secondary, data, pump, types } = await candidate();
    void secondary[how]();
    data.close();
    await pump();
    assert.equal(secondary.session, null);
    assert.deepEqual(types(), ['linkUp']);
  });

  test(`a secondary dispatches nothing for a copy that fails after its ${how}`, async () => {
    const { secondary, startSync, failStart, pump, types } = await candidate();
    await startSync();
    void secondary[how]();
    failStart();
    await pump();
    assert.ok(!types().includes('syncFailed'));
    assert.equal(secondary.isPromotable, false);
  });
}
