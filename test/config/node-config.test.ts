import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadNodeConfig, nodeConfigJsonSchema, parseNodeConfig } from '../../src/config/node-config.ts';
import { ColoError } from '../../src/error.ts';
import { tempFolder } from '../temp-folder.ts';

const GOOD = `node: alpha
pair: web
link:
  listen: unix-listen:alpha.link
  peer: tcp:[::1]:7001
uplink: unix:/run/hub.sock
arbiter:
  directory: arbiter
vm:
  args: ["-m", "512"]
  mac: 52:54:00:AB:34:56
  addresses: [192.0.2.1, "2001:db8::1"]
runDirectory: run/alpha
`;

/** Returns the line of the error, "CODE text". */
function complaint(text: string): string {
  try {
    parseNodeConfig(text, '/etc/colo/a.yaml');
  } catch (error) {
    assert.ok(error instanceof ColoError, String(error));
    assert.ok(!error.message.includes('\n'), 'one line');
    return `${error.code} ${error.message}`;
  }
  return 'accepted';
}
const expect = (text: string, line: string): void =>
  assert.equal(complaint(text), line.replace('@', '/etc/colo/a.yaml'));

test('a minimal file gets defaults, absolute paths and parsed endpoints', () => {
  assert.deepEqual(parseNodeConfig(GOOD, '/etc/colo/a.yaml'), {
    node: 'alpha',
    pair: 'web',
    link: {
      listen: { kind: 'unix', mode: 'listen', path: '/etc/colo/alpha.link' },
      peer: { kind: 'tcp', mode: 'connect', host: '::1', port: 7001 },
    },
    uplink: {
      socket: { kind: 'unix', mode: 'connect', path: '/run/hub.sock' },
      interfaces: [],
      failover: false,
      awayMsMax: 2000,
    },
    arbiter: { kind: 'directory', directory: '/etc/colo/arbiter' },
    vm: {
      command: ['qemu-system-x86_64'],
      env: {},
      args: ['-m', '512'],
      mac: '52:54:00:ab:34:56',
      addresses: ['192.0.2.1', '2001:db8::1'],
      silenceMsMax: 2000,
      onPoweroff: 'stop',
      nic: { device: 'virtio-net-pci', options: '' },
      disks: [],
    },
    file: '/etc/colo/a.yaml',
    runDirectory: '/etc/colo/run/alpha',
    eventLog: '/etc/colo/run/alpha/events.ndjson',
    protect: 'auto',
    checkpoint: { intervalMsMax: 5000, waitMsMin: 5, waitMsMax: 200, ackWaitMsMax: 300 },
    rules: [],
    heartbeat: { intervalMs: 50, leaseMs: 250, silenceMsMax: 1000 },
  });
});

test('a partial section keeps its other defaults', () => {
  const config = parseNodeConfig(`${GOOD}heartbeat: {leaseMs: 300}\neventLog: ../log\n`, '/etc/colo/a.yaml');
  assert.deepEqual(config.heartbeat, { intervalMs: 50, leaseMs: 300, silenceMsMax: 1000 });
  assert.equal(config.eventLog, '/etc/log');
});

test('unknown, missing and duplicate keys are refused', () => {
  expect(
    GOOD.replace('uplink:', 'uplnk:'),
    'COLO_CONFIG_UNKNOWN_KEY @:6:1: unknown key "uplnk"; did you mean "uplink"? (and 1 more problem)',
  );
  expect(
    `${GOOD}heartbeat:\n  qqq: 1\n`,
    'COLO_CONFIG_UNKNOWN_KEY @:15:3: unknown key "qqq" in heartbeat; known here: intervalMs, leaseMs, silenceMsMax',
  );
  expect(
    GOOD.replace('  mac: 52:54:00:AB:34:56\n', ''),
    'COLO_CONFIG_MISSING_KEY @:9:1: key "vm.mac" is missing; add it',
  );
  expect(GOOD.replace('node: alpha\n', ''), 'COLO_CONFIG_MISSING_KEY @:1:1: key "node" is missing; add it');
  expect(`${GOOD}pair: x\n`, 'COLO_CONFIG_DUPLICATE_KEY @:14:1: key "pair" is there twice; remove one');
});

