import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NodeConfig, parseNodeConfig } from '../../src/config/node-config.ts';
import { NodeRules } from '../../src/node/node-rules.ts';
import { NODE_YAML } from '../config/node-yaml.ts';

const FILE = '/a.yaml';
const exempt = (port: number): string => `rules:\n  - match: { udp: ${port} }\n    exempt: true\n`;

/** A node whose file a test writes. */
function node(text: string) {
  const file = { text };
  const events: [string, unknown][] = [];
  const read = (): NodeConfig => parseNodeConfig(file.text, FILE);
  const rules = new NodeRules(read(), read, { emit: (type, details) => events.push([type, details]) });
  return { rules, file, events };
}

test('the rules of the file are taken over, and nothing else: that needs a restart', () => {
  const { rules, file } = node(NODE_YAML);
  assert.deepEqual(rules.reload(), { isChanged: false, certificatesChanged: false, restartFor: [] });
  const more = `checkpoint: { waitMsMax: 100 }\nmetrics: { listen: "tcp-listen:127.0.0.1:9" }\n${exempt(53)}`;
  file.text = NODE_YAML.replace('args: []', 'args: ["-m", "64"]').replace('run/hub', 'run/bub') + more;
  const { isChanged, restartFor } = rules.reload();
  assert.equal(isChanged, true);
  assert.deepEqual(restartFor.toSorted(), ['checkpoint.waitMsMax', 'metrics', 'uplink.socket', 'vm.args']);
  assert.equal(rules.list[0].match.port, 53);
});

test('a file with an error leaves the old rules, and is logged with its place', () => {
  const { rules, file, events } = node(`${NODE_YAML}${exempt(53)}`);
  file.text = `${NODE_YAML}${exempt(70_000)}`;
  const message = '/a.yaml:9:19: rules.0.match.udp: 70000 is too large; give at most 65535';
  assert.throws(() => rules.reload(), { code: 'COLO_CONFIG_VALUE', message });
  assert.deepEqual(events, [['rules.refused', { code: 'COLO_CONFIG_VALUE', message }]]);
  assert.equal(rules.list[0].match.port, 53);
});

test('rules that were reloaded before are what the next reload compares with', () => {
  const { rules, file } = node(NODE_YAML);
  file.text = `${NODE_YAML}${exempt(53)}`;
  assert.equal(rules.reload().isChanged, true);
  assert.deepEqual(rules.reload(), { isChanged: false, certificatesChanged: false, restartFor: [] });
  file.text = NODE_YAML;
  assert.equal(rules.reload().isChanged, true);
  assert.deepEqual(rules.list, []);
});
