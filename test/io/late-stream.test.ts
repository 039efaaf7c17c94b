import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { LateStream } from '../../src/io/late-stream.ts';
import { settled } from '../checkpoint/fake-time.ts';
import { fakePair } from './fake-stream.ts';

function late() {
  const [far, near] = fakePair();
  const connected = Promise.withResolvers<KernelStream>();
  const log: string[] = [];
  let connects = 0;
  const stream = new LateStream(() => {
    connects++;
    return connected.promise;
  });
  const read = Buffer.alloc(16);
  stream.start({
    buffer: () => read,
    read: (bytes) => log.push(read.subarray(0, bytes).toString()),
    closed: (cause) => log.push(`closed ${cause?.message ?? 'in order'}`),
  });
  return { far, near, stream, log, connected, connects: () => connects };
}

test('it connects at the first bytes, once, and they arrive in order', async () => {
  const { far, near, stream, log, connected, connects } = late();
  assert.equal(connects(), 0);
  const taken: boolean[] = [];
  for (const text of ['first ', 'second ']) stream.write(Buffer.from(text), (ok) => taken.push(ok));
  assert.equal(stream.queuedBytes(), 13);
  connected.resolve(near);
  await settled();
  stream.write(Buffer.from('third'), (ok) => taken.push(ok));
  assert.equal(connects(), 1);
  assert.equal(far.inbox.toString(), 'first second third');
  assert.deepEqual(taken, [true, true, true]);
  far.write(Buffer.from('reply'), () => {});
  near.pump();
  assert.deepEqual(log, ['reply']);
});

test('one that nobody has written to ends without a connection', () => {
  const refused = late();
  refused.stream.refuse();
  assert.deepEqual(refused.log, ['closed in order']);
  const closed = late();
  closed.stream.close();
  assert.deepEqual([closed.log, closed.connects()], [[], 0]);
  let taken: boolean | null = null;
  closed.stream.write(Buffer.from('x'), (ok) => {
    taken = ok;
  });
  assert.equal(taken, false);
});

test('a connection that is made too late is closed, and one that cannot be made closes the stream', async () => {
  const tooLate = late();
  let taken: boolean | null = null;
  tooLate.stream.write(Buffer.from('x'), (ok) => {
    taken = ok;
  });
  tooLate.stream.close();
  tooLate.connected.resolve(tooLate.near);
  await settled();
  assert.deepEqual([taken, tooLate.near.open, tooLate.log], [false, false, []]);
  const never = late();
  never.stream.write(Buffer.from('x'), () => {});
  never.connected.reject(new Error('nobody listens'));
  await settled();
  assert.deepEqual(never.log, ['closed nobody listens']);
});
