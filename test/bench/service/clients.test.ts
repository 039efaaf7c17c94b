/** Each client against a service on loopback, which the test plays: a right reply, and wrong ones. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import {
  dnsQuery,
  dnsQuestion,
  httpKept,
  httpReply,
  httpUpload,
  postgresReply,
  postgresUpdate,
  redisIncrement,
  sshTrue,
  tlsKept,
  tlsNew,
} from '../../../bench/service/clients.ts';
import { Connection } from '../../../bench/service/connection.ts';
import { Counted } from '../../../bench/service/counted.ts';
import { httpSession, sshKept } from '../../../bench/service/sessions.ts';
import { BrokenConnection, type Target } from '../../../lab/clients/net.ts';

/** Of this test alone. */
const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSk7D7UyP1WssM/gX
T5OX45Um0xm0blBv6/eQMCJHDmChRANCAAR2sZ2SMlnXBHDt2ORf3ZN8/+nPItsm
+Y/oOlkyzhTXb+eeYzykUdF6AdJ5WQFrLlMfMcLpbhfqzym6nWA+0FmS
-----END PRIVATE KEY-----`;
const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUAlNsT9hNVIveOtXjZwOlRsT88PIwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMzAwMDE4MTRaGA8yMTI2MTEwNjAwMTgx
NFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHax
nZIyWdcEcO3Y5F/dk3z/6c8i2yb5j+g6WTLOFNdv555jPKRR0XoB0nlZAWsuUx8x
wuluF+rPKbqdYD7QWZKjUzBRMB0GA1UdDgQWBBSRsfTp0JzNgtEd93K7JhSC8Qw2
iTAfBgNVHSMEGDAWgBSRsfTp0JzNgtEd93K7JhSC8Qw2iTAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCIFGkHSqYzJCWMIkbNQGweM6TQEyktMO0IzWf
NCGSQVybAiBg55Nd4BKu3kQC4pjPyJhH1/DQzpwwdD7IR2fGIZIIgA==
-----END CERTIFICATE-----`;

async function listen(t: TestContext, server: Server): Promise<Target> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
}

/** A service that replies to each chunk with what `reply` returns. */
function scripted(t: TestContext, reply: (text: string, count: number) => string | Buffer): Promise<Target> {
  let count = 0;
  const server = createServer((socket) => {
    socket.on('data', (chunk) => socket.write(reply(chunk.toString('latin1'), count++)));
  });
  return listen(t, server);
}

test('Redis: a number that grows is right, whoever else counts', async (t) => {
  const asked: string[] = [];
  const replies = [':1\r\n', ':7\r\n'];
  const target = await scripted(t, (text, count) => {
    asked.push(text);
    return replies[count];
  });
  const client = await redisIncrement(target, new Counted());
  await client.request();
  await client.request();
  client.close();
  assert.equal(asked[0], '*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n');
});

test('Redis: a number that any client was given is not given again', async (t) => {
  const target = await scripted(t, (_, count) => `:${[1, 2, 2][count]}\r\n`);
  const counted = new Counted();
  const [one, other] = [await redisIncrement(target, counted), await redisIncrement(target, counted)];
  await one.request();
  await one.request();
  await assert.rejects(other.request(), /2 was handed out twice/);
});

test('Redis: at the end, as many are counted as were acknowledged', async (t) => {
  for (const [total, wrong] of [
    ['$1\r\n8\r\n', null],
    ['$1\r\n7\r\n', /Redis: .*7.* after 8/],
    ['$1\r\n9\r\n', /3 were counted, and 2 acknowledged/],
  ] as const) {
    const target = await scripted(t, (_, count) => [':7\r\n', ':8\r\n', total][count]);
    const client = await redisIncrement(target, new Counted());
    await client.request();
    await client.request();
    if (wrong === null) await client.check();
    else await assert.rejects(client.check(), wrong);
    client.close();
  }
});

test('Redis: a number twice, or no number, is an error', async (t) => {
  for (const second of [':1\r\n', '-ERR\r\n']) {
    const target = await scripted(t, (_, count) => (count === 0 ? ':1\r\n' : second));
    const client = await redisIncrement(target, new Counted());
    await client.request();
    await assert.rejects(client.request(), second === ':1\r\n' ? /1 was handed out twice/ : /Redis: .*ERR/);
  }
});

test('a service that closes the connection fails the request that waits, and the next one', async (t) => {
  const server = createServer((socket) => socket.on('data', () => socket.destroy()));
  const client = await redisIncrement(await listen(t, server), new Counted());
  await assert.rejects(client.request(), BrokenConnection);
  await assert.rejects(client.request(), BrokenConnection);
});

test('bytes that no request has asked for fail the next one', async (t) => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => sockets.push(socket));
  const connection = await Connection.open(await listen(t, server));
  while (sockets.length === 0) await sleep(1);
  sockets[0].write('again');
  await once(sockets[0], 'close');
  await assert.rejects(
    connection.ask('?', () => true),
    /5 bytes that no request has asked for/,
  );
});

