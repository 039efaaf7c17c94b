/** `uplink` is an endpoint or a map; each mistake in either form is one line that names its place. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { differingKeys, parseNodeConfig } from '../../src/config/node-config.ts';
import { NODE_YAML } from './node-yaml.ts';

const parse = (uplink: string) =>
  parseNodeConfig(NODE_YAML.replace('uplink: unix:/run/hub.sock', uplink), '/etc/n.yaml');
const SOCKET = { kind: 'unix', mode: 'connect', path: '/run/hub.sock' };

test('an endpoint alone is a map without more', () => {
  const { uplink } = parse('uplink: unix:/run/hub.sock');
  assert.deepEqual(uplink, { socket: SOCKET, interfaces: [], failover: false, awayMsMax: 2000 });
  assert.deepEqual(parse('uplink: {socket: unix:/run/hub.sock}').uplink, uplink);
  assert.deepEqual(
    parse('uplink: {socket: unix:../hub.sock, interfaces: [tap0, eth0.7], failover: true, awayMsMax: 500}')
      .uplink,
    {
      socket: { ...SOCKET, path: '/hub.sock' },
      interfaces: ['tap0', 'eth0.7'],
      failover: true,
      awayMsMax: 500,
    },
  );
});

for (const [uplink, error] of [
  ['uplink: unix-listen:/run/hub.sock', 'COLO_CONFIG_ENDPOINT /etc/n.yaml:4:9: uplink: endpoint'],
  ['uplink: {socket: hub}', 'COLO_CONFIG_ENDPOINT /etc/n.yaml:4:18: uplink.socket: endpoint "hub": write'],
  ['uplink: {failover: true}', 'COLO_CONFIG_MISSING_KEY /etc/n.yaml:4:1: key "uplink.socket" is missing'],
  ['uplink: {socket: unix:/a, failver: true}', 'unknown key "failver" in uplink; did you mean "failover"?'],
  ['uplink: {socket: unix:/a, failover: yes}', 'uplink.failover: "yes" is not true or false'],
  ['uplink: {socket: unix:/a, awayMsMax: 0}', 'uplink.awayMsMax: 0 is too small; give at least 1'],
  ['uplink: {socket: unix:/a, interfaces: eth0}', 'uplink.interfaces: "eth0" is not a list'],
  ['uplink: {socket: unix:/a, interfaces: [../x]}', '"../x": this is not the name of a network interface'],
  ['uplink: {socket: unix:/a, interfaces: [..]}', '"..": this is not the name of a network interface'],
  [
    'uplink: {socket: unix:/a, interfaces: [a, a, a, a, a, a, a, a, a]}',
    'uplink.interfaces: it is too large',
  ],
  [
    'uplink: {socket: unix-listen:/a}',
    'uplink.socket: endpoint "unix-listen:/a": the node must connect here',
  ],
  ['uplink: {socket: "tcp:[::1]:7001"}', 'uplink is an end of the link between the nodes'],
  ['uplink: []', 'uplink: a list is not a text'],
  ['uplink:', 'uplink: nothing is not a text'],
] as const) {
  test(`${uplink} is refused`, () => {
    assert.throws(
      () => parse(uplink),
      (cause: Error & { code?: string }) => {
        const text = `${cause.code} ${cause.message}`;
        assert.ok(text.includes(error), text);
        assert.equal(text.includes('\n'), false);
        return true;
      },
    );
  });
}

test('what has changed is named by its key', () => {
  const [one, other] = [parse('uplink: unix:/a'), parse('uplink: {socket: unix:/a, failover: true}')];
  assert.deepEqual(differingKeys(one, other), ['uplink.failover']);
});