test('values of a wrong type or range are refused', () => {
  expect(
    GOOD.replace('"512"', '512'),
    'COLO_CONFIG_VALUE @:10:16: vm.args.1: 512 is not a text; put it in quotes',
  );
  expect(GOOD.replace('alpha', '17'), 'COLO_CONFIG_VALUE @:1:7: node: 17 is not a text; put it in quotes');
  expect(
    GOOD.replace('alpha', 'a/b').replace('run/', ''),
    'COLO_CONFIG_VALUE @:1:7: node: "a/b": use 1 to 63 letters, digits, ".", "_" or "-", starting with a letter or digit',
  );
  expect(
    `${GOOD}heartbeat: 5\n`,
    'COLO_CONFIG_VALUE @:14:12: heartbeat: 5 is not a map of keys and values; write its keys below it, indented',
  );
  expect(
    `${GOOD}protect: maybe\n`,
    'COLO_CONFIG_VALUE @:14:10: protect: "maybe" is not allowed; choose auto or manual',
  );
  expect(
    `${GOOD}checkpoint: {waitMsMin: 0}\n`,
    'COLO_CONFIG_VALUE @:14:25: checkpoint.waitMsMin: 0 is too small; give at least 1',
  );
  expect(
    `${GOOD}checkpoint: {waitMsMin: 1.5}\n`,
    'COLO_CONFIG_VALUE @:14:25: checkpoint.waitMsMin: 1.5 is not a whole number; write it without a fraction',
  );
  expect(
    `${GOOD}checkpoint: {waitMsMax: 1e9}\n`,
    'COLO_CONFIG_VALUE @:14:25: checkpoint.waitMsMax: 1000000000 is too large; give at most 3600000 (and 1 more problem)',
  );
  expect(
    GOOD.replace('52:54', '53:54'),
    'COLO_CONFIG_VALUE @:11:8: vm.mac: this is a multicast address; the first pair must be even',
  );
  expect(
    GOOD.replace('192.0.2.1', '192.0.2.1/24'),
    'COLO_CONFIG_VALUE @:12:15: vm.addresses.0: write an IPv4 or IPv6 address, without a prefix length',
  );
  expect(
    GOOD.replace('vm:', 'vm:\n  env: {A B: x}'),
    'COLO_CONFIG_VALUE @:10:9: vm.env.A B: this is not a name of an environment variable',
  );
  expect(
    GOOD.replace('vm:', 'vm:\n  command: []'),
    'COLO_CONFIG_VALUE @:10:12: vm.command: is empty; give at least one',
  );
  expect('', 'COLO_CONFIG_VALUE @:1:1: the file: nothing is not a map of keys and values; write one');
  expect(
    '- a\n',
    'COLO_CONFIG_VALUE @:1:1: the file: a list is not a map of keys and values; write its keys below it, indented',
  );
});

test('files that are not valid YAML are refused', () => {
  assert.match(
    complaint(`${GOOD}x: [1\n`),
    /^COLO_CONFIG_SYNTAX \/etc\/colo\/a\.yaml:15:1: not valid YAML: /,
  );
  assert.match(
    complaint(GOOD.replace('alpha', '!!bogus alpha')),
    /^COLO_CONFIG_SYNTAX .*:1:7: not valid YAML: Unresolved tag/,
  );
  assert.match(complaint(`${GOOD}---\na: 1\n`), /^COLO_CONFIG_SYNTAX /);
  assert.match(
    complaint(GOOD.replace('alpha', '*nowhere')),
    /^COLO_CONFIG_SYNTAX .*:1:1: not valid YAML: Unresolved alias/,
  );
  assert.match(complaint(GOOD.replace('pair: web', '\tpair: web')), /^COLO_CONFIG_SYNTAX /);
});