test('HTTP: files over one connection; uploads', async (t) => {
  const file = { path: '/file', bytes: 100_000, block: Buffer.from('seven..') };
  let connections = 0;
  const seen: string[] = [];
  const server = createHttpServer((request, response) => {
    let bytes = 0;
    request.on('data', (chunk: Buffer) => (bytes += chunk.length));
    request.on('end', () => {
      seen.push(`${request.method} ${request.url} ${bytes}`);
      if (request.method === 'PUT') response.writeHead(201, { 'content-length': 0 }).end();
      else
        response.writeHead(200, { 'content-length': file.bytes }).end(Buffer.alloc(file.bytes, file.block));
    });
  }).on('connection', () => connections++);
  const target = await listen(t, server);
  const get = await httpKept(target, file);
  await get.request();
  await get.request();
  get.close();
  const put = await httpUpload(target, { ...file, path: '/up' });
  await put.request();
  await put.check();
  put.close();
  assert.deepEqual(seen, ['GET /file 0', 'GET /file 0', 'PUT /up 100000', 'GET /up 0']);
  assert.equal(connections, 2);
});

const HELLO = { bytes: 5, block: Buffer.from('hello') };

test('HTTP: a reply in any pieces is read to its last byte', () => {
  const reply = Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello');
  for (let cut = 1; cut < reply.length; cut++) {
    const read = httpReply(HELLO);
    assert.equal(read(reply.subarray(0, cut)), false, `cut at ${cut}`);
    assert.equal(read(reply.subarray(cut)), true, `cut at ${cut}`);
  }
});

test('HTTP: another status, another length and more bytes are errors', () => {
  const read = (text: string) => () => httpReply(HELLO)(Buffer.from(text));
  assert.throws(read('HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n'), /404/);
  assert.throws(read('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n'), /6 bytes, not 5/);
  assert.throws(read('HTTP/1.1 200 OK\r\n\r\n'), /NaN bytes/);
  assert.throws(read('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!'), /more bytes/);
});

test('HTTP: one wrong byte is an error, wherever it is', () => {
  const block = Buffer.from('abc');
  for (let wrong = 0; wrong < 10; wrong++) {
    const body = Buffer.alloc(10, block);
    body[wrong] = 0x20;
    const head = 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n';
    for (let cut = 0; cut <= 10; cut++) {
      const read = httpReply({ bytes: 10, block });
      const all = (): void => {
        read(Buffer.concat([Buffer.from(head), body.subarray(0, cut)]));
        read(body.subarray(cut));
      };
      assert.throws(all, { message: `HTTP: a wrong byte at ${wrong} of 10` }, `cut at ${cut}`);
    }
  }
});

/** Remembers what belongs to each cookie; `forgets` after so many requests. */
async function sessionService(t: TestContext, forgets = Number.POSITIVE_INFINITY): Promise<Target> {
  const stored = new Map<string, string>();
  let count = 0;
  const server = createHttpServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk));
    request.on('end', () => {
      const cookie = String(request.headers.cookie);
      if (request.url === '/login') {
        response.writeHead(204, { 'set-cookie': `session=${'0f'.repeat(16)}` }).end();
      } else if (request.method === 'PUT') {
        if (++count < forgets) stored.set(cookie, body);
        response.writeHead(204).end();
      } else {
        const text = stored.get(cookie) ?? '';
        response.writeHead(200, { 'content-length': text.length }).end(text);
      }
    });
  });
  return listen(t, server);
}

test('HTTP: a cookie leads to what was last written', async (t) => {
  const client = await httpSession(await sessionService(t));
  for (let i = 0; i < 12; i++) await client.request();
  await client.check();
});

test('HTTP: what was acknowledged and is not there is an error', async (t) => {
  const client = await httpSession(await sessionService(t, 3));
  await client.request();
  await client.request();
  await assert.rejects(client.check(), /wrong byte at 0 of 1/);
});

/** A TLS service that counts connections, and those that resume a session. */
async function tlsService(
  t: TestContext,
): Promise<{ target: Target; counts: { all: number; resumed: number } }> {
  const counts = { all: 0, resumed: 0 };
  const server = createTlsServer({ key: KEY, cert: CERTIFICATE }, (socket: TLSSocket) => {
    counts.all++;
    if (socket.isSessionReused()) counts.resumed++;
    socket.on('error', () => undefined);
    socket.on('data', (request) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      if (!request.includes('keep-alive')) socket.end();
    });
  });
  return { target: await listen(t, server), counts };
}

const OK = { path: '/', bytes: 2, block: Buffer.from('ok') };

test('TLS: one connection for all requests', async (t) => {
  const { target, counts } = await tlsService(t);
  const client = await tlsKept(target, OK);
  for (let i = 0; i < 3; i++) await client.request();
  client.close();
  assert.deepEqual(counts, { all: 1, resumed: 0 });
});

test('TLS: each request has a connection of its own', async (t) => {
  const { target, counts } = await tlsService(t);
  const client = await tlsNew(target, OK, 'full');
  for (let i = 0; i < 3; i++) await client.request();
  assert.deepEqual(counts, { all: 3, resumed: 0 });
});

