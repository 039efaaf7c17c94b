/** Who may use the dashboard, and what reaches the node. */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadAssets } from '../../src/dashboard/assets.ts';
import { ColoError } from '../../src/error.ts';
import { nodesIn } from '../cli/with-node.ts';
import { REPORT } from '../observe/fake-node.ts';
import { tempFolder } from '../temp-folder.ts';
import { ask, dashboardOf, messagesOf, open, TOKEN } from './rig.ts';

const folder = tempFolder();
const withNode = nodesIn(folder);

const JSON_BODY = { 'content-type': 'application/json' };

test('the files of the page need no token, all else does', async (t) => {
  await withNode(async ({ socket, node }) => {
    const { port } = await dashboardOf(t, socket);
    const page = await ask(port, '/', { headers: { authorization: '' } });
    assert.deepEqual([page.status, page.text], [200, '<p>page']);
    for (const authorization of [
      '',
      'Bearer',
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.slice(1)}`,
      `Basic ${TOKEN}`,
    ]) {
      const headers = { ...JSON_BODY, authorization };
      for (const [path, method] of [
        ['/feed', 'GET'],
        ['/act/failover', 'POST'],
        ['/nothing', 'GET'],
      ]) {
        const refused = await ask(port, path, { method, headers, body: '{}' });
        assert.deepEqual(
          [refused.status, refused.code],
          [401, 'COLO_DASHBOARD_TOKEN'],
          `${path} ${authorization}`,
        );
      }
    }
    assert.deepEqual(node.calls, []);
  });
});

test('each response has the headers that keep other sites and foreign scripts out', async (t) => {
  await withNode(async ({ socket }) => {
    const { port } = await dashboardOf(t, socket);
    for (const headers of [(await ask(port, '/')).headers, (await ask(port, '/no')).headers]) {
      const policy = String(headers['content-security-policy']);
      assert.match(policy, /default-src 'none'/);
      assert.match(policy, /frame-ancestors 'none'/);
      assert.doesNotMatch(policy, /unsafe|\*/);
      assert.equal(headers['x-frame-options'], 'DENY');
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.equal(headers['referrer-policy'], 'no-referrer');
      assert.equal(headers['access-control-allow-origin'], undefined);
    }
  });
});

test('a foreign name of this address (DNS rebinding) and pages of other sites are refused, with the right token too', async (t) => {
  await withNode(async ({ socket, node }) => {
    const { port } = await dashboardOf(t, socket);
    const expect = async (headers: Record<string, string>, status: number, code: string): Promise<void> => {
      for (const path of ['/', '/act/checkpoint']) {
        const method = path === '/' ? 'GET' : 'POST';
        const answer = await ask(port, path, { method, headers: { ...JSON_BODY, ...headers }, body: '{}' });
        assert.deepEqual([answer.status, answer.code], [status, code], JSON.stringify(headers));
      }
    };
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      '127.0.0.1',
      `127.0.0.1:${port}.evil.example`,
      '0.0.0.0',
    ])
      await expect({ host }, 403, 'COLO_DASHBOARD_HOST');
    for (const origin of [
      'http://evil.example',
      'null',
      `https://127.0.0.1:${port}`,
      `http://127.0.0.1:${port + 1}`,
    ])
      await expect({ origin }, 403, 'COLO_DASHBOARD_ORIGIN');
    await expect({ 'sec-fetch-site': 'cross-site' }, 403, 'COLO_DASHBOARD_ORIGIN');
    assert.deepEqual(node.calls, []);
    await expect({ host: `localhost:${port}`, origin: `http://localhost:${port}` }, 200, '');
  });
});

test('an action reaches the node, and the node’s refusal reaches the page', async (t) => {
  await withNode(async ({ socket, node }) => {
    const { port } = await dashboardOf(t, socket);
    const act = (name: string, body = '{}') =>
      ask(port, `/act/${name}`, { method: 'POST', headers: JSON_BODY, body });
    assert.deepEqual(JSON.parse((await act('checkpoint')).text), REPORT);
    assert.equal((await act('failover')).status, 200);
    const refused = await act('protect');
    assert.deepEqual([refused.status, refused.code], [409, 'COLO_PAIR_NO_CANDIDATE']);
    assert.equal((await act('capture-start', '{"path":"/tmp/a.pcapng","bytesMax":5000}')).status, 200);
    assert.equal((await act('capture-stop')).status, 200);
    assert.equal((await act('stop')).status, 200);
    await node.stopped;
    assert.deepEqual(node.calls, ['checkpoint', 'failover', 'capture /tmp/a.pcapng 5000', 'stop']);
  });
});

