import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BytePipe } from '../../src/checkpoint/byte-pipe.ts';
import { fakePair } from '../io/fake-stream.ts';

const MIB = 1024 * 1024;

function pipe(inspect: (bytes: Uint8Array) => boolean = () => true) {
  const [source, from] = fakePair();
  const [to, drain] = fakePair();
  const closed: (Error | null)[] = [];
  const one = new BytePipe(from, to, inspect, (cause) => closed.push(cause));
  one.start();
  return { source, from, to, drain, closed, pipe: one };
}

test('a pipe copies bytes unchanged and counts them', () => {
  const { source, from, drain, pipe: one } = pipe();
  const bytes = Buffer.from(Array.from({ length: 3 * MIB }, (_, i) => (i * 5) & 255));
  source.write(bytes, () => {});
  while (from.pump(100_000));
  assert.ok(drain.inbox.equals(bytes));
  assert.equal(one.bytes, bytes.length);
});

test('a receiver that takes nothing pauses the reading at 16 slabs, and no byte is lost when it continues', () => {
  const { source, from, to, drain } = pipe();
  const bytes = Buffer.from(Array.from({ length: 6 * MIB }, (_, i) => (i * 11) & 255));
  to.stalled = true;
  source.write(bytes, () => {});
  while (from.pump());
  assert.equal(to.queuedBytes(), 4 * MIB);
  assert.equal(from.paused, true);
  assert.equal(from.unreadBytes(), 2 * MIB);
  to.unstall();
  assert.equal(from.paused, false);
  while (from.pump());
  assert.ok(drain.inbox.equals(bytes));
});

test('bytes that the inspector takes out are not copied or counted, and occupy no slab', () => {
  let pass = false;
  const seen: string[] = [];
  const {
    source,
    from,
    drain,
    pipe: one,
  } = pipe((bytes) => {
    seen.push(Buffer.from(bytes).toString());
    return pass;
  });
  for (let i = 0; i < 40; i++) {
    source.write(Buffer.from('taken out'), () => {});
    from.pump();
  }
  pass = true;
  source.write(Buffer.from('passed'), () => {});
  from.pump();
  assert.equal(seen.length, 41);
  assert.equal(drain.inbox.toString(), 'passed');
  assert.equal(one.bytes, 6);
});

test('a pipe notifies of its end once', () => {
  const { source, from, closed } = pipe();
  source.close();
  while (from.pump());
  assert.deepEqual(closed, [null]);
});

test('a pipe that holds the last byte passes every other one on, however they arrive, and all of them in the end', () => {
  const { source, from, drain, pipe: one } = pipe();
  one.holdLast();
  const bytes = Buffer.from('state of a VM');
  let sent = 0;
  for (const length of [1, 4, 1, 1, 6]) {
    source.write(bytes.subarray(sent, sent + length), () => {});
    sent += length;
    from.pump();
    assert.equal(drain.inbox.toString(), bytes.subarray(0, sent - 1).toString());
  }
  assert.equal(one.bytes, bytes.length);
  assert.equal(one.takenBytes, bytes.length - 1);
  one.passLast();
  assert.equal(drain.inbox.toString(), bytes.toString());
  assert.equal(one.takenBytes, bytes.length);
  source.write(Buffer.from('.'), () => {});
  from.pump();
  assert.equal(drain.inbox.toString(), `${bytes}.`);
});
