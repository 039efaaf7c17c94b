/** A QMP server on a unix socket whose every byte the test decides. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject } from '../../src/qemu/qmp.ts';

export const GREETING = {
  QMP: {
    version: { qemu: { major: 11, minor: 1, micro: 3 }, package: 'Debian 1:11.1.3' },
    capabilities: ['oob'],
  },
};

export interface Request {
  readonly execute?: string;
  readonly 'exec-oob'?: string;
  readonly arguments?: JsonObject;
  readonly id: number;
}

export interface FakeQmp extends AsyncDisposable {
  readonly path: string;
  readonly requests: Request[];
  /** the newest connection */
  socket(): Socket;
  send(...messages: unknown[]): void;
  listen(): Promise<void>;
}

export interface FakeOptions {
  /** raw text that each connection gets; by default QEMU's greeting */
  readonly greeting?: string;
  /** called for each request but qmp_capabilities, to which the fake replies itself */
  readonly onRequest?: (request: Request, fake: FakeQmp) => void;
  readonly listen?: boolean;
}

export async function fakeQmp(options: FakeOptions = {}): Promise<FakeQmp> {
  const directory = mkdtempSync(join(tmpdir(), 'colo-qmp-'));
  const path = join(directory, 'qmp');
  const sockets: Socket[] = [];
  const requests: Request[] = [];
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.write(options.greeting ?? `${JSON.stringify(GREETING)}\r\n`);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const request = JSON.parse(text.slice(0, end)) as Request;
        text = text.slice(end + 1);
        requests.push(request);
        if (request.execute === 'qmp_capabilities') fake.send({ return: {}, id: request.id });
        else options.onRequest?.(request, fake);
      }
    });
  });
  const fake: FakeQmp = {
    path,
    requests,
    socket: () => sockets.at(-1) as Socket,
    send: (...messages) => {
      fake.socket().write(messages.map((message) => `${JSON.stringify(message)}\r\n`).join(''));
    },
    listen: () => new Promise((resolve) => server.listen(path, resolve)),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
      rmSync(directory, { recursive: true, force: true });
    },
  };
  if (options.listen !== false) await fake.listen();
  return fake;
}
