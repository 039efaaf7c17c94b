/** The rows of the table: which clients use which of the guest's services. */
import type { Target } from '../../lab/clients/net.ts';
import type { ServiceName, ServicesImage } from '../../lab/services/image.ts';
import {
  type Client,
  dnsQuestion,
  httpKept,
  httpUpload,
  postgresUpdate,
  redisIncrement,
  sshTrue,
  tlsNew,
} from './clients.ts';

export type Row = Clients & {
  readonly about: string;
  /** others at work at the same time, whose requests no figure contains */
  readonly beside?: Clients;
};

export type Clients = {
  readonly service: ServiceName;
  /** how many there are, each with one request at a time */
  readonly clients: number;
  readonly open: (target: Target, index: number, image: Pick<ServicesImage, 'ssh'>) => Promise<Client>;
};

/** The lengths of what the guest's nginx serves (lab/services). */
const PAGE = { path: '/index.html', bytes: 77 } as const;
const FILE = { path: '/10m.bin', bytes: 10 << 20 } as const;
const UPLOAD = { path: '/upload/file', bytes: 5_000_000 } as const;

const redis = { service: 'redis', open: redisIncrement } as const;
const http = {
  service: 'http',
  open: (target: Target) => httpKept(target, PAGE.path, PAGE.bytes),
} as const;
const tls = {
  service: 'https',
  open: (target: Target) => tlsNew(target, PAGE.path, PAGE.bytes, 'full'),
} as const;
const postgres = { service: 'postgres', open: postgresUpdate } as const;

export const ROWS: Readonly<Record<string, Row>> = {
  'redis-incr': { ...redis, about: 'Redis INCR, one client', clients: 1 },
  'redis-incr10': { ...redis, about: 'the same, ten clients that count one number', clients: 10 },
  'http-keep': { ...http, about: 'nginx, a small file, one kept connection', clients: 1 },
  'http-keep8': { ...http, about: 'the same, eight clients', clients: 8 },
  'tls-new': { ...tls, about: 'nginx, TLS 1.3, a new connection for each request', clients: 1 },
  'tls-new8': { ...tls, about: 'the same, eight clients', clients: 8 },
  'tls-resume': {
    about: 'TLS 1.3, each connection resumes the last one',
    service: 'https',
    clients: 1,
    open: (target) => tlsNew(target, PAGE.path, PAGE.bytes, 'resume'),
  },
  'ssh-new': {
    about: 'ssh HOST true',
    service: 'ssh',
    clients: 1,
    open: (target, _, { ssh }) => sshTrue(target, ssh),
  },
  dns: {
    about: 'dnsmasq, one question at a time',
    service: 'dns',
    clients: 1,
    open: (target) => dnsQuestion(target, 'www.colo.test', '192.0.2.1'),
  },
  download10m: {
    about: 'nginx, a file of 10 MB, one kept connection',
    service: 'http',
    clients: 1,
    open: (target) => httpKept(target, FILE.path, FILE.bytes),
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
      open: (target) => httpUpload(target, UPLOAD.path, UPLOAD.bytes),
    },
  },
  pg: { ...postgres, about: 'PostgreSQL, one UPDATE at a time', clients: 1 },
  pg8: { ...postgres, about: 'the same, eight clients, each with a row of its own', clients: 8 },
};

/** The end of the name of a row at half load. */
export const HALF = /-half$/;

/** Returns the row, at half load the one whose clients it shares. */
export function rowOf(name: string): Row {
  return ROWS[name.replace(HALF, '')];
}