test('endpoints are refused if malformed, too long or of the wrong mode', () => {
  assert.match(
    complaint(GOOD.replace('unix:/run/hub.sock', '/run/hub.sock')),
    /^COLO_CONFIG_ENDPOINT .*:6:9: uplink: endpoint "\/run\/hub\.sock": write unix:PATH/,
  );
  assert.match(
    complaint(GOOD.replace('unix-listen:', 'unix:')),
    /^COLO_CONFIG_ENDPOINT .*:4:11: link\.listen: .* must listen here; write unix-listen:/,
  );
  assert.match(
    complaint(GOOD.replace('unix:/run', 'unix-listen:/run')),
    /:6:9: uplink: .* must connect here/,
  );
  assert.match(
    complaint(GOOD.replace('alpha.link', 'x'.repeat(100))),
    /^COLO_CONFIG_ENDPOINT .*:4:11: the path has 110 bytes/,
  );
  assert.match(
    complaint(GOOD.replace('run/alpha', 'x'.repeat(71))),
    /^COLO_CONFIG_ENDPOINT .*:13:15: runDirectory .* has 81 bytes, and unix sockets in it allow 80/,
  );
  assert.equal(complaint(GOOD.replace('run/alpha', 'x'.repeat(70))), 'accepted');
});

test('every value of a wrong type says what to write instead', () => {
  for (const [good, bad, advice] of [
    ['pair: web', 'pair:', 'nothing is not a text; write one'],
    ['pair: web', 'pair: [web]', 'a list is not a text; give one text'],
    ['["-m", "512"]', '-m 512', '"-m 512" is not a list; write it in brackets, as in [a, b]'],
    ['arbiter\n', '""\n', 'is empty; give one'],
  ])
    assert.ok(complaint(GOOD.replace(good, bad)).endsWith(`: ${advice}`), complaint(GOOD.replace(good, bad)));
  assert.match(
    complaint(`${GOOD}checkpoint: { waitMsMin: 5s }\n`),
    /: "5s" is not a number; write digits alone, without quotes or a unit$/,
  );
});

test('a link that leaves the machine needs TLS', () => {
  const advice =
    'is not on this machine alone, and the memory of the VM would cross the network unencrypted; add link.tls ' +
    '("colo certs" makes its files), or use 127.0.0.1, [::1] or a unix socket';
  expect(
    GOOD.replace('[::1]:7001', '192.0.2.2:7001'),
    `COLO_CONFIG_LINK_PLAIN @:5:9: link.peer: tcp:192.0.2.2:7001 ${advice}`,
  );
  for (const listen of ['0.0.0.0:7000', '[::]:7000', 'db.example:7000', '[::ffff:127.0.0.1]:7000'])
    expect(
      GOOD.replace('unix-listen:alpha.link', `tcp-listen:${listen}`),
      `COLO_CONFIG_LINK_PLAIN @:4:11: link.listen: tcp-listen:${listen} ${advice}`,
    );
  for (const listen of ['127.0.0.1:7000', '127.9.9.9:7000', 'localhost:7000', '[::1]:7000'])
    assert.equal(complaint(GOOD.replace('unix-listen:alpha.link', `tcp-listen:${listen}`)), 'accepted');
  const tls = '  tls: { ca: ca.crt, certificate: /x/a.crt, key: a.key }\nuplink';
  const config = parseNodeConfig(
    GOOD.replace('[::1]:7001', '192.0.2.2:7001').replace('uplink', tls),
    '/etc/colo/a.yaml',
  );
  assert.deepEqual(config.link.tls, {
    ca: '/etc/colo/ca.crt',
    certificate: '/x/a.crt',
    key: '/etc/colo/a.key',
  });
  assert.match(
    complaint(GOOD.replace('uplink', '  tls: { ca: x, certificate: y }\nuplink')),
    /^COLO_CONFIG_MISSING_KEY .*link\.tls\.key/,
  );
});

