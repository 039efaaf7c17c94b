import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unixEndpoint } from '../../src/endpoint.ts';
import { decideCapabilities, type QemuFacts, queryCapabilities } from '../../src/qemu/capabilities.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';
import { fakeQmp } from './fake-qmp.ts';

const commands = [
  ...['migrate', 'migrate-incoming', 'migrate-set-capabilities', 'migrate-set-parameters'],
  ...[
    'query-colo-status',
    'query-migrate',
    'query-status',
    'query-yank',
    'quit',
    'x-colo-lost-heartbeat',
    'yank',
  ],
];

function facts(major: number, minor: number, kvmEnabled: boolean, more: Partial<QemuFacts> = {}): QemuFacts {
  const version = { major, minor, micro: 0, text: `${major}.${minor}.0` };
  const migrateCapabilities = ['xbzrle', 'x-colo', 'return-path'];
  return { version, kvmEnabled, migrateCapabilities, commands, runWithKeys: [], ...more };
}

const table: readonly [QemuFacts, string | boolean][] = [
  [facts(6, 2, true), 'COLO_QEMU_TOO_OLD'],
  [facts(7, 1, true), 'COLO_QEMU_TOO_OLD'],
  [facts(7, 1, false), 'COLO_QEMU_TOO_OLD'],
  [facts(7, 2, false), 'COLO_QEMU_TCG_TOO_OLD'],
  [facts(10, 2, false), 'COLO_QEMU_TCG_TOO_OLD'],
  [facts(11, 0, false), 'COLO_QEMU_TCG_TOO_OLD'],
  [facts(7, 2, true), false],
  [facts(8, 0, true), false],
  [facts(9, 2, true), false],
  [facts(10, 0, true), 'COLO_QEMU_BROKEN'],
  [facts(10, 0, false), 'COLO_QEMU_BROKEN'],
  [facts(10, 1, true), 'COLO_QEMU_BROKEN'],
  [facts(10, 2, true), false],
  [facts(11, 0, true), true],
  [facts(11, 1, true), true],
  [facts(11, 1, false), true],
  [facts(12, 0, false), true],
  [facts(11, 1, true, { migrateCapabilities: ['return-path'] }), 'COLO_QEMU_NO_COLO'],
  [
    facts(7, 2, true, { commands: commands.filter((name) => name !== 'x-colo-lost-heartbeat') }),
    'COLO_QEMU_NO_COLO',
  ],
];
for (const [given, expected] of table) {
  const accel = given.kvmEnabled ? 'kvm' : 'tcg';
  test(`QEMU ${given.version.text} under ${accel}: ${expected}`, () => {
    if (typeof expected === 'string') {
      assert.throws(() => decideCapabilities(given), { code: expected });
    } else {
      const decided = decideCapabilities(given);
      assert.equal(decided.returnPath, expected);
      assert.equal(decided.accel, accel);
      assert.equal(decided.exitWithParent, false);
    }
  });
}

test('queryCapabilities queries a QEMU', async () => {
  const replies: Record<string, unknown> = {
    'query-kvm': { enabled: false, present: true },
    'query-migrate-capabilities': [{ state: false, capability: 'x-colo' }],
    'query-commands': commands.map((name) => ({ name })),
    'query-command-line-options': [
      { option: 'drive', parameters: [] },
      { option: 'run-with', parameters: [{ name: 'exit-with-parent', type: 'boolean' }] },
    ],
  };
  await using fake = await fakeQmp({
    onRequest: ({ execute, id }, self) => self.send({ return: replies[execute ?? ''], id }),
  });
  const qmp = await QmpClient.connect({ endpoint: unixEndpoint(fake.path), deadlineMs: 5000 });
  const { version, ...decided } = await queryCapabilities(qmp);
  assert.equal(version.major, 11);
  assert.deepEqual(decided, { accel: 'tcg', returnPath: true, exitWithParent: true });
  replies['query-command-line-options'] = [];
  assert.equal((await queryCapabilities(qmp)).exitWithParent, false);
  qmp.close();
});
