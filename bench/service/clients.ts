/**
 * The clients of the guest's services. Each makes one request after the other, and checks each reply as far as it can know
 * it: a counter only grows, a file has its length, a session that was kept is resumed.
 */
import { createSocket, type Socket } from 'node:dgram';
import type { Target } from '../../lab/clients/net.ts';
import { run } from '../../lab/process.ts';
import { Connection, type ReplyReader } from './connection.ts';

export type Client = {
  /** Resolves when the reply is complete and right. */
  request(): Promise<void>;
  close(): void;
};

/** Redis INCR of one number that all clients count together, over one connection. */
export async function redisIncrement(target: Target): Promise<Client> {
  const connection = await Connection.open(target);
  let last = 0;
  return {
    request: async () => {
      let text = '';
      await connection.ask('*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n', (chunk) => {
        text += chunk.toString('latin1');
        return text.endsWith('\r\n');
      });
      const count = Number(/^:(\d+)\r\n$/.exec(text)?.[1] ?? Number.NaN);
      if (!(count > last)) throw new Error(`INCR: ${JSON.stringify(text)} after ${last}`);
      last = count;
    },
    close: () => connection.close(),
  };
}

/** GET over one connection that is kept. */
export async function httpKept(target: Target, path: string, bytes: number): Promise<Client> {
  const connection = await Connection.open(target);
  return {
    request: () => connection.ask(getRequest(path, 'keep-alive'), httpReply(bytes)),
    close: () => connection.close(),
  };
}

/** PUT of one file, again and again, over one connection that is kept. */
export async function httpUpload(target: Target, path: string, bytes: number): Promise<Client> {
  const connection = await Connection.open(target);
  const head = `PUT ${path} HTTP/1.1\r\nHost: colo.test\r\nContent-Length: ${bytes}\r\n\r\n`;
  const request = Buffer.concat([Buffer.from(head), Buffer.alloc(bytes, 'upload ')]);
  return {
    request: async () => {
      let text = '';
      await connection.ask(request, (chunk) => {
        text += chunk.toString('latin1');
        return text.endsWith('\r\n\r\n');
      });
      if (!/^HTTP\/1\.1 20[14] /.test(text)) throw new Error(`PUT: ${text.split('\r\n')[0]}`);
    },
    close: () => connection.close(),
  };
}

/** GET, each over a new TLS 1.3 connection; `resume` keeps each session for the next one. */
export async function tlsNew(
  target: Target,
  path: string,
  bytes: number,
  sessions: 'full' | 'resume',
): Promise<Client> {
  let session: Buffer | undefined;
  return {
    request: async () => {
      const options = { minVersion: 'TLSv1.3', ...(session === undefined ? {} : { session }) } as const;
      const { connection, socket } = await Connection.openTls(target, options);
      if (session !== undefined && !socket.isSessionReused()) throw new Error('the session was not resumed');
      if (sessions === 'resume') socket.on('session', (next) => (session = next));
      await connection.ask(getRequest(path, 'close'), httpReply(bytes));
      connection.close();
    },
    close: () => {},
  };
}

/** `ssh HOST true`: a connection, a log-in with a key, and two processes in the guest for each. */
export async function sshTrue(target: Target, ssh: readonly string[]): Promise<Client> {
  const argv = [...ssh, '-p', String(target.port), `root@${target.host}`, 'true'];
  return {
    request: async () => {
      const done = await run(argv);
      if (done.status !== 0) throw new Error(`ssh ended with ${done.status}: ${done.stderr.trim()}`);
    },
    close: () => {},
  };
}

const DNS_MS_MAX = 10_000;

/** A question for an address, from one UDP socket. */
export async function dnsQuestion(target: Target, name: string, address: string): Promise<Client> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, resolve));
  let id = 0;
  return {
    request: async () => {
      id = (id + 1) & 0xffff;
      const reply = await datagram(socket, target, dnsQuery(id, name));
      const found = reply.subarray(-4).join('.');
      if (reply.readUInt16BE(0) !== id || found !== address) throw new Error(`DNS: ${name} is ${found}`);
    },
    close: () => socket.close(),
  };
}