test('one socket cannot have two uses', () => {
  for (const end of ['tcp:[::1]:7001', 'unix:alpha.link'])
    expect(
      GOOD.replace('unix:/run/hub.sock', end),
      'COLO_CONFIG_CONFLICT @:6:9: uplink is an end of the link between the nodes; give the socket of the network',
    );
  expect(
    `${GOOD.replace('unix-listen:alpha.link', 'tcp-listen:127.0.0.1:7000')}metrics: { listen: "tcp-listen:127.0.0.1:7000" }\n`,
    "COLO_CONFIG_CONFLICT @:14:20: metrics.listen is this node's own link.listen; choose another port",
  );
});

test('values that contradict each other are refused', () => {
  const beat = (text: string): string => complaint(`${GOOD}heartbeat: ${text}\n`);
  assert.match(
    beat('{intervalMs: 100}'),
    /^COLO_CONFIG_CONFLICT .*:14:1: heartbeat\.leaseMs must be at least 3 times/,
  );
  assert.match(
    beat('{intervalMs: 100, leaseMs: 299}'),
    /^COLO_CONFIG_CONFLICT .*:14:\d+: heartbeat\.leaseMs must/,
  );
  assert.equal(beat('{intervalMs: 100, leaseMs: 300}'), 'accepted');
  assert.match(beat('{leaseMs: 1001}'), /^COLO_CONFIG_CONFLICT .*silenceMsMax must be at least/);
  assert.equal(beat('{leaseMs: 1000}'), 'accepted');
  assert.match(
    complaint(`${GOOD}checkpoint: {waitMsMin: 201}\n`),
    /^COLO_CONFIG_CONFLICT .*waitMsMin must not be above/,
  );
  assert.match(
    complaint(`${GOOD}checkpoint: {intervalMsMax: 299}\n`),
    /^COLO_CONFIG_CONFLICT .*intervalMsMax must not be below/,
  );
  assert.match(
    complaint(GOOD.replace('tcp:[::1]:7001', 'unix:alpha.link')),
    /^COLO_CONFIG_CONFLICT .*:5:9: link\.peer is this node's own/,
  );
});

test('metrics are served to other machines only if allowRemote is set', () => {
  const metrics = (text: string): string => complaint(`${GOOD}metrics: ${text}\n`);
  assert.equal(metrics('{listen: "tcp-listen:127.0.0.1:9100"}'), 'accepted');
  assert.match(
    metrics('{listen: "tcp-listen:0.0.0.0:9100"}'),
    /^COLO_CONFIG_CONFLICT .*:14:19: other machines could read/,
  );
  assert.equal(metrics('{listen: "tcp-listen:0.0.0.0:9100", allowRemote: true}'), 'accepted');
  assert.match(metrics('{listen: "unix-listen:m"}'), /^COLO_CONFIG_CONFLICT .*served over TCP/);
});

test('a file that cannot be read is refused', (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'a.yaml'), GOOD);
  assert.equal(loadNodeConfig(join(folder, 'a.yaml')).runDirectory, join(folder, 'run/alpha'));
  assert.throws(() => loadNodeConfig(join(folder, 'b.yaml')), {
    code: 'COLO_CONFIG_READ',
    message: /b\.yaml: there is no such file; /,
  });
  assert.throws(() => loadNodeConfig(folder), { code: 'COLO_CONFIG_READ', message: /it is a directory/ });
});

test('the JSON schema names every key and describes it', () => {
  const schema = nodeConfigJsonSchema() as {
    properties: Record<string, object>;
    required: string[];
    additionalProperties: boolean;
  };
  assert.deepEqual(schema.required, ['node', 'pair', 'link', 'uplink', 'arbiter', 'vm', 'runDirectory']);
  assert.equal(schema.additionalProperties, false);
  assert.deepEqual(Object.keys(schema.properties).sort().slice(0, 3), ['arbiter', 'checkpoint', 'eventLog']);
  assert.match(JSON.stringify(schema.properties.heartbeat), /"intervalMs":\{"default":50,"description":"/);
});
