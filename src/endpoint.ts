/**
 * Endpoints as the command line and the configuration write them:
 * `unix:PATH`, `tcp:HOST:PORT` (connect) and `unix-listen:PATH`, `tcp-listen:HOST:PORT` (accept).
 */
import { isIP, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { ColoError } from './error.ts';

export type EndpointMode = 'connect' | 'listen';
export type Endpoint =
  | { readonly kind: 'unix'; readonly mode: EndpointMode; readonly path: string }
  | { readonly kind: 'tcp'; readonly mode: EndpointMode; readonly host: string; readonly port: number };

/** Linux: `sun_path` has 108 bytes and the last one is the terminating NUL (unix(7)). */
export const UNIX_PATH_BYTES_MAX = 107;

const FORMS = 'write unix:PATH, tcp:HOST:PORT, unix-listen:PATH or tcp-listen:HOST:PORT';
const SCHEMES = {
  unix: ['unix', 'connect'],
  'unix-listen': ['unix', 'listen'],
  tcp: ['tcp', 'connect'],
  'tcp-listen': ['tcp', 'listen'],
} as const;
/** RFC 1123 labels. The last one must have a letter: `300.1.1.1` would otherwise be a name, and be looked up. */
const HOST_NAME =
  /^(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*(?=[^.]*[A-Za-z])[A-Za-z0-9_-]+$/;

const bad = (text: string, why: string): ColoError =>
  new ColoError('COLO_CONFIG_ENDPOINT', `endpoint ${JSON.stringify(text)}: ${why}`);

/** Returns the endpoint that `text` describes. Throws COLO_CONFIG_ENDPOINT. */
export function parseEndpoint(text: string): Endpoint {
  const colon = text.indexOf(':');
  const scheme = colon < 0 ? '' : text.slice(0, colon);
  if (!Object.hasOwn(SCHEMES, scheme)) throw bad(text, FORMS);
  const [kind, mode] = SCHEMES[scheme as keyof typeof SCHEMES];
  const rest = text.slice(colon + 1);
  if (kind === 'unix') {
    const why = unixPathProblem(rest);
    if (why !== null) throw bad(text, why);
    return { kind, mode, path: rest };
  }
  const parts = /^(?:\[([^[\]]*)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(rest);
  if (parts === null) {
    const unbracketed = rest.split(':').length > 2 && !rest.startsWith('[');
    throw bad(text, unbracketed ? 'put an IPv6 host in brackets, as in tcp:[::1]:7000' : FORMS);
  }
  const host = parts[1] ?? parts[2];
  const port = Number(parts[3]);
  if (parts[1] !== undefined && !isIPv6(host))
    throw bad(text, `${host} is not an IPv6 address; use brackets only for those`);
  if (parts[1] === undefined && isIP(host) === 0 && !HOST_NAME.test(host)) {
    throw bad(text, `${JSON.stringify(host)} is neither an address nor a host name`);
  }
  // Port 0 means "any free port": it can be accepted on, but not connected to.
  if (port > 65535 || (port === 0 && mode === 'connect')) throw bad(text, 'the port must be from 1 to 65535');
  return { kind, mode, host, port };
}

/** Returns why a unix socket cannot have this path, or null if it can. */
export function unixPathProblem(path: string): string | null {
  if (path === '') return 'the path is missing';
  if (path.includes('\0')) return 'the path has a NUL character';
  const bytes = Buffer.byteLength(path);
  if (bytes <= UNIX_PATH_BYTES_MAX) return null;
  return `the path has ${bytes} bytes and a unix socket's may have ${UNIX_PATH_BYTES_MAX}; choose a shorter one`;
}

/** Returns the text of an endpoint: the inverse of parseEndpoint. */
export function formatEndpoint(endpoint: Endpoint): string {
  const scheme = endpoint.mode === 'listen' ? `${endpoint.kind}-listen` : endpoint.kind;
  if (endpoint.kind === 'unix') return `${scheme}:${endpoint.path}`;
  const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host;
  return `${scheme}:${host}:${endpoint.port}`;
}

/** Returns the endpoint by which to connect to a unix socket. */
export function unixEndpoint(path: string): Endpoint {
  return { kind: 'unix', mode: 'connect', path };
}

/** Returns the options of `node:net` to connect to the endpoint, or to listen on it. */
export function socketAddress(endpoint: Endpoint): { path: string } | { host: string; port: number } {
  return endpoint.kind === 'unix' ? { path: endpoint.path } : { host: endpoint.host, port: endpoint.port };
}

/** Returns whether both mean the same socket, whoever listens there. Port 0 is another port each time. */
export function sameAddress(a: Endpoint, b: Endpoint): boolean {
  if (a.kind === 'unix') return b.kind === 'unix' && resolve(a.path) === resolve(b.path);
  return b.kind === 'tcp' && a.host === b.host && a.port === b.port && a.port !== 0;
}

/** Returns whether only this machine can reach the endpoint. A name other than localhost may resolve to anything. */
export function isLoopback(endpoint: Endpoint): boolean {
  if (endpoint.kind === 'unix') return true;
  const { host } = endpoint;
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