/** Counts one row of a table up, in a transaction each, over one connection. */
export async function postgresUpdate(target: Target, row: number): Promise<Client> {
  const connection = await Connection.open(target);
  await connection.ask(postgresStart('postgres'), postgresReply());
  let last: number | null = null;
  const query = postgresMessage('Q', `update counter set n = n + 1 where id = ${row} returning n\0`);
  return {
    request: async () => {
      const values: string[] = [];
      await connection.ask(query, postgresReply(values));
      const count = Number(values[0]);
      if (!(last === null ? count > 0 : count === last + 1)) throw new Error(`n is ${count} after ${last}`);
      last = count;
    },
    close: () => connection.close(),
  };
}

function getRequest(path: string, connection: 'keep-alive' | 'close'): string {
  return `GET ${path} HTTP/1.1\r\nHost: colo.test\r\nConnection: ${connection}\r\n\r\n`;
}

/** Reads one reply of HTTP/1.1 that has a Content-Length. */
export function httpReply(bytes: number): ReplyReader {
  let head = '';
  let left: number | null = null;
  return (chunk) => {
    let body = chunk;
    if (left === null) {
      const before = head.length;
      head += chunk.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      if (end < 0) return false;
      body = chunk.subarray(end + 4 - before);
      head = head.slice(0, end);
      left = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? Number.NaN);
      if (!head.startsWith('HTTP/1.1 200 ') || left !== bytes)
        throw new Error(`HTTP: ${head.split('\r\n')[0]} with ${left} bytes, not ${bytes}`);
    }
    left -= body.length;
    if (left < 0) throw new Error('HTTP: more bytes than its length says');
    return left === 0;
  };
}

function datagram(socket: Socket, { host, port }: Target, question: Buffer): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const timer = setTimeout(() => reject(new Error(`DNS: no reply in ${DNS_MS_MAX / 1000} s`)), DNS_MS_MAX);
  socket.once('message', resolve);
  socket.send(question, port, host);
  return promise.finally(() => {
    clearTimeout(timer);
    socket.off('message', resolve);
  });
}

/** RFC 1035, section 4.1: one question, type A, class IN, recursion desired. */
export function dnsQuery(id: number, name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label)]));
  const query = Buffer.concat([Buffer.alloc(12), ...labels, Buffer.from([0, 0, 1, 0, 1])]);
  query.writeUInt16BE(id, 0);
  query.writeUInt16BE(0x0100, 2);
  query.writeUInt16BE(1, 4);
  return query;
}

function postgresStart(user: string): Buffer {
  const body = Buffer.from(`\0\0\0\0user\0${user}\0database\0${user}\0\0`);
  // Version 3.0 of the protocol.
  body.writeUInt32BE(3 << 16, 0);
  return postgresMessage('', body);
}

function postgresMessage(type: string, body: string | Buffer): Buffer {
  const bytes = Buffer.from(body);
  const message = Buffer.alloc(type.length + 4 + bytes.length);
  message.write(type, 'latin1');
  message.writeUInt32BE(4 + bytes.length, type.length);
  bytes.copy(message, type.length + 4);
  return message;
}

/** Reads messages until the server is ready for the next query; adds the first column of each row to `values`. */
export function postgresReply(values: string[] = []): ReplyReader {
  let bytes: Buffer = Buffer.alloc(0);
  return (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 5 && bytes.length > bytes.readUInt32BE(1)) {
      const type = String.fromCharCode(bytes[0]);
      const body = bytes.subarray(5, 1 + bytes.readUInt32BE(1));
      bytes = bytes.subarray(5 + body.length);
      if (type === 'E')
        throw new Error(`PostgreSQL: ${body.toString('latin1').replaceAll('\0', ' ').trim()}`);
      if (type === 'D') values.push(body.toString('latin1', 6, 6 + body.readInt32BE(2)));
      if (type === 'Z') return true;
    }
    return false;
  };
}