test('a request that is not one of the page’s own is refused', async (t) => {
  await withNode(async ({ socket, node }) => {
    const { port } = await dashboardOf(t, socket);
    const cases: [string, string, string, Record<string, string>, number][] = [
      ['POST', '/act/reload', '{}', JSON_BODY, 404],
      ['POST', '/act/constructor', '{}', JSON_BODY, 404],
      ['GET', '/act/stop', '', {}, 405],
      ['POST', '/act/stop', '{}', { 'content-type': 'text/plain' }, 415],
      ['POST', '/act/stop', 'now', JSON_BODY, 400],
      ['POST', '/act/stop', '{"really":true}', JSON_BODY, 400],
      ['POST', '/act/capture-start', '{"path":"a.pcapng"}', JSON_BODY, 400],
      ['POST', '/act/stop', `"${'x'.repeat(20_000)}"`, JSON_BODY, 413],
      ['POST', '/', '{}', JSON_BODY, 405],
      ['GET', `/feed?token=${TOKEN}`, '', {}, 400],
      ['GET', '/feed/../status', '', {}, 404],
    ];
    for (const [method, path, body, headers, status] of cases) {
      const answer = await ask(port, path, { method, headers, body });
      assert.deepEqual([answer.status, answer.code], [status, 'COLO_DASHBOARD_REQUEST'], `${method} ${path}`);
    }
    assert.deepEqual(node.calls, []);
  });
});

test('four actions at once are enough, and a page that leaves does not end one', async (t) => {
  const { promise: copied, resolve } = Promise.withResolvers<void>();
  await withNode(
    async ({ socket }) => {
      const { port } = await dashboardOf(t, socket);
      const act = () => ask(port, '/act/protect', { method: 'POST', headers: JSON_BODY, body: '{}' });
      const first = [act(), act(), act(), act()];
      let busy = await act();
      while (busy.code !== 'COLO_DASHBOARD_BUSY') busy = await act();
      assert.equal(busy.status, 429);
      resolve();
      for (const answer of await Promise.all(first)) assert.equal(answer.status, 200);
      assert.equal((await act()).status, 200);
    },
    { protect: () => copied },
  );
});

test('sixteen pages can be open; one that is closed makes room', async (t) => {
  await withNode(async ({ socket }) => {
    const { port } = await dashboardOf(t, socket);
    const pages = await Promise.all(Array.from({ length: 16 }, () => open(port, '/feed')));
    for (const page of pages) assert.equal(page.statusCode, 200);
    const refused = await ask(port, '/feed');
    assert.deepEqual([refused.status, refused.code], [503, 'COLO_DASHBOARD_BUSY']);
    pages[0].on('error', () => {});
    pages[0].destroy();
    let again = await open(port, '/feed');
    while (again.statusCode !== 200) {
      again.resume();
      again = await open(port, '/feed');
    }
    const { value } = await messagesOf(again).next();
    assert.equal((value as { name: string }).name, 'hello');
  });
});

test('behind a proxy it listens on a unix socket, and knows the proxy’s origin only', async (t) => {
  await withNode(async ({ socket }) => {
    const path = join(folder, 'page.sock');
    const listen = { kind: 'unix', mode: 'listen', path } as const;
    const dashboard = await dashboardOf(t, socket, { listen, origin: 'https://colo.example' });
    assert.equal(statSync(path).mode & 0o777, 0o660);
    assert.deepEqual(dashboard.origins, ['https://colo.example']);
    const get = (headers: Record<string, string>) => ask(0, '/', { socketPath: path, headers });
    assert.equal((await get({ host: 'colo.example', origin: 'https://colo.example' })).status, 200);
    assert.equal((await get({ host: 'localhost' })).code, 'COLO_DASHBOARD_HOST');
    assert.equal(
      (await get({ host: 'colo.example', origin: 'http://colo.example' })).code,
      'COLO_DASHBOARD_ORIGIN',
    );
    await assert.rejects(dashboardOf(t, socket, { listen }), { code: 'COLO_DASHBOARD_LISTEN' });
  });
});

test('files of the page that are missing are an error that says where', () => {
  assert.throws(() => loadAssets(join(folder, 'nothing')), {
    code: 'COLO_DASHBOARD_PAGE',
    message: /nothing/,
  });
});

test('a port that is taken is an error that says so', async (t) => {
  await withNode(async ({ socket }) => {
    const { endpoint } = await dashboardOf(t, socket);
    await assert.rejects(
      dashboardOf(t, socket, { listen: endpoint }),
      (error) =>
        error instanceof ColoError &&
        error.code === 'COLO_DASHBOARD_LISTEN' &&
        /another program/.test(error.message),
    );
  });
});
