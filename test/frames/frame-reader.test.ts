import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type FrameHandler, FrameReader, vnetBytes } from '../../src/frames/frame-reader.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { framed } from '../io/fake-stream.ts';

const FRAME_BYTES_MAX = 3000;
const SLAB_BYTES = 20 * 1024;

type Reading = { pool: SlabPool; reader: FrameReader; frames: Buffer[]; batches: number };

function reading(slabsMax = 4): Reading {
  const pool = new SlabPool(SLAB_BYTES, slabsMax);
  const state = { pool, frames: [] as Buffer[], batches: 0 };
  const reader = new FrameReader(pool, FRAME_BYTES_MAX, {
    frame: (slab, at, length) => {
      const buffer = pool.buffer(slab);
      assert.equal(buffer.readUInt32BE(at - 4), length, 'the prefix lies before the frame');
      state.frames.push(Buffer.from(buffer.subarray(at, at + length)));
    },
    batchEnd: () => state.batches++,
  });
  return Object.assign(state, { reader });
}

/** Feeds a piece, in several reads where the room is short. */
function feed({ reader }: { reader: FrameReader }, bytes: Buffer): void {
  for (let from = 0; from < bytes.length; ) {
    const buffer = reader.buffer();
    assert.ok(buffer !== null);
    const count = Math.min(buffer.length, bytes.length - from);
    buffer.set(bytes.subarray(from, from + count));
    reader.read(count);
    from += count;
  }
}

const FRAMES = [1, 60, 4, 300, FRAME_BYTES_MAX].map((length, i) => Buffer.alloc(length, i + 1));

test('a stream split at any byte gives the same frames', () => {
  const frames = FRAMES.slice(0, 4);
  const stream = framed(...frames);
  for (let split = 0; split <= stream.length; split++) {
    const state = reading();
    feed(state, stream.subarray(0, split));
    feed(state, stream.subarray(split));
    assert.deepEqual(state.frames, frames);
    assert.equal(state.reader.partialBytes, 0);
    state.reader.close();
    assert.equal(state.pool.inUse, 0);
  }
});

test('a long stream in random pieces crosses slabs, and every frame lies in one piece', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: FRAME_BYTES_MAX }), { minLength: 1, maxLength: 40 }),
      fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 }),
      (lengths, sizes) => {
        const frames = lengths.map((length, i) => Buffer.alloc(length, i + 1));
        const stream = framed(...frames);
        const state = reading();
        for (let from = 0, i = 0; from < stream.length; i++) {
          const to = from + sizes[i % sizes.length];
          feed(state, stream.subarray(from, to));
          from = to;
        }
        assert.deepEqual(state.frames, frames);
        assert.equal(state.pool.inUse, 1, 'slabs are let go as they are left');
        state.reader.close();
        assert.equal(state.pool.inUse, 0);
      },
    ),
    { numRuns: 100 },
  );
});

test('one read, one batch', () => {
  const state = reading();
  feed(state, framed(...FRAMES));
  assert.equal(state.batches, 1);
  feed(state, Buffer.from([0]));
  assert.equal(state.batches, 2);
  assert.equal(state.reader.partialBytes, 1);
});

test('a length of zero or above the limit ends the stream, after the frames before it', () => {
  for (const length of [0, FRAME_BYTES_MAX + 1, 0xffffffff]) {
    const state = reading();
    const bad = Buffer.alloc(4);
    bad.writeUInt32BE(length);
    assert.throws(() => feed(state, Buffer.concat([framed(FRAMES[1]), bad])), {
      code: 'COLO_STREAM_FRAMING',
    });
    assert.deepEqual(state.frames, [FRAMES[1]]);
  }
});

test('without a free slab there is nowhere to read to, and later there is, with nothing lost', () => {
  const state = reading(2);
  const { pool, reader } = state;
  const others = [pool.acquire()];
  const stream = framed(...FRAMES, ...FRAMES, ...FRAMES);
  const first = stream.subarray(0, SLAB_BYTES - 16 * 1024 + 1);
  feed(state, first);
  assert.equal(reader.buffer(), null, 'the slab is nearly full and there is no other');
  assert.equal(reader.buffer(), null);
  for (const slab of others) pool.unref(slab);
  feed(state, stream.subarray(first.length, 2 * SLAB_BYTES));
  feed(state, stream.subarray(2 * SLAB_BYTES));
  assert.deepEqual(state.frames, [...FRAMES, ...FRAMES, ...FRAMES]);
});

test('a handler may close the reader from within a frame', () => {
  const pool = new SlabPool(SLAB_BYTES, 1);
  let seen = 0;
  const reader = new FrameReader(pool, FRAME_BYTES_MAX, {
    frame: () => {
      seen++;
      reader.close();
    },
    batchEnd: () => {},
  });
  const stream = framed(...FRAMES);
  reader.buffer()?.set(stream);
  reader.read(stream.length);
  assert.equal(seen, 1);
  assert.equal(pool.inUse, 0);
});

const vnetFramed = (vnet: number, frame: Buffer): Buffer => {
  const prefix = Buffer.alloc(8);
  prefix.writeUInt32BE(frame.length, 0);
  prefix.writeUInt32BE(vnet, 4);
  return Buffer.concat([prefix, frame]);
};

test('with vnet framing a second number is the length of the virtio-net header', () => {
  const pool = new SlabPool(SLAB_BYTES, 4);
  const seen: [number, string][] = [];
  const handler: FrameHandler = {
    frame: (slab, at, length) => {
      const buffer = pool.buffer(slab);
      seen.push([vnetBytes(buffer, at), buffer.toString('latin1', at, at + length)]);
    },
    batchEnd: () => {},
  };
  const stream = Buffer.concat([
    vnetFramed(0, Buffer.from('plain')),
    vnetFramed(12, Buffer.from('h'.repeat(12))),
    vnetFramed(20, Buffer.from(`${'h'.repeat(20)}frame`)),
  ]);
  for (let split = 0; split <= stream.length; split++) {
    const reader = new FrameReader(pool, FRAME_BYTES_MAX, handler, 'vnet');
    seen.length = 0;
    feed({ reader }, stream.subarray(0, split));
    feed({ reader }, stream.subarray(split));
    assert.deepEqual(seen, [
      [0, 'plain'],
      [12, 'h'.repeat(12)],
      [20, `${'h'.repeat(20)}frame`],
    ]);
    reader.close();
  }
});

test('a virtio-net header has any length that QEMU gives one, up to that of UDP tunnels', () => {
  for (const headerBytes of [0, 10, 12, 20, 24]) {
    const lengths: number[] = [];
    const handler: FrameHandler = { frame: (_, __, length) => lengths.push(length), batchEnd: () => {} };
    const reader = new FrameReader(new SlabPool(SLAB_BYTES, 4), FRAME_BYTES_MAX, handler, 'vnet');
    feed({ reader }, vnetFramed(headerBytes, Buffer.alloc(headerBytes + 60)));
    assert.deepEqual(lengths, [headerBytes + 60]);
  }
});

test('a virtio-net header that cannot be ends the stream', () => {
  const handler: FrameHandler = { frame: () => assert.fail('a frame'), batchEnd: () => {} };
  for (const bytes of [vnetFramed(25, Buffer.alloc(100)), vnetFramed(12, Buffer.alloc(11))]) {
    const reader = new FrameReader(new SlabPool(SLAB_BYTES, 4), FRAME_BYTES_MAX, handler, 'vnet');
    assert.throws(() => feed({ reader }, bytes), {
      code: 'COLO_STREAM_FRAMING',
      message: /vnet_hdr_support/,
    });
  }
});
