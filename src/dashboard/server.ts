/**
 * The dashboard's HTTP server, on loopback or on a unix socket behind a proxy.
 *
 *   GET /, /page.js, ...   the page's files: no secret, no token
 *   GET /feed              the node's state as server-sent events (messages.ts)
 *   POST /act/NAME {...}   an action (actions.ts): the node's reply
 *
 * Each request passes the checks of door.ts first. An error is a JSON object {code, message}, as at the node's control socket.
 *
 * Limits: CONNECTIONS_MAX connections, what io/http-limits.ts gives a request, BODY_BYTES_MAX for its body; readers.ts has those
 * of pages.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Endpoint, formatEndpoint, socketAddress } from '../endpoint.ts';
import { ColoError, messageOf } from '../error.ts';
import { systemClock, systemTimers } from '../io/clock.ts';
import { SERVER_OPTIONS } from '../io/http-limits.ts';
import { removeStaleSocket } from '../io/unix-socket.ts';
import { Actions, type CallNode } from './actions.ts';
import type { Assets } from './assets.ts';
import { Door, HEADERS } from './door.ts';
import { Feed, type FollowedNode } from './feed.ts';
import { Readers } from './readers.ts';
import { DashboardError } from './refusal.ts';

export type DashboardOptions = {
  listen: Endpoint;
  /** by which browsers reach a proxy in front of this server, as in https://colo.example; null: there is none */
  origin: string | null;
  token: string;
  node: FollowedNode;
  call: CallNode;
  assets: Assets;
};

export type Dashboard = {
  /** The address that it listens on, with the port that the kernel chose. */
  readonly endpoint: Endpoint;
  /** By which a browser reaches it; null if it is reached by a proxy of unknown origin. */
  readonly origins: readonly string[];
  close(): Promise<void>;
};

/** Pages, each with a feed, and a few requests. */
const CONNECTIONS_MAX = 64;
/** The name of a file and a number. */
const BODY_BYTES_MAX = 16 * 1024;
const CLOSE_GRACE_MS = 250;

/** Starts to serve, and to read the node. Throws COLO_DASHBOARD_LISTEN. */
export async function serveDashboard(options: DashboardOptions): Promise<Dashboard> {
  const { node, call, assets, token, origin, listen } = options;
  const readers = new Readers(systemClock);
  const feed = new Feed({ node, readers, clock: systemClock, timers: systemTimers });
  const server = createServer(SERVER_OPTIONS);
  server.maxConnections = CONNECTIONS_MAX;
  const endpoint = await listenOn(server, listen);
  const origins = originsOf(endpoint, origin);
  const door = new Door(token, origins);
  const routes = new Routes({ door, readers, feed, actions: new Actions(call), assets });
  server.on('request', (request, response) => void routes.serve(request, response));
  feed.run();
  const close = (): Promise<void> => {
    feed.end();
    readers.end();
    return closed(server);
  };
  return { endpoint, origins, close };
}

class Routes {
  private readonly parts: {
    door: Door;
    readers: Readers;
    feed: Feed;
    actions: Actions;
    assets: Assets;
  };

  constructor(parts: Routes['parts']) {
    this.parts = parts;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    try {
      await this.route(request, response);
    } catch (error) {
      if (response.headersSent) response.destroy();
      else sendError(response, error);
    }
  }

