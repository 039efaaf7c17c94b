/**
 * The HTTP servers of a node. Scripts and the command line use the control server, on a unix socket that only the node's
 * own user may open. The metrics have a TCP port of their own, which serves nothing else.
 *
 *   GET /status                     NodeStatus
 *   GET /events?after=SEQ&follow=1  NodeEvents, one JSON object per line; with follow the response does not end
 *   POST /checkpoint                CheckpointReport, once committed
 *   POST /failover, POST /protect   NodeStatus, once done
 *   POST /reload                    Reloaded, once the rules of the node's file are in force
 *   POST /stop                      202 at once; the socket closes when the node has stopped
 *   POST /capture {path, bytesMax}  starts a capture; DELETE /capture ends it: {path, frames}
 *
 * An error is a JSON object {code, message} with a 4xx or 5xx status.
 */
import { mkdirSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { dirname, isAbsolute } from 'node:path';
import { z } from 'zod';
import { type Endpoint, formatEndpoint, unixPathProblem } from '../endpoint.ts';
import { ColoError, messageOf } from '../error.ts';
import { SERVER_OPTIONS } from '../io/http-limits.ts';
import { removeStaleSocket } from '../io/unix-socket.ts';
import type { EventLog } from './event-log.ts';
import type { Metrics } from './metrics.ts';
import type { NodeControl, NodeEvent } from './status.ts';

/** The name of the control socket in a node's runDirectory. */
export const CONTROL_SOCKET = 'control.sock';

export type ApiServer = {
  /** The address that it listens on; for TCP with the port that the kernel chose. */
  readonly endpoint: Endpoint;
  /** Closes every connection and frees the address. */
  close(): Promise<void>;
};

export type ControlServerOptions = {
  socketPath: string;
  control: NodeControl;
  events: Pick<EventLog, 'after' | 'subscribe' | 'emit'>;
};

/** A request is a path and a number. */
const BODY_BYTES_MAX = 64 * 1024;
/** People and scripts at one node. A client that leaks connections reaches this limit, and does not fill the memory. */
const CONNECTIONS_MAX = 64;
/** More requests than one on a connection would be answered at once: a client that does not read would fill the memory. */
const REQUESTS_PER_CONNECTION = 1;
/** A follower that has so much still to read is disconnected; it can come back with after=SEQ. */
const FOLLOWER_BACKLOG_BYTES_MAX = 1 << 20;
/** Enough to send a last line to a process on this machine. */
const CLOSE_GRACE_MS = 250;
/** A gigabyte: minutes of traffic at full speed, and little for a disk. */
export const CAPTURE_BYTES_DEFAULT = 1 << 30;

const captureRequest = z.strictObject({
  path: z.string().refine(isAbsolute, 'must be absolute: the node has a working directory of its own'),
  bytesMax: z.int().min(1).default(CAPTURE_BYTES_DEFAULT),
});

class HttpError extends ColoError {
  readonly status: number;
  constructor(status: number, code: `COLO_${string}`, message: string) {
    super(code, message);
    this.status = status;
  }
}

type Handler = (request: IncomingMessage, response: ServerResponse, url: URL) => Promise<void> | void;
type Routes = Record<string, Partial<Record<string, Handler>>>;

/** Throws COLO_API_LISTEN. */
export async function listenControl(options: ControlServerOptions): Promise<ApiServer> {
  const { socketPath } = options;
  const why = unixPathProblem(socketPath);
  if (why !== null) throw new ColoError('COLO_API_LISTEN', `control socket ${socketPath}: ${why}`);
  const followers = new Set<ServerResponse>();
  const server = createServer(SERVER_OPTIONS, serve(controlRoutes(options, followers)));
  limit(server);
  mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
  const endpoint: Endpoint = { kind: 'unix', mode: 'listen', path: socketPath };
  try {
    await listenUnix(server, socketPath);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw listenError(endpoint, error);
    await removeStale(socketPath);
    await listenUnix(server, socketPath).catch((again: unknown) => {
      throw listenError(endpoint, again);
    });
  }
  return { endpoint, close: () => closeServer(server, followers) };
}

function controlRoutes(
  { control, events }: Pick<ControlServerOptions, 'control' | 'events'>,
  followers: Set<ServerResponse>,
): Routes {
  const statusAfter =
    (act: () => Promise<void>): Handler =>
    async (_request, response) => {
      await act();
      sendJson(response, 200, control.status());
    };
  return {
    '/status': { GET: (_request, response) => sendJson(response, 200, control.status()) },
    '/events': { GET: (_request, response, url) => sendEvents(response, url, events, followers) },
    '/checkpoint': {
      POST: async (_request, response) => sendJson(response, 200, await control.checkpoint()),
    },
    '/failover': { POST: statusAfter(() => control.failover()) },
    '/protect': { POST: statusAfter(() => control.protect()) },
    '/reload': {
      POST: async (_request, response) => sendJson(response, 200, await control.reload()),
    },
    '/stop': {
      POST: (_request, response) => {
        // The response goes first: a node that stops closes this server.
        response.on('finish', () => {
          control
            .stop()
            .catch((error: unknown) => events.emit('node.stop-failed', { message: String(error) }));
        });
        sendJson(response, 202, { stopping: true });
      },
    },
    '/capture': {
      POST: async (request, response) => {
        const { path, bytesMax } = parseCapture(await readBody(request));
        control.startCapture(path, bytesMax);
        sendJson(response, 200, { path, bytesMax });
      },
      DELETE: (_request, response) => {
        const stopped = control.stopCapture();
        if (stopped === null) {
          const advice = 'no capture is running; start one with: colo capture start';
          throw new HttpError(409, 'COLO_CAPTURE_NONE', advice);
        }
        sendJson(response, 200, stopped);
      },
    },
  };
}

/** Serves GET /metrics. The configuration decides whether other machines may read them. */
export async function listenMetrics(
  listen: Endpoint,
  metrics: Pick<Metrics, 'render' | 'contentType'>,
): Promise<ApiServer> {
  if (listen.kind !== 'tcp')
    throw new ColoError('COLO_API_LISTEN', `${formatEndpoint(listen)}: metrics need a TCP port`);
  const server = createServer(
    SERVER_OPTIONS,
    serve({
      '/metrics': {
        GET: async (_request, response) => {
          const text = await metrics.render();
          response.writeHead(200, { 'content-type': metrics.contentType }).end(text);
        },
      },
    }),
  );
  limit(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(listen, error)));
    server.listen({ host: listen.host, port: listen.port }, resolve);
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : listen.port;
  return { endpoint: { ...listen, port }, close: () => closeServer(server) };
}

