import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { unixEndpoint } from '../../src/endpoint.ts';
import { ColoError } from '../../src/error.ts';
import { QMP_IN_BAND_MAX, QMP_WAITING_MAX, QmpClient, type QmpEvent } from '../../src/qemu/qmp.ts';
import { fakeQmp, GREETING } from './fake-qmp.ts';

const deadlineMs = 5000;

test('connect greets, negotiates out-of-band execution and knows the version', async () => {
  await using fake = await fakeQmp();
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  const expected = { major: 11, minor: 1, micro: 3, text: '11.1.3 (Debian 1:11.1.3)' };
  assert.deepEqual(client.version, expected);
  assert.equal(client.oob, true);
  assert.deepEqual(fake.requests[0]?.arguments, { enable: ['oob'] });
  client.close();
});

test('execute sends arguments and returns the reply; a refusal has the description of QEMU', async () => {
  await using fake = await fakeQmp({
    onRequest: ({ execute, id }, self) => {
      if (execute === 'quit') self.send({ error: { class: 'GenericError', desc: 'not now' }, id });
      else self.send({ return: { status: 'running' }, id });
    },
  });
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  assert.deepEqual(await client.execute('query-status', { a: [1] }), { status: 'running' });
  assert.deepEqual(fake.requests[1]?.arguments, { a: [1] });
  await assert.rejects(client.execute('quit'), {
    code: 'COLO_QMP_REFUSED',
    qmpClass: 'GenericError',
    desc: 'not now',
    command: 'quit',
  });
  client.close();
});

test('a reply may be split at every byte, and events may arrive before it', async () => {
  const event = { event: 'STOP', data: { é: '✓' }, timestamp: { seconds: 2, microseconds: 3 } };
  const text = `${JSON.stringify(event)}\r\n\r\n${JSON.stringify({ return: { t: 'ü€' }, id: 2 })}\n`;
  const bytes = Buffer.from(text);
  await using fake = await fakeQmp();
  for (let split = 1; split < bytes.length; split++) {
    const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
    const events: QmpEvent[] = [];
    client.onEvent((received) => events.push(received));
    const reply = client.execute('query-status');
    const socket = fake.socket();
    socket.setNoDelay(true);
    socket.write(bytes.subarray(0, split));
    await new Promise(setImmediate);
    socket.write(bytes.subarray(split));
    assert.deepEqual(await reply, { t: 'ü€' }, `split at ${split}`);
    assert.deepEqual(events, [{ event: 'STOP', data: { é: '✓' }, timestampUs: 2_000_003 }]);
    client.close();
  }
});

test('a reply may arrive byte by byte', async () => {
  await using fake = await fakeQmp();
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  const reply = client.execute('query-status');
  for (const byte of Buffer.from(`${JSON.stringify({ return: 'ü€', id: 2 })}\n`)) {
    fake.socket().write(Buffer.of(byte));
    await new Promise(setImmediate);
  }
  assert.equal(await reply, 'ü€');
  client.close();
});

test('two replies in one read may have another order than the commands', async () => {
  await using fake = await fakeQmp({
    onRequest: ({ id }, self) => {
      if (id === 3) self.send({ return: 'second', id: 3 }, { return: 'first', id: 2 });
    },
  });
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  const both = await Promise.all([client.execute('a'), client.execute('b')]);
  assert.deepEqual(both, ['first', 'second']);
  client.close();
});

test('a timeout fails one command, and its late reply is not taken for that of another one', async () => {
  await using fake = await fakeQmp();
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  await assert.rejects(client.execute('slow', undefined, { timeoutMs: 20 }), { code: 'COLO_QMP_TIMEOUT' });
  const next = client.execute('next');
  fake.send({ return: 'late', id: 2 });
  fake.send({ return: 'mine', id: 3 });
  assert.equal(await next, 'mine');
  assert.equal(client.closed, false);
  client.close();
});

test('an out-of-band command passes a hung main loop, because in-band ones wait in this process', async () => {
  await using fake = await fakeQmp({
    onRequest: (request, self) => {
      if (request['exec-oob']) self.send({ return: 'oob', id: request.id });
    },
  });
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  const commands = Array.from({ length: QMP_IN_BAND_MAX + QMP_WAITING_MAX }, (_, index) =>
    client.execute(`c${index}`).then(String, (error: ColoError) => error.code),
  );
  await assert.rejects(client.execute('one-too-many'), { code: 'COLO_QMP_BUSY' });
  assert.equal(await client.executeOob('yank'), 'oob');
  const inBand = fake.requests.filter((request) => request.execute?.startsWith('c'));
  assert.equal(inBand.length, QMP_IN_BAND_MAX);
  // Each reply sends the next one, in order.
  fake.send({ return: 'r0', id: inBand[0]?.id });
  assert.equal(await commands[0], 'r0');
  while (fake.requests.at(-1)?.execute !== `c${QMP_IN_BAND_MAX}`) await sleep(1);
  client.close();
  assert.equal(await commands.at(-1), 'COLO_QMP_CLOSED');
});

test('a command that timed out while it waited is never sent', async () => {
  await using fake = await fakeQmp();
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  const sent = Array.from({ length: QMP_IN_BAND_MAX }, () => client.execute('hangs'));
  for (const command of sent) command.catch(() => undefined);
  await assert.rejects(client.execute('stop', undefined, { timeoutMs: 20 }), { code: 'COLO_QMP_TIMEOUT' });
  for (const { id } of fake.requests.slice(1)) fake.send({ return: {}, id });
  await Promise.all(sent);
  const last = client.execute('last');
  while (fake.requests.at(-1)?.execute !== 'last') await sleep(1);
  assert.equal(
    fake.requests.some((request) => request.execute === 'stop'),
    false,
  );
  fake.send({ return: {}, id: fake.requests.at(-1)?.id });
  await last;
  client.close();
});

