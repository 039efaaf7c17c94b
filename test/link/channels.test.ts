import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DISK_ID } from '../../src/disk/disk.ts';
import { CHANNELS, type ChannelKind, isChannelName, isCopyChannel, kindOf } from '../../src/link/channels.ts';
import { CopyChannels, closeCopy, copyChannelsOf, dialCopy, diskStreamOf } from '../../src/link/copy.ts';
import { FakeStream } from '../io/fake-stream.ts';

test('a name is a channel of at most one kind', () => {
  const names = ['data', 'state', 'state:a', 'disk:vda', 'datastate', '', 'toString'];
  const kinds = Object.keys(CHANNELS) as ChannelKind[];
  for (const name of names) {
    const matching = kinds.filter((kind) => CHANNELS[kind].names.test(name));
    assert.ok(matching.length <= 1, name);
    assert.equal(kindOf(name), matching[0] ?? null);
    assert.equal(isChannelName(name), matching.length === 1);
  }
  assert.equal(kindOf('data'), 'data');
  assert.equal(kindOf('state'), 'state');
  assert.equal(kindOf('disk:vda'), 'disk');
  for (const wrong of ['disk', 'disk:', 'disk:A', 'disk:a/b', `disk:${'a'.repeat(32)}`])
    assert.equal(kindOf(wrong), null);
  assert.equal(kindOf('migration'), null, 'its name in version 2');
});

test('every channel of a copy carries a stream, and may be opened while the copy is under way only', () => {
  assert.deepEqual(
    ['data', 'state', 'disk:vda', 'toString'].filter((name) => isCopyChannel(name)),
    ['state', 'disk:vda'],
  );
  for (const name of copyChannelsOf(['vda', 'b-1'])) {
    const kind = kindOf(name);
    assert.ok(kind !== null && CHANNELS[kind].carries === 'stream', name);
  }
});

test('a copy is whole when its last channel is open, and awaits each of them once', async () => {
  const channels = new CopyChannels(['state']);
  assert.equal(channels.awaits('data'), false);
  assert.equal(channels.awaits('state'), true);
  const stream = new FakeStream();
  channels.add('state', stream);
  assert.equal(channels.awaits('state'), false);
  assert.deepEqual(await channels.whole, { state: stream, disks: new Map() });
  assert.throws(() => channels.add('state', new FakeStream()), { code: 'COLO_INVARIANT' });
});

test('a copy that ends closes what was opened for it, and awaits nothing more', () => {
  const channels = new CopyChannels(['state']);
  const stream = new FakeStream();
  channels.add('state', stream);
  channels.close();
  assert.equal(stream.open, false);
  const other = new CopyChannels(['state']);
  other.close();
  assert.equal(other.awaits('state'), false);
});

test('a copy of which one channel cannot be dialled leaves none open', async () => {
  const stream = new FakeStream();
  const dial = async (name: string) => {
    if (name === 'state') return stream;
    throw new Error('refused');
  };
  await assert.rejects(dialCopy(['state', 'data'], dial), /refused/);
  assert.equal(stream.open, false);
  assert.deepEqual(await dialCopy(['state'], async () => stream), { state: stream, disks: new Map() });
});

test('a copy with disks is whole when the stream of each is there, and has them by id', async () => {
  const names = copyChannelsOf(['vda', 'b-1']);
  assert.deepEqual(names, ['state', 'disk:vda', 'disk:b-1']);
  const streams = new Map(names.map((name) => [name, new FakeStream()]));
  const channels = new CopyChannels(names);
  for (const name of names.toReversed()) channels.add(name, streams.get(name)!);
  const copy = await channels.whole;
  assert.equal(copy.state, streams.get('state'));
  assert.deepEqual([...copy.disks.keys()].sort(), ['b-1', 'vda']);
  assert.equal(diskStreamOf(copy, 'vda'), streams.get('disk:vda'));
  closeCopy(copy);
  for (const [name, stream] of streams) assert.equal(stream.open, false, name);
});

test('every id that a configuration may have is a channel', () => {
  for (const id of ['a', 'data-1', '_', '0'.repeat(31)]) {
    assert.ok(DISK_ID.test(id));
    assert.ok(isCopyChannel(`disk:${id}`), id);
  }
  for (const id of ['', 'A', 'a.b', '0'.repeat(32)])
    assert.equal(DISK_ID.test(id), isChannelName(`disk:${id}`), id);
});
