import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { fakeStatus, REPORT } from '../observe/fake-node.ts';
import { tempFolder } from '../temp-folder.ts';
import { type Result, runColo, startColo } from './colo.ts';
import { nodesIn } from './with-node.ts';

const folder = tempFolder();
const withNode = nodesIn(folder);

const colo = (...args: string[]): Promise<Result> => runColo(args, folder);

const jsonOf = (result: Result): unknown => {
  assert.equal(result.err, '');
  assert.equal(result.out.split('\n').length, 2, 'one line');
  return JSON.parse(result.out) as unknown;
};

test('help and version are printed', async () => {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  assert.deepEqual(await colo('--version'), { code: 0, out: `${version}\n`, err: '' });
  const help = await colo('--help');
  assert.equal(help.code, 0);
  for (const name of [
    'node',
    'status',
    'advise',
    'checkpoint',
    'failover',
    'protect',
    'reload',
    'stop',
    'events',
    'capture',
    'dashboard',
    'doctor',
    'certs',
    'init',
  ]) {
    assert.match(help.out, new RegExp(`^ {2}${name} `, 'm'));
  }
  assert.match((await colo('events', '--help')).out, /--follow/);
  assert.match((await colo('capture', 'start', '--help')).out, /--bytes-max/);
});

test('wrong usage is one line and exit code 2', async () => {
  const cases: [string[], RegExp][] = [
    [[], /^COLO_USAGE: which command\? choose one of node, status, /],
    [['dance'], /^COLO_USAGE: there is no command "dance"; choose /],
    [['status'], /^COLO_USAGE: which node\? give either -c FILE\.yaml or --socket PATH$/],
    [['status', '-c', 'a', '--socket', 'b'], /^COLO_USAGE: which node\?/],
    [
      ['status', '--sockt', 'b'],
      /^COLO_USAGE: unknown option '--sockt' \(Did you mean --socket\?\); see --help$/,
    ],
    [['status', '--timeout', '-1', '--socket', 'b'], /^COLO_USAGE: .*Give seconds/],
    [['capture', 'start', '--socket', 'b'], /^COLO_USAGE: missing required argument 'file'; see --help$/],
    [['capture', 'start', 'x', '--socket', 'b', '--bytes-max', '0'], /^COLO_USAGE: .*Give bytes/],
    [['advise'], /^COLO_USAGE: which node\? give either -c FILE\.yaml or --socket PATH$/],
    [['advise', '-c', 'missing.yaml'], /^COLO_CONFIG_READ: missing\.yaml: there is no such file; /],
    [['status', '-c', 'missing.yaml'], /^COLO_CONFIG_READ: missing\.yaml: there is no such file; /],
    [['dashboard'], /^COLO_USAGE: which node\? give either -c FILE\.yaml or --socket PATH$/],
    [['dashboard', '--socket', 'b', '--listen', 'x'], /^COLO_CONFIG_ENDPOINT: /],
    [['dashboard', '--socket', 'b', '--listen', 'tcp:127.0.0.1:1'], /^COLO_USAGE: .*write tcp-listen:/],
    [
      ['dashboard', '--socket', 'b', '--listen', 'tcp-listen:0.0.0.0:1'],
      /^COLO_USAGE: .*put a proxy with TLS in front$/,
    ],
    [['dashboard', '--socket', 'b', '--origin', 'https://x/y'], /^COLO_USAGE: .*scheme and host only/],
    [['node'], /^COLO_USAGE: which node\? give -c FILE\.yaml$/],
    [['node', '-c', 'missing.yaml'], /^COLO_CONFIG_READ: /],
    [['doctor', '-c', 'missing.yaml'], /^COLO_CONFIG_READ: /],
  ];
  const results = await Promise.all(cases.map(([args]) => colo(...args)));
  for (const [i, { code, out, err }] of results.entries()) {
    assert.deepEqual([code, out, err.split('\n').length], [2, '', 2], `${cases[i][0].join(' ')}: ${err}`);
    assert.match(err.trimEnd(), cases[i][1]);
  }
  const json = jsonOf(await colo('dance', '--json')) as { error: { code: string; message: string } };
  assert.equal(json.error.code, 'COLO_USAGE');
});

