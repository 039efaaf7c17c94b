/** Reading from TLS: several records may come at once, and the sink may have room for less, or for nothing. */
import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import fc from 'fast-check';
import { TlsStream } from '../../src/io/tls-stream.ts';

function fakeSocket(): Duplex {
  return new Duplex({ allowHalfOpen: false, read() {}, write: (_chunk, _encoding, done) => done() });
}

const streamOf = (socket: Duplex) => new TlsStream(socket as TLSSocket, 'a');

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('every byte arrives once and in order, whatever the sizes, pauses and shortages are', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 }),
      fc.array(fc.record({ room: fc.integer({ min: 0, max: 30 }), pause: fc.boolean(), now: fc.boolean() }), {
        minLength: 1,
      }),
      async (chunks, script) => {
        const socket = fakeSocket();
        const stream = streamOf(socket);
        const total = chunks.reduce((sum, bytes) => sum + bytes, 0);
        const received: number[] = [];
        let step = 0;
        let closed = 0;
        let buffer = new Uint8Array(0);
        stream.start({
          buffer() {
            const { room } = script[step % script.length];
            // A script of shortages alone would never end.
            buffer = new Uint8Array(room === 0 && step % 7 === 6 ? 1 : room);
            if (buffer.length === 0) {
              step++;
              setImmediate(() => stream.resume());
              return null;
            }
            return buffer;
          },
          read(bytes) {
            received.push(...buffer.subarray(0, bytes));
            const { pause, now } = script[step++ % script.length];
            if (!pause) return;
            stream.pause();
            if (now) stream.resume();
            else setImmediate(() => stream.resume());
          },
          closed() {
            closed++;
          },
        });
        let sent = 0;
        for (const length of chunks) {
          socket.push(Buffer.from(Array.from({ length }, () => sent++ & 0xff)));
        }
        socket.push(null);
        for (let i = 0; closed === 0; i++) {
          assert.ok(i < 20 * total + 1000, 'the end never came');
          await turn();
        }
        assert.deepEqual(
          received,
          Array.from({ length: total }, (_, i) => i & 0xff),
        );
        assert.equal(closed, 1);
      },
    ),
    { numRuns: 200 },
  );
});

test('a stream whose end came before its start reports it', async () => {
  const socket = fakeSocket();
  const stream = streamOf(socket);
  socket.destroy(new Error('gone'));
  await turn();
  const cause = await new Promise((resolve) =>
    stream.start({ buffer: () => null, read() {}, closed: resolve }),
  );
  assert.equal((cause as Error).message, 'gone');
  let taken: boolean | null = null;
  stream.write(Buffer.from('x'), (was) => {
    taken = was;
  });
  assert.equal(taken, false);
});

test('a stream that is closed while its sink takes the last bytes gives it nothing more, and reports its end once', async () => {
  const socket = fakeSocket();
  const stream = streamOf(socket);
  const room = new Uint8Array(4);
  let reads = 0;
  let closed = 0;
  let isShut = true;
  stream.start({
    buffer: () => (isShut ? null : room),
    read() {
      reads++;
      stream.close();
      stream.resume();
    },
    closed() {
      closed++;
    },
  });
  socket.push(Buffer.alloc(40));
  socket.push(null);
  await turn();
  await turn();
  assert.deepEqual([reads, closed], [0, 0], 'the sink has had no room, so the end waits');
  isShut = false;
  stream.resume();
  await turn();
  assert.deepEqual([reads, closed], [1, 1]);
});
