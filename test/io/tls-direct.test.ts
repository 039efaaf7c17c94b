/** Reading straight into the sink's buffers, over real TLS sockets at both ends. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import tls from 'node:tls';
import fc from 'fast-check';
import { TlsStream } from '../../src/io/tls-stream.ts';
import { credentialsOf, newCa } from '../link/certificates.ts';
import { tempFolder } from '../temp-folder.ts';

const { pem } = await credentialsOf(join(tempFolder(), 'a'), await newCa(), { pair: 'web', node: 'a' });

/**
 * Gives `use` both ends of a connection, that of tls.connect and that of a server, and then closes them: also for a run that goes on
 * after its test, because time was up.
 */
async function connected(use: (near: TlsStream, far: TlsStream) => Promise<void>): Promise<void> {
  const server = tls.createServer(pem);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  const accepted = once(server, 'secureConnection');
  const near = tls.connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
  await once(near, 'secureConnect');
  const [far] = (await accepted) as [tls.TLSSocket];
  try {
    await use(new TlsStream(near, 'a'), new TlsStream(far, 'b'));
  } finally {
    near.destroy();
    far.destroy();
    server.close();
  }
}

type Step = { readonly room: number; readonly pause: boolean; readonly now: boolean };

/** Collects what a stream receives, in rooms and with pauses as the script says. */
function collect(stream: TlsStream, script: readonly Step[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  let step = 0;
  let isPaused = false;
  let buffer: Uint8Array = new Uint8Array(1);
  const ended = Promise.withResolvers<Buffer>();
  stream.start({
    buffer() {
      const { room } = script[step % script.length];
      if (room === 0 && step % 5 !== 4) {
        step++;
        setImmediate(() => stream.resume());
        return null;
      }
      buffer = new Uint8Array(Math.max(1, room));
      return buffer;
    },
    read(bytes) {
      if (isPaused) ended.reject(new Error('a read while the sink had paused'));
      parts.push(Buffer.from(buffer.subarray(0, bytes)));
      const { pause, now } = script[step++ % script.length];
      if (!pause) return;
      stream.pause();
      if (now) return stream.resume();
      isPaused = true;
      setImmediate(() => {
        isPaused = false;
        stream.resume();
      });
    },
    closed: () => ended.resolve(Buffer.concat(parts)),
  });
  return ended.promise;
}

test('every byte arrives once and in order at both ends, whatever the sizes, pauses and shortages are', async () => {
  const scripts = fc.array(
    fc.record({
      room: fc.oneof(fc.constant(0), fc.integer({ min: 400, max: 60_000 })),
      pause: fc.boolean(),
      now: fc.boolean(),
    }),
    { minLength: 1, maxLength: 12 },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 50_000 }), { minLength: 1, maxLength: 6 }),
      scripts,
      scripts,
      fc.boolean(),
      async (writes, nearScript, farScript, corked) => {
        const total = writes.reduce((sum, bytes) => sum + bytes, 0);
        const sent = Buffer.from(Array.from({ length: total }, (_, i) => (i * 7) & 0xff));
        const send = (from: TlsStream): Promise<boolean> => {
          let at = 0;
          let left = writes.length;
          const taken = Promise.withResolvers<boolean>();
          if (corked) from.cork();
          for (const bytes of writes) {
            from.write(sent.subarray(at, at + bytes), (was) => --left === 0 && taken.resolve(was));
            at += bytes;
          }
          if (corked) from.uncork();
          return taken.promise;
        };
        await connected(async (near, far) => {
          const atFar = collect(far, farScript);
          void collect(near, [{ room: 1000, pause: false, now: false }]);
          assert.equal(await send(near), true);
          // A ticket that the client has not read would reset the connection at its close: one whole turn reads it.
          for (let turns = 0; turns < 2; turns++) await nextTurn();
          near.close();
          assert.ok((await atFar).equals(sent));
        });
        await connected(async (near, far) => {
          const atNear = collect(near, nearScript);
          assert.equal(await send(far), true);
          far.close();
          assert.ok((await atNear).equals(sent));
        });
      },
    ),
    { numRuns: 20, interruptAfterTimeLimit: 20_000 },
  );
});

test('a sink that takes over gets its own bytes in its own buffers', () =>
  connected(async (near, far) => {
    const first = new Uint8Array(1000);
    const second = new Uint8Array(1000);
    const read = Promise.withResolvers<number>();
    far.start({ buffer: () => first, read: (bytes) => read.resolve(bytes), closed() {} });
    near.write(Buffer.from('first'), () => {});
    assert.equal(await read.promise, 5);
    const next = Promise.withResolvers<number>();
    far.start({ buffer: () => second, read: (bytes) => next.resolve(bytes), closed() {} });
    near.write(Buffer.from('second'), () => {});
    assert.equal(await next.promise, 6);
    assert.equal(Buffer.from(second.subarray(0, 6)).toString(), 'second');
    assert.equal(Buffer.from(first.subarray(0, 6)).toString(), 'first\0');
  }));
