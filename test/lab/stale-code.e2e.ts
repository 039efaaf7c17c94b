/**
 * Does a COLO secondary under TCG execute what its memory holds? Two QEMUs and QMP alone, without and with the lab's
 * plugin. About 10 seconds.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { removeWorkFolder, workFolder } from '../../lab/process.ts';
import { installOldQemu, installQemu } from '../../lab/qemu.ts';
import { isStale, type Proof, prove } from '../../lab/stale-code/proof.ts';
import { installPlugin, isPluginFor, remedyArguments } from '../../lab/stale-code/remedy.ts';
import { hasStaleCode } from '../../src/qemu/capabilities.ts';

const CHECKPOINTS = 8;

const install = await installQemu();
const [major, minor] = install.version.split('.').map(Number);
const plugin = isPluginFor(install.version) ? ['-plugin', `file=${await installPlugin()}`] : null;

function expectExact(t: TestContext, proof: Proof): void {
  t.diagnostic(JSON.stringify(proof.afterCheckpoints.map(({ returned, inMemory }) => [returned, inMemory])));
  const replies = [...proof.afterCheckpoints, proof.afterFailover];
  for (const [index, { returned, inMemory }] of replies.entries()) {
    const when = index === CHECKPOINTS ? 'the failover' : `checkpoint ${index + 1}`;
    for (const value of returned) assert.equal(value, inMemory, `a call after ${when}`);
  }
}

for (const vcpus of [1, 2] as const) {
  test(`without the plugin, a secondary with ${vcpus} vCPU executes code that its memory does not hold`, async (t) => {
    const proof = await prove({ install, args: [], vcpus, checkpoints: CHECKPOINTS });
    t.diagnostic(`after the failover: ${JSON.stringify(proof.afterFailover)}`);
    assert.equal(
      isStale(proof),
      hasStaleCode({ major, minor }, 'tcg'),
      `QEMU ${install.version} does not behave as src/qemu/capabilities.ts says of it. If it is mended: name the ` +
        'version there, and take the notes out of README.md and docs/qemu.md',
    );
  });

  test(`with the plugin, a secondary with ${vcpus} vCPU executes what its memory holds`, async (t) => {
    if (plugin === null) return t.skip(`the plugin is not for QEMU ${install.version}`);
    expectExact(t, await prove({ install, args: plugin, vcpus, checkpoints: CHECKPOINTS }));
  });
}

test('a QEMU of another series is used if it has no fault, and refused if it has', async (t) => {
  if (plugin === null) return t.skip(`QEMU ${install.version} is of another series itself`);
  const other = { ...install, version: '11.9.0' };
  // Its result must not take the place of the one about the lab's QEMU.
  const cache = workFolder();
  process.env.COLO_CACHE = cache;
  t.after(() => {
    delete process.env.COLO_CACHE;
    removeWorkFolder(cache);
  });
  await assert.rejects(remedyArguments(other), { code: 'COLO_SETUP_QEMU' });
  // The plugin in its command line makes it behave like a QEMU without the fault.
  assert.deepEqual(await remedyArguments({ ...other, command: [...install.command, ...plugin] }), []);
});

test('QEMU refuses to start with the plugin where a function is missing', async () => {
  const old = await installOldQemu();
  await assert.rejects(
    prove({ install: old, args: ['-plugin', `file=${await installPlugin()}`], vcpus: 1, checkpoints: 1 }),
    { code: 'COLO_QEMU_EXITED', message: /undefined symbol: \w+/ },
  );
});
