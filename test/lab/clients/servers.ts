/** Small local servers in place of the guest's services, correct unless a test makes them fail. */
import { createHash } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Random } from '../../../lab/clients/random.ts';

export interface Served {
  readonly target: { readonly host: string; readonly port: number };
  readonly sockets: Set<Socket>;
}

/** Starts a server that listens until the test ends. */
export async function serve(
  t: TestContext,
  onSocket: (socket: Socket) => void,
  host = '127.0.0.1',
): Promise<Served> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    onSocket(socket);
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(0, host, resolve);
  await promise;
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { target: { host, port: address.port }, sockets };
}

/** Returns a port on which nothing listens: it was closed just before. */
export async function closedPort(): Promise<number> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const address = server.address();
  const closed = Promise.withResolvers<void>();
  server.close(() => closed.resolve());
  await closed.promise;
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Calls `reply` for each line and sends what it returns as a line, unless undefined. */
export function eachLine(
  socket: Socket,
  reply: (line: string) => string | undefined | Promise<string | undefined>,
): void {
  let pending = '';
  let turn = Promise.resolve();
  socket.on('data', (chunk: Buffer) => {
    const lines = (pending + chunk.toString()).split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) {
      turn = turn.then(async () => {
        const said = await reply(line);
        if (said !== undefined && socket.writable) socket.write(`${said}\n`);
      });
    }
  });
}

/** Returns a file of random content, the same in every run. */
export function randomFile(size: number): { bytes: Buffer; sha256: string } {
  const bytes = Buffer.alloc(size);
  new Random(7).fill(bytes);
  return { bytes, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** Returns a signal that is aborted when `isDone` holds: a busy machine takes longer to get there. */
export function whenDone(isDone: () => boolean): AbortSignal {
  const done = new AbortController();
  const timer = setInterval(() => {
    if (!isDone()) return;
    clearInterval(timer);
    done.abort();
  }, 5);
  timer.unref();
  return done.signal;
}

/** Waits for a promise that must settle within `ms`; throws if it does not. */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  const late = new AbortController();
  const timeout = delay(ms, undefined, { signal: late.signal }).then(() => {
    throw new Error(`not within ${ms} ms`);
  });
  timeout.catch(() => undefined);
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    late.abort();
  }
}

export { delay };