function serve(routes: Routes): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    void (async () => {
      const url = urlOf(request);
      const route = Object.hasOwn(routes, url.pathname) ? routes[url.pathname] : undefined;
      if (route === undefined) {
        const known = Object.keys(routes).join(', ');
        throw new HttpError(404, 'COLO_API_NOT_FOUND', `there is no ${url.pathname}; known: ${known}`);
      }
      const method = request.method ?? 'GET';
      const handler = Object.hasOwn(route, method) ? route[method] : undefined;
      if (handler === undefined) {
        const allowed = Object.keys(route).join(', ');
        response.setHeader('allow', allowed);
        throw new HttpError(
          405,
          'COLO_API_METHOD',
          `${url.pathname} does not take ${method}; use ${allowed}`,
        );
      }
      await handler(request, response, url);
    })().catch((error: unknown) => {
      if (response.headersSent) response.destroy();
      else sendError(response, error);
    });
  };
}

function limit(server: Server): void {
  server.maxConnections = CONNECTIONS_MAX;
  server.maxRequestsPerSocket = REQUESTS_PER_CONNECTION;
}

function urlOf(request: IncomingMessage): URL {
  const url = URL.parse(request.url ?? '/', 'http://colo');
  if (url === null) throw new HttpError(400, 'COLO_API_REQUEST', 'the request has no path that can be read');
  return url;
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(value)}\n`);
}

function sendError(response: ServerResponse, error: unknown): void {
  if (error instanceof ColoError) {
    // A refusal depends on the node's state (409); only a bug is a 500.
    const status = error instanceof HttpError ? error.status : error.code === 'COLO_INVARIANT' ? 500 : 409;
    sendJson(response, status, { code: error.code, message: error.message });
    return;
  }
  const message = `the node failed: ${messageOf(error)}`;
  sendJson(response, 500, { code: 'COLO_API_INTERNAL', message: `${message}; please report it` });
}

function sendEvents(
  response: ServerResponse,
  url: URL,
  events: Pick<EventLog, 'after' | 'subscribe'>,
  followers: Set<ServerResponse>,
): void {
  const after = url.searchParams.get('after') ?? '0';
  if (!/^[0-9]{1,15}$/.test(after)) {
    throw new HttpError(400, 'COLO_API_REQUEST', `after=${after}: give the sequence number of an event`);
  }
  const follow = url.searchParams.get('follow') === '1';
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  const line = (event: NodeEvent): string => `${JSON.stringify(event)}\n`;
  const past = events.after(Number(after)).map(line).join('');
  if (!follow) {
    response.end(past);
    return;
  }
  // The headers are sent even if there is no event yet, so that a follower knows that it is connected.
  response.flushHeaders();
  if (past !== '') response.write(past);
  // Past events, which a new client is sent at once, do not count.
  const backlogMax = FOLLOWER_BACKLOG_BYTES_MAX + response.writableLength;
  const unsubscribe = events.subscribe((event) => {
    if (response.writableLength > backlogMax) response.destroy();
    else if (!response.writableEnded) response.write(line(event));
  });
  followers.add(response);
  response.on('close', () => {
    followers.delete(response);
    unsubscribe();
  });
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new HttpError(413, 'COLO_API_REQUEST', 'the request is too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parseCapture(body: string): z.output<typeof captureRequest> {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    throw new HttpError(
      400,
      'COLO_API_REQUEST',
      'the request is not JSON; send {"path": ..., "bytesMax": ...}',
    );
  }
  const result = captureRequest.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue.path.join('.');
  throw new HttpError(400, 'COLO_API_REQUEST', `${where === '' ? 'request' : where}: ${issue.message}`);
}

function listenUnix(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => {
      server.off('listening', onListening);
      reject(error);
    };
    const onListening = (): void => {
      server.off('error', onError);
      resolve();
    };
    server.once('error', onError);
    server.once('listening', onListening);
    // listen() binds before it returns, so the socket never has wider permissions than 0600.
    const before = process.umask(0o177);
    try {
      server.listen(path);
    } finally {
      process.umask(before);
    }
  });
}

/** Removes the socket of a node that died. Throws COLO_API_LISTEN if a process listens there or it is not a socket. */
async function removeStale(path: string): Promise<void> {
  const endpoint: Endpoint = { kind: 'unix', mode: 'listen', path };
  const left = await removeStaleSocket(path).catch((error: unknown) => {
    throw listenError(endpoint, error);
  });
  if (left === 'foreign') {
    throw new ColoError(
      'COLO_API_LISTEN',
      `${path} is in the way and is not a socket; remove it or choose another runDirectory`,
    );
  }
  if (left === 'taken') {
    const advice = `stop it with "colo stop --socket ${path}" or give this node a runDirectory of its own`;
    throw new ColoError('COLO_API_LISTEN', `another node already runs at ${path}; ${advice}`);
  }
}

function listenError(endpoint: Endpoint, error: unknown): ColoError {
  const where = formatEndpoint(endpoint);
  const { code, message } = error as NodeJS.ErrnoException;
  const [why, advice] =
    code === 'EADDRINUSE'
      ? ['the port is taken', 'choose another, or stop what uses it']
      : code === 'EACCES'
        ? ['this user may not listen there', 'choose another place or a port above 1023']
        : code === 'EADDRNOTAVAIL'
          ? ['this machine has no such address', 'choose one that it has']
          : [message, 'choose another'];
  return new ColoError('COLO_API_LISTEN', `cannot listen on ${where}: ${why}; ${advice}`, { cause: error });
}

/** Lets requests finish and ends followers; after CLOSE_GRACE_MS the remaining connections are closed. */
function closeServer(server: Server, followers: ReadonlySet<ServerResponse> = new Set()): Promise<void> {
  return new Promise((resolve) => {
    const cutOff = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
    server.close(() => {
      clearTimeout(cutOff);
      resolve();
    });
    for (const response of followers) response.end();
  });
}
