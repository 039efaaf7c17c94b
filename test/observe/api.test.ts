import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseEndpoint } from '../../src/endpoint.ts';
import { type ApiServer, listenControl, listenMetrics } from '../../src/observe/api.ts';
import { EventLog } from '../../src/observe/event-log.ts';
import type { NodeControl } from '../../src/observe/status.ts';
import { tempFolder } from '../temp-folder.ts';
import { type AnyEvents, fakeNode, fakeStatus, REPORT } from './fake-node.ts';

const folder = tempFolder();
let count = 0;

type Response = { status: number; body: string; json: () => unknown };
function call(socketPath: string, method: string, path: string, body?: string): Promise<Response> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path, agent: false }, async (response) => {
      let text = '';
      for await (const chunk of response) text += String(chunk);
      resolve({ status: response.statusCode ?? 0, body: text, json: () => JSON.parse(text) as unknown });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

async function withServer(
  control: NodeControl,
  use: (socketPath: string, events: EventLog<AnyEvents>, server: ApiServer) => Promise<void>,
): Promise<void> {
  const socketPath = join(folder, `run-${++count}`, 'control.sock');
  const events = new EventLog<AnyEvents>({ path: join(folder, `e-${count}`), node: 'alpha', now: Date.now });
  const server = await listenControl({ socketPath, control, events });
  try {
    await use(socketPath, events, server);
  } finally {
    await server.close();
    await events.close();
  }
}

test('each request reaches the node and gets its response', async () => {
  const node = fakeNode();
  await withServer(node, async (socket) => {
    assert.equal(statSync(socket).mode & 0o777, 0o600);
    assert.deepEqual((await call(socket, 'GET', '/status')).json(), fakeStatus());
    assert.deepEqual((await call(socket, 'POST', '/checkpoint')).json(), REPORT);
    assert.deepEqual((await call(socket, 'POST', '/failover')).json(), fakeStatus());
    assert.equal((await call(socket, 'DELETE', '/capture')).status, 409);
    const started = await call(socket, 'POST', '/capture', '{"path":"/tmp/a.pcapng","bytesMax":5000}');
    assert.deepEqual(started.json(), { path: '/tmp/a.pcapng', bytesMax: 5000 });
    assert.deepEqual((await call(socket, 'DELETE', '/capture')).json(), { path: '/tmp/a.pcapng', frames: 5 });
    assert.equal((await call(socket, 'POST', '/stop')).status, 202);
    await node.stopped;
    assert.deepEqual(node.calls, ['checkpoint', 'failover', 'capture /tmp/a.pcapng 5000', 'stop']);
  });
});

test('errors are {code, message} with a fitting HTTP status', async () => {
  const broken = fakeNode({
    checkpoint: async () => {
      throw new TypeError('x is undefined');
    },
  });
  await withServer(broken, async (socket) => {
    const expectError = async (
      method: string,
      path: string,
      status: number,
      code: string,
      body?: string,
    ): Promise<void> => {
      const response = await call(socket, method, path, body);
      const json = response.json() as { code: string; message: string };
      assert.deepEqual(
        [response.status, json.code, Object.keys(json)],
        [status, code, ['code', 'message']],
        path,
      );
      assert.ok(!json.message.includes('\n'));
    };
    await expectError('POST', '/protect', 409, 'COLO_PAIR_NO_CANDIDATE');
    await expectError('POST', '/checkpoint', 500, 'COLO_API_INTERNAL');
    await expectError('GET', '/checkpoint', 405, 'COLO_API_METHOD');
    await expectError('GET', '/nothing', 404, 'COLO_API_NOT_FOUND');
    await expectError('GET', '/toString', 404, 'COLO_API_NOT_FOUND');
    await expectError('GET', '/events?after=x', 400, 'COLO_API_REQUEST');
    await expectError('POST', '/capture', 400, 'COLO_API_REQUEST', 'hello');
    await expectError('POST', '/capture', 400, 'COLO_API_REQUEST', '{"path":"relative"}');
    await expectError('POST', '/capture', 400, 'COLO_API_REQUEST', '{"path":"/a","bytes":1}');
    await expectError('POST', '/capture', 413, 'COLO_API_REQUEST', 'x'.repeat(70_000));
  });
});

test('events are sent after a number, and followed as they happen', async () => {
  await withServer(fakeNode(), async (socket, events, server) => {
    for (const type of ['one', 'two', 'three']) events.emit(type, {});
    const types = (text: string): string[] => [...text.matchAll(/"type":"(\w+)"/g)].map((match) => match[1]);
    assert.deepEqual(types((await call(socket, 'GET', '/events')).body), ['one', 'two', 'three']);
    assert.deepEqual(types((await call(socket, 'GET', '/events?after=2')).body), ['three']);
    assert.equal((await call(socket, 'GET', '/events?after=3')).body, '');

    const received = Promise.withResolvers<string>();
    const ended = Promise.withResolvers<void>();
    let text = '';
    request({ socketPath: socket, path: '/events?after=2&follow=1', agent: false }, (response) => {
      response.on('data', (chunk) => {
        text += String(chunk);
        if (text.includes('"three"')) events.emit(text.includes('"four"') ? 'five' : 'four', {});
        if (text.includes('"five"')) received.resolve(text);
      });
      response.on('error', () => {});
      response.on('close', () => ended.resolve());
    }).end();
    assert.deepEqual(types(await received.promise).slice(0, 3), ['three', 'four', 'five']);
    // A server that closes ends its followers.
    await server.close();
    await ended.promise;
  });
});

test('a follower that does not read is disconnected', async () => {
  await withServer(fakeNode(), async (socket, events) => {
    const cut = Promise.withResolvers<void>();
    const connected = Promise.withResolvers<() => void>();
    request({ socketPath: socket, path: '/events?follow=1', agent: false }, (response) => {
      response.pause();
      response.on('error', () => {});
      response.on('close', () => cut.resolve());
      connected.resolve(() => response.resume());
    }).end();
    const resume = await connected.promise;
    const text = 'x'.repeat(10_000);
    for (let i = 0; i < 500; i++) {
      events.emit('big', { text });
      if (i % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    resume();
    const timer = setTimeout(() => cut.reject(new Error('still connected')), 3000);
    await cut.promise;
    clearTimeout(timer);
  });
});

test('the socket of a dead node is replaced, one in use is not', async () => {
  const path = join(folder, 'stale.sock');
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  assert.ok(existsSync(path), 'the stale socket is there');
  const events = new EventLog<AnyEvents>({ path: join(folder, 'stale-e'), node: 'a', now: Date.now });
  const options = { socketPath: path, control: fakeNode(), events };
  const server = await listenControl(options);
  await assert.rejects(listenControl(options), {
    code: 'COLO_API_LISTEN',
    message: /another node already runs at .*colo stop --socket/,
  });
  assert.equal((await call(path, 'GET', '/status')).status, 200);
  await server.close();
  assert.equal(existsSync(path), false);
  await events.close();
});

test('a file in place of the socket is left alone', async () => {
  const path = join(folder, 'file.sock');
  writeFileSync(path, 'precious');
  const events = new EventLog<AnyEvents>({ path: join(folder, 'file-e'), node: 'a', now: Date.now });
  const listen = (socketPath: string) => listenControl({ socketPath, control: fakeNode(), events });
  await assert.rejects(listen(path), { code: 'COLO_API_LISTEN', message: /not a socket/ });
  assert.ok(existsSync(path));
  await assert.rejects(listen(join(folder, 'x'.repeat(110))), { code: 'COLO_API_LISTEN', message: /bytes/ });
  await events.close();
});

test('the TCP port serves metrics and nothing else', async () => {
  const metrics = { contentType: 'text/plain; version=0.0.4', render: async () => 'colo_epoch 42\n' };
  const server = await listenMetrics(parseEndpoint('tcp-listen:127.0.0.1:0'), metrics);
  assert.ok(server.endpoint.kind === 'tcp' && server.endpoint.port > 0);
  const base = `http://127.0.0.1:${server.endpoint.port}`;
  const response = await fetch(`${base}/metrics`);
  assert.deepEqual(
    [response.status, response.headers.get('content-type'), await response.text()],
    [200, metrics.contentType, 'colo_epoch 42\n'],
  );
  assert.equal((await fetch(`${base}/status`)).status, 404);
  assert.equal((await fetch(`${base}/metrics`, { method: 'POST' })).status, 405);
  await assert.rejects(listenMetrics(server.endpoint, metrics), {
    code: 'COLO_API_LISTEN',
    message: /the port is taken; choose another/,
  });
  await server.close();
  const again = createServer().listen(server.endpoint.port, '127.0.0.1');
  await new Promise((resolve, reject) => again.on('listening', resolve).on('error', reject));
  again.close();
});

test('connections that send nothing, or half a request, give up their places within seconds', async (t) => {
  const metrics = { contentType: 'text/plain', render: async () => 'colo_epoch 42\n' };
  const server = await listenMetrics(parseEndpoint('tcp-listen:127.0.0.1:0'), metrics);
  t.after(() => server.close());
  assert.ok(server.endpoint.kind === 'tcp');
  const { port } = server.endpoint;
  const strays = Array.from({ length: 80 }, (_, i) => {
    const stray = connect({ host: '127.0.0.1', port }, () => i % 2 === 0 && stray.write('GET /metrics HT'));
    stray.on('error', () => {});
    t.after(() => stray.destroy());
    return stray;
  });
  await new Promise((resolve) => setTimeout(resolve, 200));
  const beginMs = performance.now();
  for (;;) {
    const text = await fetch(`http://127.0.0.1:${port}/metrics`).then(
      (response) => response.text(),
      () => null,
    );
    if (text === 'colo_epoch 42\n') break;
    assert.ok(performance.now() - beginMs < 10_000, 'the port serves nobody');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(strays.some((stray) => stray.destroyed));
});

test('a client that sends many requests at once and reads nothing is answered once', async (t) => {
  let rendered = 0;
  const render = async () => {
    rendered++;
    return 'colo_epoch 42\n';
  };
  const server = await listenMetrics(parseEndpoint('tcp-listen:127.0.0.1:0'), {
    contentType: 'text/plain',
    render,
  });
  t.after(() => server.close());
  assert.ok(server.endpoint.kind === 'tcp');
  const client = connect({ host: '127.0.0.1', port: server.endpoint.port });
  client.end('GET /metrics HTTP/1.1\r\nHost: colo\r\n\r\n'.repeat(1000));
  client.resume();
  await new Promise((resolve) => client.on('close', resolve));
  assert.equal(rendered, 1);
});

test('a request whose path cannot be read is an error of the client', async () => {
  await withServer(fakeNode(), async (socket) => {
    for (const path of ['//', 'http://[']) {
      const { status, json } = await call(socket, 'GET', path);
      assert.deepEqual([status, (json() as { code: string }).code], [400, 'COLO_API_REQUEST']);
    }
  });
});
