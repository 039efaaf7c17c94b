import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FrameHandler } from '../../src/frames/frame-reader.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { fakePair, framed, unframed } from './fake-stream.ts';

const text = (...all: string[]) => framed(...all.map((one) => Buffer.from(one)));

function port(slabsMax = 4) {
  const slabs = new SlabPool(128 * 1024, slabsMax);
  const heard: string[] = [];
  const closed: (string | null)[] = [];
  const opened = new FramePort('port', slabs);
  const seat = opened.seat({
    handler: {
      frame: (slab, at, length) => heard.push(slabs.buffer(slab).toString('latin1', at, at + length)),
      batchEnd: () => heard.push('.'),
    },
  });
  opened.onClosed = (cause) =>
    closed.push(cause === null ? null : ((cause as { code?: string }).code ?? cause.message));
  const attach = () => {
    const [near, far] = fakePair();
    opened.attach(near);
    return { near, far };
  };
  return { slabs, port: opened, seat, heard, closed, attach };
}

test('frames in, frames out', () => {
  const { slabs, port: one, heard, attach } = port();
  const { near, far } = attach();
  far.write(text('a', 'bb'), () => {});
  near.pump();
  assert.deepEqual(heard, ['a', 'bb', '.']);
  const slab = slabs.acquire();
  text('out', 'again').copy(slabs.buffer(slab));
  one.out.push(slab, 4, 3);
  one.out.push(slab, 11, 5);
  slabs.unref(slab);
  assert.equal(one.drained, false);
  one.flush();
  assert.deepEqual(unframed(far.inbox).map(String), ['out', 'again']);
  assert.equal(near.writes, 1, 'neighbours leave as one');
  assert.equal(one.drained, false, 'the other end has not read it');
  far.inbox = Buffer.alloc(0);
  assert.equal(one.drained, true);
  one.close();
  assert.equal(slabs.inUse, 0);
});

test('after a stream that ends within a frame, the next one starts at a frame', () => {
  const { slabs, port: one, heard, closed, attach } = port();
  const first = attach();
  first.far.write(text('whole', 'cut').subarray(0, 14), () => {});
  first.near.pump();
  first.far.close();
  while (first.near.pump());
  assert.deepEqual(closed, ['COLO_STREAM_FRAMING']);
  assert.equal(one.isOpen, false);
  assert.equal(slabs.inUse, 0);
  const second = attach();
  second.far.write(text('new'), () => {});
  second.near.pump();
  assert.deepEqual(heard, ['whole', '.', 'new', '.']);
  assert.throws(() => attach(), { code: 'COLO_INVARIANT' });
  one.close();
  assert.deepEqual(closed, ['COLO_STREAM_FRAMING', null]);
  while (second.near.pump());
  assert.equal(closed.length, 2, 'notified of its end once');
});

test('a stream out of step is closed with its code', () => {
  const { slabs, closed, attach } = port();
  const { near, far } = attach();
  far.write(Buffer.from('no frame at all'), () => {});
  near.pump();
  while (near.pump());
  assert.deepEqual(closed, ['COLO_STREAM_FRAMING']);
  assert.equal(near.open, false);
  assert.equal(slabs.inUse, 0);
});

test('pauses of reading are counted, also across the end of a stream', () => {
  const { port: one, heard, attach } = port();
  const first = attach();
  one.pauseReading();
  one.pauseReading();
  one.resumeReading();
  first.far.write(text('x'), () => {});
  assert.equal(first.near.pump(), false);
  assert.equal(one.exhausted, false);
  one.close();
  const second = attach();
  second.far.write(text('y'), () => {});
  assert.equal(second.near.pump(), false, 'still paused');
  one.resumeReading();
  second.near.pump();
  assert.deepEqual(heard, ['y', '.']);
  assert.equal(one.exhausted, true);
});

test('without a free slab a port pauses reading until there is one, and longer if its user has paused it too', () => {
  const { slabs, port: one, heard, attach } = port(1);
  const taken = slabs.acquire();
  const { near, far } = attach();
  far.write(text('x'), () => {});
  assert.equal(near.pump(), false);
  one.pauseReading();
  slabs.unref(taken);
  assert.equal(near.pump(), false, 'held');
  one.resumeReading();
  near.pump();
  assert.deepEqual(heard, ['x', '.']);
});

test('without a stream, output is dropped and counted, and its slabs are free', () => {
  const { slabs, port: one, attach } = port();
  const slab = slabs.acquire();
  one.out.push(slab, 4, 3);
  one.out.push(slab, 11, 5);
  slabs.unref(slab);
  one.flush();
  assert.equal(one.droppedFrames, 2);
  one.writeOwn(Buffer.alloc(10));
  assert.equal(one.out.runs, 0);
  assert.equal(slabs.inUse, 0);
  assert.equal(one.drained, true);
  assert.equal(one.exhausted, true);
  assert.equal(one.queuedBytes, 0);
  attach();
  const another = slabs.acquire();
  one.out.push(another, 4, 3);
  one.flush();
  one.out.push(another, 11, 5);
  slabs.unref(another);
  one.close();
  assert.equal(one.droppedFrames, 3, 'what was written is not, what still waited is');
  assert.equal(slabs.inUse, 0);
});

test('the seat can change hands between two frames', () => {
  const { slabs, port: one, seat, heard, attach } = port();
  const { near, far } = attach();
  const log: string[] = [];
  const next: FrameHandler = {
    frame: (slab, at, length) => log.push(slabs.buffer(slab).toString('latin1', at, at + length)),
    batchEnd: () => {},
  };
  seat.end();
  const first = one.seat({
    handler: {
      frame: () => {
        first.end();
        one.seat({ handler: next });
      },
      batchEnd: () => {},
    },
  });
  far.write(text('old', 'new'), () => {});
  near.pump();
  assert.deepEqual(log, ['new']);
  assert.deepEqual(heard, []);
});

test('bytes that wait for the kernel are counted, and their slabs are free when the stream ends', () => {
  const { slabs, port: one, attach } = port();
  const { near } = attach();
  near.stalled = true;
  const slab = slabs.acquire();
  one.out.push(slab, 4, 3);
  slabs.unref(slab);
  one.flush();
  assert.equal(one.queuedBytes, 7);
  assert.equal(slabs.inUse, 1);
  one.close();
  assert.equal(slabs.inUse, 0);
});

test('what a write did not bring to the kernel is lost, once the stream has ended', async () => {
  for (const how of ['stalled', 'failing'] as const) {
    const slabs = new SlabPool(128 * 1024, 2);
    const notified: string[] = [];
    const one = new FramePort('port', slabs);
    one.seat({
      handler: { frame() {}, batchEnd() {} },
      lost: () => notified.push('lost'),
      written: () => notified.push('written'),
    });
    const [near] = fakePair();
    one.attach(near);
    assert.equal(one.isTaken, true);
    near[how] = true;
    const slab = slabs.acquire();
    one.out.push(slab, 4, 3);
    slabs.unref(slab);
    one.flush();
    await Promise.resolve();
    assert.equal(one.queuedBytes, how === 'failing' ? 0 : 7);
    assert.equal(one.isTaken, false, `${how}: the kernel has taken nothing`);
    one.close();
    assert.deepEqual(
      notified.filter((what) => what === 'lost'),
      ['lost'],
    );
    assert.equal(notified.at(-1), 'written', 'a user that looks again then knows it');
    assert.equal(slabs.inUse, 0);
  }
});