test('a node that does not run and a process that is not a node are told apart', async () => {
  const gone = await colo('status', '--socket', join(folder, 'no.sock'));
  assert.deepEqual([gone.code, gone.out], [1, '']);
  assert.match(
    gone.err,
    /^COLO_NODE_UNREACHABLE: no node runs at .*no\.sock; start it with "colo node -c FILE\.yaml"/,
  );
  const json = jsonOf(await colo('stop', '--socket', 'no.sock', '--json')) as { error: { code: string } };
  assert.equal(json.error.code, 'COLO_NODE_UNREACHABLE');
});

test('status is shown as text and as JSON', async () => {
  await withNode(async ({ config, socket }) => {
    const [text, json] = await Promise.all([
      colo('status', '-c', config),
      colo('status', '--socket', socket, '--json'),
    ]);
    assert.deepEqual([text.code, text.err], [0, '']);
    assert.match(text.out, /^state +primary, protected$/m);
    assert.deepEqual(jsonOf(json), fakeStatus());
  });
});

test('actions show their result as text and as JSON', async () => {
  await withNode(async ({ config, node }) => {
    assert.match(
      (await colo('checkpoint', '-c', config)).out,
      /^epoch 42 committed: 13 ms in all, VM paused 5\.5 ms, 1\.4 MiB of state, 7 frames/,
    );
    assert.deepEqual(jsonOf(await colo('checkpoint', '-c', config, '--json')), REPORT);
    assert.match(
      (await colo('failover', '-c', config)).out,
      /^alpha is now primary, protected, generation 3\n$/,
    );
    const protect = await colo('protect', '-c', config);
    assert.deepEqual([protect.code, protect.err.split(':')[0]], [1, 'COLO_PAIR_NO_CANDIDATE']);
    assert.equal(
      (await colo('reload', '-c', config)).out,
      'rules in force now: udp 161: exempt; restart the node for vm.args\n',
    );
    const none = await colo('capture', 'stop', '-c', config);
    assert.match(none.err, /^COLO_CAPTURE_NONE: /);
    const started = jsonOf(
      await colo('capture', 'start', 'a.pcapng', '--bytes-max', '10k', '-c', config, '--json'),
    );
    assert.deepEqual(started, { path: join(folder, 'a.pcapng'), bytesMax: 10_240 });
    assert.equal((await colo('capture', 'stop', '-c', config)).out, '5 frames in /tmp/a.pcapng\n');
    assert.deepEqual(node.calls, [
      'checkpoint',
      'checkpoint',
      'failover',
      'reload',
      `capture ${folder}/a.pcapng 10240`,
    ]);
  });
});

test('an action that takes too long ends with COLO_NODE_TIMEOUT', async () => {
  await withNode(
    async ({ socket }) => {
      const { code, err } = await colo('checkpoint', '--socket', socket, '--timeout', '0.2');
      assert.equal(code, 1);
      assert.match(err, /^COLO_NODE_TIMEOUT: .* did not reply to POST \/checkpoint within 0\.2 s; /);
    },
    { checkpoint: () => new Promise(() => {}) },
  );
});

test('stop waits until the node has stopped', async () => {
  await withNode(async ({ socket, server, node }) => {
    const done = colo('stop', '--socket', socket, '--json');
    await node.stopped;
    await new Promise((resolve) => setTimeout(resolve, 300));
    await server.close();
    assert.deepEqual(jsonOf(await done), { stopped: true });
  });
  await withNode(async ({ socket }) => {
    const { code, err } = await colo('stop', '--socket', socket, '--timeout', '0.3');
    assert.equal(code, 1);
    assert.match(err, /^COLO_NODE_TIMEOUT: .* has not stopped within 0\.3 s/);
  });
});