  private async route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { door, readers, feed, actions, assets } = this.parts;
    const { method = 'GET', headers } = request;
    const path = pathOf(request);
    door.checkPlace(headers);
    if (Object.hasOwn(assets, path)) {
      expectMethod(response, method, 'GET');
      const { type, bytes } = assets[path];
      response.writeHead(200, { 'content-type': type }).end(bytes);
      return;
    }
    door.checkToken(headers);
    const action = /^\/act\/([a-z-]{1,32})$/.exec(path)?.[1];
    if (action !== undefined) {
      expectMethod(response, method, 'POST');
      if (headers['content-type'] !== 'application/json')
        throw new DashboardError(415, 'COLO_DASHBOARD_REQUEST', 'send application/json');
      sendJson(response, 200, (await actions.run(action, await readBody(request))) ?? {});
      return;
    }
    if (path !== '/feed')
      throw new DashboardError(404, 'COLO_DASHBOARD_REQUEST', 'the dashboard has no such page');
    expectMethod(response, method, 'GET');
    if (readers.isFull)
      throw new DashboardError(
        503,
        'COLO_DASHBOARD_BUSY',
        'too many pages are open at this dashboard; close one',
      );
    readers.add(response, feed.hello());
  }
}

function pathOf(request: IncomingMessage): string {
  const url = URL.parse(request.url ?? '/', 'http://colo');
  if (url === null || url.search !== '')
    throw new DashboardError(400, 'COLO_DASHBOARD_REQUEST', 'the address has something that is not known');
  return url.pathname;
}

function expectMethod(response: ServerResponse, method: string, expected: string): void {
  if (method === expected) return;
  response.setHeader('allow', expected);
  throw new DashboardError(405, 'COLO_DASHBOARD_REQUEST', `that needs ${expected}`);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX)
      throw new DashboardError(413, 'COLO_DASHBOARD_REQUEST', 'the request is too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(value)}\n`);
}

function sendError(response: ServerResponse, error: unknown): void {
  // What the node refuses depends on its state (409).
  const status = error instanceof DashboardError ? error.status : error instanceof ColoError ? 409 : 500;
  const code = error instanceof ColoError ? error.code : 'COLO_INTERNAL';
  // A body that was not read would be taken for the next request.
  response.setHeader('connection', 'close');
  sendJson(response, status, { code, message: messageOf(error) });
}

/** Returns the origins of pages from this server. On loopback the names of the machine itself are all the same. */
function originsOf(endpoint: Endpoint, origin: string | null): string[] {
  const proxied = origin === null ? [] : [origin];
  if (endpoint.kind === 'unix') return proxied.length > 0 ? proxied : ['http://localhost'];
  const hosts = new Set([urlHost(endpoint.host), 'localhost']);
  return [...proxied, ...[...hosts].map((host) => new URL(`http://${host}:${endpoint.port}`).origin)];
}

const urlHost = (host: string): string => (host.includes(':') ? `[${host}]` : host);

async function listenOn(server: Server, endpoint: Endpoint): Promise<Endpoint> {
  if (endpoint.kind === 'unix') {
    const left = await removeStaleSocket(endpoint.path).catch((cause: unknown) => {
      throw listenError(endpoint, cause);
    });
    if (left !== 'free') throw listenError(endpoint, { code: 'EADDRINUSE' });
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => reject(listenError(endpoint, cause)));
    // listen() binds before it returns. The proxy's user has to be in the group of the folder, and of the socket.
    const before = process.umask(0o117);
    try {
      server.listen(socketAddress(endpoint), resolve);
    } finally {
      process.umask(before);
    }
  });
  const address = server.address();
  return endpoint.kind === 'tcp' && typeof address === 'object' && address !== null
    ? { ...endpoint, port: address.port }
    : endpoint;
}

function listenError(endpoint: Endpoint, cause: unknown): ColoError {
  const { code, message } = cause as { code?: string; message?: string };
  const why =
    code === 'EADDRINUSE'
      ? 'another program is there'
      : code === 'EACCES'
        ? 'this user may not listen there'
        : message;
  return new ColoError(
    'COLO_DASHBOARD_LISTEN',
    `cannot listen on ${formatEndpoint(endpoint)}: ${why}; give another --listen`,
    { cause },
  );
}

/** Resolves when every connection has ended; after CLOSE_GRACE_MS the remaining ones are closed. */
function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const cutOff = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
    server.close(() => {
      clearTimeout(cutOff);
      resolve();
    });
  });
}
