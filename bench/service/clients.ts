/**
 * The clients of the guest's services. Each makes one request after the other, and checks each reply as far as it can know
 * it: no number is counted twice, a file has its bytes, a session that was kept is resumed.
 */
import { createSocket, type Socket } from 'node:dgram';
import { BrokenConnection, type Target } from '../../lab/clients/net.ts';
import { run } from '../../lab/process.ts';
import { Connection, type ReplyReader } from './connection.ts';
import type { Counted } from './counted.ts';

export type Client = {
  /** Resolves when the reply is complete and right. */
  request(): Promise<void>;
  /**
   * Resolves if the service has all that it has acknowledged to this client, and nothing twice; a connection that is kept is
   * the one that is asked. Only while no other client is at work.
   */
  check(): Promise<void>;
  close(): void;
};

/** A file that nginx serves or takes. `bytes` are those of `block`, again and again. */
export type WebFile = { readonly path: string; readonly bytes: number; readonly block: Buffer };

/** Redis INCR of one number that all clients count together, over one connection. */
export async function redisIncrement(target: Target, counted: Counted): Promise<Client> {
  const connection = await Connection.open(target);
  let last = 0;
  const ask = async (request: string, reply: RegExp): Promise<number> => {
    let text = '';
    await connection.ask(request, (chunk) => {
      text += chunk.toString('latin1');
      return reply.test(text) || /^-.*\r\n/.test(text);
    });
    const count = Number(reply.exec(text)?.[1] ?? Number.NaN);
    if (!(count >= last)) throw new Error(`Redis: ${JSON.stringify(text)} after ${last}`);
    return count;
  };
  return {
    request: async () => {
      const count = await ask('*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n', /^:(\d+)\r\n$/);
      counted.add(count);
      last = count;
    },
    check: async () => {
      counted.checkTotal(await ask('*2\r\n$3\r\nGET\r\n$7\r\ncounter\r\n', /^\$\d+\r\n(\d+)\r\n$/));
    },
    close: () => connection.close(),
  };
}

/** GET over one connection that is kept. */
export async function httpKept(target: Target, file: WebFile): Promise<Client> {
  return keptGet(await Connection.open(target), file);
}

/** The same over TLS 1.3. */
export async function tlsKept(target: Target, file: WebFile): Promise<Client> {
  const { connection } = await Connection.openTls(target, { minVersion: 'TLSv1.3' });
  return keptGet(connection, file);
}

function keptGet(connection: Connection, file: WebFile): Client {
  const get = () =>
    connection.ask(httpRequest('GET', file.path, ['Connection: keep-alive']), httpReply(file));
  return { request: get, check: get, close: () => connection.close() };
}

/** PUT of one file, again and again, over one connection that is kept. */
export async function httpUpload(target: Target, file: WebFile): Promise<Client> {
  const connection = await Connection.open(target);
  const head = httpRequest('PUT', file.path, [`Content-Length: ${file.bytes}`]);
  const request = Buffer.concat([Buffer.from(head), Buffer.alloc(file.bytes, file.block)]);
  return {
    request: async () => {
      await httpHead(connection, request);
    },
    check: () => connection.ask(httpRequest('GET', file.path), httpReply(file)),
    close: () => connection.close(),
  };
}

/** GET, each over a new TLS 1.3 connection; `resume` keeps each session for the next one. */
export async function tlsNew(target: Target, file: WebFile, sessions: 'full' | 'resume'): Promise<Client> {
  let session: Buffer | undefined;
  const get = async (): Promise<void> => {
    const options = { minVersion: 'TLSv1.3', ...(session === undefined ? {} : { session }) } as const;
    const { connection, socket } = await Connection.openTls(target, options);
    if (session !== undefined && !socket.isSessionReused()) throw new Error('the session was not resumed');
    if (sessions === 'resume') socket.on('session', (next) => (session = next));
    await connection.ask(httpRequest('GET', file.path, ['Connection: close']), httpReply(file));
    connection.close();
  };
  return { request: get, check: get, close: () => {} };
}

/** `ssh HOST true`: a connection, a log-in with a key, and two processes in the guest for each. */
export async function sshTrue(target: Target, ssh: readonly string[]): Promise<Client> {
  const argv = sshArguments(target, ssh, 'true');
  const log = async (): Promise<void> => {
    const done = await run(argv);
    const why = `ssh ended with ${done.status}: ${done.stderr.trim()}`;
    if (done.status === SSH_BROKEN) throw new BrokenConnection('error', why);
    if (done.status !== 0) throw new Error(why);
  };
  return { request: log, check: log, close: () => {} };
}