test('a closed socket fails every pending command, once, and every later one', async () => {
  await using fake = await fakeQmp({ onRequest: (_, self) => self.socket().destroy() });
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  const reasons: string[] = [];
  client.onClose((reason) => reasons.push(reason.code));
  await assert.rejects(client.execute('quit'), { code: 'COLO_QMP_CLOSED' });
  await assert.rejects(client.execute('quit'), { code: 'COLO_QMP_CLOSED' });
  client.onClose((reason) => reasons.push(`late ${reason.code}`));
  client.close();
  assert.deepEqual(reasons, ['COLO_QMP_CLOSED', 'late COLO_QMP_CLOSED']);
});

const garbage: Record<string, string> = {
  'text that is not JSON': 'hello\n',
  'an array': '[1]\n',
  null: 'null\n',
  'a reply to no command': '{"return":{},"id":77}\n',
  'an error without an id': '{"error":{"class":"GenericError","desc":"JSON parse error"}}\n',
  'an id of the wrong type': '{"return":{},"id":"2"}\n',
  'neither a reply nor an event': '{"id":2}\n',
  'a second greeting': `${JSON.stringify(GREETING)}\n`,
  'an endless line': 'x'.repeat(5000),
  'a long line in one piece': `"${'x'.repeat(5000)}"\n`,
};
for (const [name, text] of Object.entries(garbage)) {
  test(`a peer that sends ${name} is disconnected`, async () => {
    await using fake = await fakeQmp({ onRequest: (_, self) => self.socket().write(text) });
    const client = await QmpClient.connect({
      endpoint: unixEndpoint(fake.path),
      deadlineMs,
      lineBytesMax: 4000,
    });
    await assert.rejects(client.execute('query-status'), { code: 'COLO_QMP_GARBLED' });
    assert.equal(client.closed, true);
  });
}

test('a line of exactly the limit passes', async () => {
  const reply = (fill: number) => JSON.stringify({ return: 'x'.repeat(fill), id: 2 });
  const fill = 1000 - reply(0).length;
  await using fake = await fakeQmp({ onRequest: (_, self) => self.socket().write(`${reply(fill)}\n`) });
  const client = await QmpClient.connect({
    endpoint: unixEndpoint(fake.path),
    deadlineMs,
    lineBytesMax: 1000,
  });
  assert.equal((await client.execute<string>('a')).length, fill);
  client.close();
});

test('a peer without a greeting of QMP is disconnected', async () => {
  for (const greeting of ['SSH-2.0-x\n', '{"QMP":{}}\n', '{"QMP":{"version":{"qemu":{"major":"11"}}}}\n']) {
    await using fake = await fakeQmp({ greeting });
    await assert.rejects(QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs }), {
      code: 'COLO_QMP_GARBLED',
    });
  }
});

test('connect waits for a socket that is made later', async () => {
  await using fake = await fakeQmp({ listen: false });
  const connecting = QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  await sleep(50);
  await fake.listen();
  (await connecting).close();
});

test('connect rejects at its deadline, without a socket or without a greeting', async () => {
  await using absent = await fakeQmp({ listen: false });
  const error = { code: 'COLO_QMP_CONNECT', message: /ENOENT/ };
  await assert.rejects(QmpClient.connect({ endpoint: unixEndpoint(absent.path), deadlineMs: 50 }), error);
  await using silent = await fakeQmp({ greeting: '\n' });
  const second = { code: 'COLO_QMP_CONNECT', message: /not greeted/ };
  await assert.rejects(QmpClient.connect({ endpoint: unixEndpoint(silent.path), deadlineMs: 50 }), second);
});

test('connect rejects at once when the process has ended, with its error', async () => {
  await using fake = await fakeQmp({ listen: false });
  const dead = new AbortController();
  const started = performance.now();
  const connecting = QmpClient.connect({
    endpoint: unixEndpoint(fake.path),
    deadlineMs,
    signal: dead.signal,
  });
  setTimeout(() => dead.abort(new ColoError('COLO_QEMU_EXITED', 'bad option')), 30);
  await assert.rejects(connecting, { code: 'COLO_QEMU_EXITED', message: 'bad option' });
  assert.ok(performance.now() - started < 1000);
  const again = QmpClient.connect({
    endpoint: unixEndpoint(fake.path),
    deadlineMs,
    signal: AbortSignal.abort(),
  });
  await assert.rejects(again, { code: 'COLO_QMP_CONNECT' });
});

test('connect does not retry an error that cannot pass', async () => {
  const started = performance.now();
  await assert.rejects(QmpClient.connect({ endpoint: unixEndpoint('/dev/null/qmp'), deadlineMs }), {
    code: 'COLO_QMP_CONNECT',
  });
  assert.ok(performance.now() - started < 1000);
});

test('an out-of-band command is refused, and not sent in-band, if QEMU has none', async () => {
  const greeting = `${JSON.stringify({ QMP: { ...GREETING.QMP, capabilities: [] } })}\n`;
  await using fake = await fakeQmp({ greeting });
  const client = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs });
  await assert.rejects(client.executeOob('yank'), { code: 'COLO_QMP_REFUSED' });
  assert.equal(fake.requests.length, 1);
  client.close();
});