test('events are filtered, shown as JSON, and followed to the end', async () => {
  await withNode(async ({ socket, events, server }) => {
    events.emit('link.lost', { cause: 'timed out', peer: '\u001b[2Jbeta' });
    events.emit('checkpoint.committed', { pauseMs: 5.5 });
    events.emit('checkpoint.started', {});
    const text = await colo('events', '--socket', socket, '--type', 'link');
    assert.match(text.out, /^\d{4}-\S+Z alpha link\.lost cause="timed out" peer=.*beta"?\n$/);
    assert.ok(!text.out.includes('\u001b'), 'nothing that moves the cursor');
    const lines = (await colo('events', '--socket', socket, '--json', '--after', '1')).out
      .trimEnd()
      .split('\n');
    assert.deepEqual(
      lines.map((line) => (JSON.parse(line) as { type: string }).type),
      ['checkpoint.committed', 'checkpoint.started'],
    );

    const follower = startColo(['events', '--socket', socket, '--follow', '--type', 'node', '--json']);
    const ended = new Promise((resolve) => follower.on('close', resolve));
    let out = '';
    const received = new Promise<void>((resolve) => {
      follower.stdout?.on('data', (chunk) => {
        out += String(chunk);
        resolve();
      });
    });
    const timer = setInterval(() => events.emit('node.tick', {}), 20);
    await received;
    clearInterval(timer);
    await server.close();
    assert.equal(await ended, 0, 'a node that stops ends its followers in order');
    assert.match(out, /"type":"node\.tick"/);
  });
});

test('a closed standard output is not a failure', async () => {
  await withNode(async ({ socket, events }) => {
    for (let i = 0; i < 900; i++) events.emit('big', { text: 'x'.repeat(1000) });
    const child = startColo(['events', '--socket', socket, '--follow']);
    let err = '';
    child.stderr?.on('data', (chunk) => {
      err += String(chunk);
    });
    child.stdout?.once('data', () => child.stdout?.destroy());
    assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0);
    assert.equal(err, '');
  });
});

test('status --watch continues when the node stops', async () => {
  await withNode(async ({ socket, server }) => {
    const child = startColo(['status', '--socket', socket, '--watch', '--json']);
    let out = '';
    const saw = (text: string): Promise<void> =>
      new Promise((resolve) => {
        const look = (): void => {
          if (out.includes(text)) resolve();
        };
        child.stdout?.on('data', look);
        look();
      });
    child.stdout?.on('data', (chunk) => {
      out += String(chunk);
    });
    await saw('"phase":"protected"');
    await server.close();
    await saw('COLO_NODE_UNREACHABLE');
    child.kill('SIGINT');
    await new Promise((resolve) => child.on('close', resolve));
  });
});

test('node --print-schema prints the JSON schema', async () => {
  const schema = JSON.parse((await colo('node', '--print-schema')).out) as { properties: object };
  assert.ok('runDirectory' in schema.properties);
});

test('reload asks the node even if the file has an error elsewhere, which the node then returns', async () => {
  const reload = async (): Promise<never> => {
    throw new ColoError('COLO_CONFIG_VALUE', 'a.yaml:9:3: rules.0: a problem');
  };
  await withNode(
    async ({ config }) => {
      appendFileSync(config, 'rules: [ { match: { tcp: 70000 }, exempt: true } ]\n');
      const { code, err } = await colo('reload', '-c', config);
      assert.deepEqual([code, err], [2, 'COLO_CONFIG_VALUE: a.yaml:9:3: rules.0: a problem\n']);
      writeFileSync(config, 'runDirectory: [\n');
      assert.match((await colo('reload', '-c', config)).err, /^COLO_CONFIG_SYNTAX: .*yaml:\d+:\d+: /);
    },
    { reload },
  );
});
