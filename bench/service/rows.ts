/** The rows of the table: which clients use which of the guest's services. */
import type { Target } from '../../lab/clients/net.ts';
import { makeBlock } from '../../lab/guest/files.ts';
import { PAGE as PAGE_TEXT, type ServiceName, type ServicesImage } from '../../lab/services/image.ts';
import {
  type Client,
  dnsQuestion,
  httpKept,
  httpUpload,
  postgresUpdate,
  redisIncrement,
  sshTrue,
  tlsKept,
  tlsNew,
  type WebFile,
} from './clients.ts';
import type { Counted } from './counted.ts';
import { httpSession, sshKept } from './sessions.ts';

export type Row = Clients & {
  readonly about: string;
  /** others at work at the same time, whose requests no figure contains */
  readonly beside?: Clients;
  /** of the pair's configuration (docs/rules.md) */
  readonly rules?: readonly unknown[];
};

export type Clients = {
  readonly service: ServiceName;
  /** how many there are, each with one request at a time */
  readonly clients: number;
  readonly open: (target: Target, index: number, around: Around) => Promise<Client>;
  /** What is checked of the replies and, where that is more, of the service at the end. */
  readonly checks: string;
};

/** `counted`: by the Redis of one guest. */
export type Around = Pick<ServicesImage, 'ssh'> & { readonly counted: Counted };

/** What the guest's nginx serves (lab/services). */
const PAGE: WebFile = { path: '/index.html', bytes: PAGE_TEXT.length, block: Buffer.from(PAGE_TEXT) };
const BLOCK = makeBlock();
const FILE: WebFile = { path: '/10m.bin', bytes: 10 * BLOCK.length, block: BLOCK };
const UPLOAD: WebFile = { path: '/upload/file', bytes: 5_000_000, block: Buffer.alloc(5_000_000, 'upload ') };

const redis = {
  service: 'redis',
  open: (target: Target, _: number, { counted }: Around) => redisIncrement(target, counted),
  checks: 'no number twice; at the end as many counted as acknowledged',
} as const;
const http = {
  service: 'http',
  open: (target: Target) => httpKept(target, PAGE),
  checks: 'each byte',
} as const;
const tls = {
  service: 'https',
  open: (target: Target) => tlsNew(target, PAGE, 'full'),
  checks: 'each byte',
} as const;
const postgres = {
  service: 'postgres',
  open: postgresUpdate,
  checks: 'each one more than the last; at the end the last is there',
} as const;

export const ROWS: Readonly<Record<string, Row>> = {
  'redis-incr': { ...redis, about: 'Redis INCR, one client', clients: 1 },
  'redis-incr10': { ...redis, about: 'the same, ten clients that count one number', clients: 10 },
  'http-keep': { ...http, about: 'nginx, a small file, one kept connection', clients: 1 },
  'http-keep8': { ...http, about: 'the same, eight clients', clients: 8 },
  'http-keep8-unify': {
    ...http,
    about: 'the same, with a rule that lets Date differ',
    clients: 8,
    rules: [{ match: { tcp: 80 }, unify: 'http-date' }],
  },
  'tls-new': { ...tls, about: 'nginx, TLS 1.3, a new connection for each request', clients: 1 },
  'tls-new8': { ...tls, about: 'the same, eight clients', clients: 8 },
  'tls-resume': {
    about: 'TLS 1.3, each connection resumes the last one',
    service: 'https',
    clients: 1,
    open: (target) => tlsNew(target, PAGE, 'resume'),
    checks: 'that the session was resumed, each byte',
  },
  'tls-keep': {
    about: 'TLS 1.3, one kept connection',
    service: 'https',
    clients: 1,
    open: (target) => tlsKept(target, PAGE),
    checks: 'each byte',
  },
  'ssh-new': {
    about: 'ssh HOST true',
    service: 'ssh',
    clients: 1,
    open: (target, _, { ssh }) => sshTrue(target, ssh),
    checks: "the program's status",
  },
  dns: {
    about: 'dnsmasq, one question at a time',
    service: 'dns',
    clients: 1,
    open: (target) => dnsQuestion(target, 'www.colo.test', '192.0.2.1'),
    checks: 'that each question has its reply; one that comes again is no failure',
  },
  download10m: {
    about: 'nginx, a file of 10 MB, one kept connection',
    service: 'http',
    clients: 1,
    open: (target) => httpKept(target, FILE),
    checks: 'each byte',
  },
  'redis-beside-tls': {
    ...redis,
    about: 'Redis INCR, four clients, beside one client of tls-new',
    clients: 4,
    beside: { ...tls, clients: 1 },
  },
  'redis-beside-upload': {
    ...redis,
    about: 'Redis INCR, four clients, beside uploads of 5 MB to nginx',
    clients: 4,
    beside: {
      service: 'http',
      clients: 1,
      open: (target) => httpUpload(target, UPLOAD),
      checks: 'the status; at the end each byte of the file',
    },
  },
  pg: { ...postgres, about: 'PostgreSQL, one UPDATE at a time', clients: 1 },
  pg8: { ...postgres, about: 'the same, eight clients, each with a row of its own', clients: 8 },
};

/** Of sessions that a service remembers: of use where it dies, and no other kind of load. */
export const SESSION_ROWS: Readonly<Record<string, Row>> = {
  'http-session': {
    about: 'nginx, two requests over a new connection, which read and write what belongs to a cookie',
    service: 'http',
    clients: 1,
    open: httpSession,
    checks: 'that the cookie leads to what was last written',
  },
  'ssh-keep': {
    about: 'ssh, a line at a time to the shell of one log-in',
    service: 'ssh',
    clients: 1,
    open: (target, _, { ssh }) => sshKept(target, ssh),
    checks: 'that the shell has read each line once',
  },
};

/** The end of the name of a row at half load. */
export const HALF = /-half$/;

/** Returns the clients of a row, and those beside them. */
export function clientsOf({ beside, ...own }: Row): Clients[] {
  return beside === undefined ? [own] : [own, beside];
}

/** Returns the row, at half load the one whose clients it shares. */
export function rowOf(name: string): Row {
  return { ...ROWS, ...SESSION_ROWS }[name.replace(HALF, '')];
}