test('TLS: each connection but the first resumes the one before', async (t) => {
  const { target, counts } = await tlsService(t);
  const client = await tlsNew(target, OK, 'resume');
  for (let i = 0; i < 3; i++) await client.request();
  assert.deepEqual(counts, { all: 3, resumed: 2 });
});

test('ssh: the program that ends with 0 was right', async () => {
  const target = { host: '127.0.0.1', port: 2222 };
  await (await sshTrue(target, ['sh', '-c', 'test "$*" = "2222 root@127.0.0.1 true"'])).request();
  const wrong = await sshTrue(target, ['sh', '-c', 'echo denied >&2; exit 255']);
  await assert.rejects(wrong.request(), /ssh ended with 255: denied/);
  await assert.rejects(wrong.request(), BrokenConnection);
});

test('ssh: a shell that has read each line once is right', async () => {
  const target = { host: '127.0.0.1', port: 2222 };
  const shell = ['sh', '-c', 'while [ $# -gt 1 ]; do shift; done; exec sh -c "$1"'];
  const client = await sshKept(target, shell);
  await client.request();
  await client.check();
  client.close();
  const repeats = await sshKept(target, ['sh', '-c', 'read l; echo 1 $l; read l; echo 3 $l; read l']);
  await assert.rejects(repeats.request(), /ssh: "3 line 2.n" for line 2/);
  repeats.close();
  const ends = await sshKept(target, ['sh', '-c', 'read l; echo 1 $l; read l']);
  await assert.rejects(ends.request(), BrokenConnection);
});

test('DNS: the address that belongs to the question is right', async (t) => {
  const server = createSocket('udp4');
  t.after(() => server.close());
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  let last = Buffer.from([192, 0, 2, 1]);
  let earlier: Buffer[] = [];
  server.on('message', (query, { port }) => {
    assert.deepEqual(query.subarray(2), dnsQuery(0, 'www.colo.test').subarray(2));
    const reply = Buffer.concat([query, last]);
    for (const each of [...earlier, reply]) server.send(each, port, '127.0.0.1');
  });
  const client = await dnsQuestion(
    { host: '127.0.0.1', port: server.address().port },
    'www.colo.test',
    '192.0.2.1',
  );
  t.after(() => client.close());
  await client.request();
  await client.request();
  // One to an earlier question may come again, and is no reply to this one.
  earlier = [Buffer.concat([dnsQuery(1, 'www.colo.test'), Buffer.from([192, 0, 2, 9])])];
  await client.request();
  last = Buffer.from([192, 0, 2, 2]);
  await assert.rejects(client.request(), /192\.0\.2\.2/);
});

test('DNS: a question has the form of RFC 1035', () => {
  const expected = '1234 0100 0001 0000 0000 0000 03777777 04636f6c6f 00 0001 0001'.replaceAll(' ', '');
  assert.equal(dnsQuery(0x1234, 'www.colo').toString('hex'), expected);
});

const message = (type: string, body: string): Buffer => {
  const bytes = Buffer.from(`${type}\0\0\0\0${body}`, 'latin1');
  bytes.writeUInt32BE(4 + body.length, 1);
  return bytes;
};
const dataRow = (value: string): Buffer =>
  message('D', `\0\x01\0\0\0${String.fromCharCode(value.length)}${value}`);
const ready = message('Z', 'I');

test('PostgreSQL: a row that was counted up by one is right', async (t) => {
  const asked: string[] = [];
  const counts = ['41', '42', '44', '42', '41'];
  const target = await scripted(t, (text, count) => {
    asked.push(text);
    if (count === 0) return Buffer.concat([message('R', '\0\0\0\0'), ready]);
    return Buffer.concat([dataRow(counts[count - 1]), message('C', 'UPDATE 1\0'), ready]);
  });
  const client = await postgresUpdate(target, 7);
  await client.request();
  await client.request();
  await assert.rejects(client.request(), /n is 44 after 42/);
  await client.check();
  await assert.rejects(client.check(), /n is 41, and 42 was acknowledged/);
  client.close();
  assert.equal(asked[0].slice(4), '\0\x03\0\0user\0postgres\0database\0postgres\0\0');
  assert.match(asked[4], /^Q\0\0\0.select n from counter where id = 7\0$/s);
  assert.match(asked[1], /^Q\0\0\0.update counter set n = n \+ 1 where id = 7 returning n\0$/s);
});

test('PostgreSQL: messages in any pieces; an error is one', () => {
  const bytes = Buffer.concat([dataRow('12'), dataRow('3'), ready]);
  for (let cut = 1; cut < bytes.length; cut++) {
    const values: string[] = [];
    const read = postgresReply(values);
    assert.equal(read(bytes.subarray(0, cut)), false, `cut at ${cut}`);
    assert.equal(read(bytes.subarray(cut)), true, `cut at ${cut}`);
    assert.deepEqual(values, ['12', '3']);
  }
  assert.throws(() => postgresReply()(message('E', 'SFATAL\0Mno such table\0\0')), /no such table/);
});