/** ssh(1): the program's own status is another one. */
const SSH_BROKEN = 255;

export function sshArguments({ host, port }: Target, ssh: readonly string[], command: string): string[] {
  return [...ssh, '-p', String(port), `root@${host}`, command];
}

const DNS_MS_MAX = 10_000;

/** A question for an address, from one UDP socket. */
export async function dnsQuestion(target: Target, name: string, address: string): Promise<Client> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, resolve));
  let id = 0;
  const ask = async (): Promise<void> => {
    id = (id + 1) & 0xffff;
    const reply = await dnsReply(socket, target, dnsQuery(id, name));
    const found = reply.subarray(-4).join('.');
    if (found !== address) throw new Error(`DNS: ${name} is ${found}`);
  };
  return { request: ask, check: ask, close: () => socket.close() };
}

/** Counts one row of a table up, in a transaction each, over one connection. */
export async function postgresUpdate(target: Target, row: number): Promise<Client> {
  const connection = await Connection.open(target);
  await connection.ask(postgresStart('postgres'), postgresReply());
  let last: number | null = null;
  const ask = async (query: string): Promise<number> => {
    const values: string[] = [];
    await connection.ask(postgresMessage('Q', `${query}\0`), postgresReply(values));
    return Number(values[0]);
  };
  return {
    request: async () => {
      const count = await ask(`update counter set n = n + 1 where id = ${row} returning n`);
      if (!(last === null ? count > 0 : count === last + 1)) throw new Error(`n is ${count} after ${last}`);
      last = count;
    },
    check: async () => {
      const count = await ask(`select n from counter where id = ${row}`);
      if (last !== null && count !== last) throw new Error(`n is ${count}, and ${last} was acknowledged`);
    },
    close: () => connection.close(),
  };
}

export function httpRequest(method: 'GET' | 'PUT', path: string, headers: readonly string[] = []): string {
  return [`${method} ${path} HTTP/1.1`, 'Host: colo.test', ...headers, '', ''].join('\r\n');
}

/** Sends a request whose reply has no body; returns its head. */
export async function httpHead(connection: Connection, request: string | Uint8Array): Promise<string> {
  let text = '';
  await connection.ask(request, (chunk) => {
    text += chunk.toString('latin1');
    return text.endsWith('\r\n\r\n');
  });
  if (!/^HTTP\/1\.1 20[14] /.test(text)) throw new Error(`HTTP: ${text.split('\r\n')[0]}`);
  return text;
}

/** Reads one reply of HTTP/1.1 that has a Content-Length and the bytes of the file. */
export function httpReply({ bytes, block }: Omit<WebFile, 'path'>): ReplyReader {
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
    if (body.length > left) throw new Error('HTTP: more bytes than its length says');
    const wrong = firstWrong(body, bytes - left, block);
    if (wrong !== null) throw new Error(`HTTP: a wrong byte at ${wrong} of ${bytes}`);
    left -= body.length;
    return left === 0;
  };
}

/** Returns where the first byte is that is not the block's, or null. `from` is where the bytes are in the file. */
function firstWrong(bytes: Buffer, from: number, block: Buffer): number | null {
  for (let at = 0; at < bytes.length; ) {
    const inBlock = (from + at) % block.length;
    const end = Math.min(bytes.length, at + block.length - inBlock);
    if (bytes.compare(block, inBlock, inBlock + end - at, at, end) !== 0) {
      while (bytes[at] === block[(from + at) % block.length]) at++;
      return from + at;
    }
    at = end;
  }
  return null;
}

/** Datagrams may come twice: a reply to an earlier question is nobody's. */
function dnsReply(socket: Socket, { host, port }: Target, question: Buffer): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const timer = setTimeout(() => reject(new Error(`DNS: no reply in ${DNS_MS_MAX / 1000} s`)), DNS_MS_MAX);
  const take = (reply: Buffer): void => {
    if (reply.length >= 2 && reply.readUInt16BE(0) === question.readUInt16BE(0)) resolve(reply);
  };
  socket.on('message', take);
  socket.send(question, port, host);
  return promise.finally(() => {
    clearTimeout(timer);
    socket.off('message', take);
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
