/** Each client against a service on loopback, which the test plays: a right reply, and wrong ones. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
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
  tlsNew,
} from '../../../bench/service/clients.ts';
import type { Target } from '../../../lab/clients/net.ts';

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
  const client = await redisIncrement(target);
  await client.request();
  await client.request();
  client.close();
  assert.equal(asked[0], '*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n');
});

test('Redis: a number twice, or no number, is an error', async (t) => {
  for (const second of [':1\r\n', '-ERR\r\n']) {
    const target = await scripted(t, (_, count) => (count === 0 ? ':1\r\n' : second));
    const client = await redisIncrement(target);
    await client.request();
    await assert.rejects(client.request(), /INCR/);
  }
});

test('a service that closes the connection fails the request that waits, and the next one', async (t) => {
  const server = createServer((socket) => socket.on('data', () => socket.destroy()));
  const client = await redisIncrement(await listen(t, server));
  await assert.rejects(client.request());
  await assert.rejects(client.request());
});

test('HTTP: files over one connection; uploads', async (t) => {
  let connections = 0;
  const seen: string[] = [];
  const server = createHttpServer((request, response) => {
    let bytes = 0;
    request.on('data', (chunk: Buffer) => (bytes += chunk.length));
    request.on('end', () => {
      seen.push(`${request.method} ${request.url} ${bytes}`);
      if (request.method === 'PUT') response.writeHead(201, { 'content-length': 0 }).end();
      else response.writeHead(200, { 'content-length': 100_000 }).end(Buffer.alloc(100_000));
    });
  }).on('connection', () => connections++);
  const target = await listen(t, server);
  const get = await httpKept(target, '/file', 100_000);
  await get.request();
  await get.request();
  get.close();
  const put = await httpUpload(target, '/up', 200_000);
  await put.request();
  put.close();
  assert.deepEqual(seen, ['GET /file 0', 'GET /file 0', 'PUT /up 200000']);
  assert.equal(connections, 2);
});

test('HTTP: a reply in any pieces is read to its last byte', () => {
  const reply = Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello');
  for (let cut = 1; cut < reply.length; cut++) {
    const read = httpReply(5);
    assert.equal(read(reply.subarray(0, cut)), false, `cut at ${cut}`);
    assert.equal(read(reply.subarray(cut)), true, `cut at ${cut}`);
  }
});

test('HTTP: another status, another length and more bytes are errors', () => {
  const read = (text: string) => () => httpReply(5)(Buffer.from(text));
  assert.throws(read('HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n'), /404/);
  assert.throws(read('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n'), /6 bytes, not 5/);
  assert.throws(read('HTTP/1.1 200 OK\r\n\r\n'), /NaN bytes/);
  assert.throws(read('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!'), /more bytes/);
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
    socket.on('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
  });
  return { target: await listen(t, server), counts };
}

test('TLS: each request has a connection of its own', async (t) => {
  const { target, counts } = await tlsService(t);
  const client = await tlsNew(target, '/', 2, 'full');
  for (let i = 0; i < 3; i++) await client.request();
  assert.deepEqual(counts, { all: 3, resumed: 0 });
});

test('TLS: each connection but the first resumes the one before', async (t) => {
  const { target, counts } = await tlsService(t);
  const client = await tlsNew(target, '/', 2, 'resume');
  for (let i = 0; i < 3; i++) await client.request();
  assert.deepEqual(counts, { all: 3, resumed: 2 });
});

test('ssh: the program that ends with 0 was right', async () => {
  const target = { host: '127.0.0.1', port: 2222 };
  await (await sshTrue(target, ['sh', '-c', 'test "$*" = "2222 root@127.0.0.1 true"'])).request();
  const wrong = await sshTrue(target, ['sh', '-c', 'echo denied >&2; exit 255']);
  await assert.rejects(wrong.request(), /ssh ended with 255: denied/);
});

test('DNS: the address that belongs to the question is right', async (t) => {
  const server = createSocket('udp4');
  t.after(() => server.close());
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  let last = Buffer.from([192, 0, 2, 1]);
  server.on('message', (query, { port }) => {
    assert.deepEqual(query.subarray(2), dnsQuery(0, 'www.colo.test').subarray(2));
    server.send(Buffer.concat([query, last]), port, '127.0.0.1');
  });
  const client = await dnsQuestion(
    { host: '127.0.0.1', port: server.address().port },
    'www.colo.test',
    '192.0.2.1',
  );
  t.after(() => client.close());
  await client.request();
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
  const counts = ['41', '42', '44'];
  const target = await scripted(t, (text, count) => {
    asked.push(text);
    if (count === 0) return Buffer.concat([message('R', '\0\0\0\0'), ready]);
    return Buffer.concat([dataRow(counts[count - 1]), message('C', 'UPDATE 1\0'), ready]);
  });
  const client = await postgresUpdate(target, 7);
  await client.request();
  await client.request();
  await assert.rejects(client.request(), /n is 44 after 42/);
  client.close();
  assert.equal(asked[0].slice(4), '\0\x03\0\0user\0postgres\0database\0postgres\0\0');
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
