import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ArbiterConfig } from '../../src/config/arbiter.ts';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { NODE_YAML } from './node-yaml.ts';

const DIRECTORY = 'arbiter: { directory: arbiter }\n';
/** The line of the file at which the section begins. */
const LINE = NODE_YAML.split('\n').findIndex((line) => line.startsWith('arbiter:')) + 1;

function parse(section: string): ArbiterConfig {
  assert.ok(NODE_YAML.includes(DIRECTORY));
  return parseNodeConfig(NODE_YAML.replace(DIRECTORY, section), '/etc/colo/a.yaml').arbiter;
}

const etcd = (rest: string): string => `arbiter:\n  etcd:\n    ${rest}\n`;

test('a directory is relative to the file', () => {
  assert.deepEqual(parse(DIRECTORY), { kind: 'directory', directory: '/etc/colo/arbiter' });
});

test('of etcd the endpoints alone are needed', () => {
  assert.deepEqual(parse(etcd('endpoints: ["http://127.0.0.1:2379", "http://[::1]:2380/"]')), {
    kind: 'etcd',
    etcd: {
      endpoints: ['http://127.0.0.1:2379', 'http://[::1]:2380'],
      prefix: '/colo/',
      tls: { ca: null, certificate: null, key: null },
      user: null,
    },
  });
});

test('paths of secrets are relative to the file', () => {
  const config = parse(
    etcd(
      'endpoints: [https://etcd-1.example:2379]\n    tls: {ca: ca.pem, certificate: a.pem, key: /keys/a.key}\n    prefix: lab/\n    user: colo\n    passwordFile: password',
    ),
  );
  assert.deepEqual(config, {
    kind: 'etcd',
    etcd: {
      endpoints: ['https://etcd-1.example:2379'],
      prefix: 'lab/',
      tls: { ca: '/etc/colo/ca.pem', certificate: '/etc/colo/a.pem', key: '/keys/a.key' },
      user: { name: 'colo', passwordFile: '/etc/colo/password' },
    },
  });
});

test('each mistake is refused with its place', () => {
  const place = (line: number, column: number) => `:${LINE + line}:${column}: `;
  const cases: [section: string, code: string, place: string, text: RegExp][] = [
    ['arbiter: {}\n', 'CONFLICT', place(0, 1), /neither directory nor etcd/],
    [
      'arbiter:\n  directory: x\n  etcd: {endpoints: ["http://h:1"]}\n',
      'CONFLICT',
      place(0, 1),
      /both directory and etcd/,
    ],
    [etcd('endpoint: [x]'), 'UNKNOWN_KEY', place(2, 5), /"endpoint".*did you mean "endpoints"/],
    [etcd('endpoints: []'), 'VALUE', place(2, 16), /is empty; give at least one/],
    [etcd('endpoints: ["htps://h:2379"]'), 'ENDPOINT', place(2, 17), /"htps:.*write https:\/\/HOST:PORT/],
    [etcd('endpoints: ["https://h"]'), 'ENDPOINT', place(2, 17), /the port is missing/],
    [etcd('endpoints: ["https//h:2379"]'), 'ENDPOINT', place(2, 17), /write https/],
    [etcd('endpoints: ["http://a:1,http://b:2"]'), 'ENDPOINT', place(2, 17), /more than one address/],
    [etcd('endpoints: ["http://a:1 "]'), 'ENDPOINT', place(2, 17), /more than one address/],
    [etcd('endpoints: ["http://h:99999"]'), 'ENDPOINT', place(2, 17), /from 1 to 65535/],
    [etcd('endpoints: ["http://h:0"]'), 'ENDPOINT', place(2, 17), /from 1 to 65535/],
    [etcd('endpoints: ["http://300.1.1.1:2379"]'), 'ENDPOINT', place(2, 17), /is not an address/],
    [etcd('endpoints: ["http://[fe::1::2]:2379"]'), 'ENDPOINT', place(2, 17), /not an IPv6 address/],
    [etcd('endpoints: ["http://u:p@h:2379"]'), 'ENDPOINT', place(2, 17), /write https/],
    [etcd('endpoints: ["http://h:2379/v3"]'), 'ENDPOINT', place(2, 17), /write https/],
    [
      etcd('endpoints:\n      - http://h:1\n      - "http://h:1/"'),
      'CONFLICT',
      place(4, 9),
      /http:\/\/h:1 twice; remove one/,
    ],
    [
      etcd('tls: {ca: ca.pem}\n    endpoints: ["http://h:1"]'),
      'CONFLICT',
      place(3, 17),
      /has no TLS, for which/,
    ],
    [
      etcd('endpoints: ["https://h:1"]\n    tls: {key: k}'),
      'CONFLICT',
      place(3, 5),
      /tls.certificate is missing/,
    ],
    [
      etcd('endpoints: ["https://h:1"]\n    tls: {certificate: c}'),
      'CONFLICT',
      place(3, 5),
      /tls.key is missing/,
    ],
    [etcd('endpoints: ["https://h:1"]\n    user: colo'), 'CONFLICT', place(1, 3), /passwordFile is missing/],
    [etcd('endpoints: ["https://h:1"]\n    passwordFile: p'), 'CONFLICT', place(1, 3), /user is missing/],
    [etcd('endpoints: ["https://h:1"]\n    prefix: "a b"'), 'VALUE', place(3, 13), /use 1 to 256 letters/],
  ];
  for (const [section, code, at, text] of cases)
    assert.throws(
      () => parse(section),
      (cause: Error & { code: string }) => {
        assert.equal(cause.code, `COLO_CONFIG_${code}`, section);
        assert.ok(cause.message.startsWith(`/etc/colo/a.yaml${at}`), `${section}: ${cause.message}`);
        assert.match(cause.message, text);
        return true;
      },
    );
});
