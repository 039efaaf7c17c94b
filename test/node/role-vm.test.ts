import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { RoleVm } from '../../src/node/role-vm.ts';
import { settled } from '../checkpoint/fake-time.ts';
import { FakeLauncher } from './fake-launcher.ts';
import { fakeParts } from './parts.ts';

function roleVm() {
  const launcher = new FakeLauncher();
  const { parts, time, dispatched, emitted } = fakeParts({
    launcher,
    transports: { connect: launcher.connect },
  });
  return { launcher, parts, time, dispatched, emitted, vm: new RoleVm(parts) };
}

test('a role that ends while its VM starts kills that QEMU, even one that never replies, and the start rejects', async () => {
  const { launcher, dispatched, vm } = roleVm();
  launcher.qmpReady = new Promise(() => {});
  const started = assert.rejects(vm.start('boot'), { code: 'COLO_NODE_CHANGED' });
  await settled();
  assert.equal(launcher.latest.hasEnded, false);
  await vm.stop();
  assert.equal(launcher.latest.hasEnded, true, 'nothing runs any more when the role has stopped');
  await started;
  assert.equal(vm.vm, null);
  assert.deepEqual(dispatched, []);
});

test('a VM whose role ends before its QEMU has been started is not left behind', async () => {
  const { launcher, vm } = roleVm();
  const started = assert.rejects(vm.start('boot'), { code: 'COLO_NODE_CHANGED' });
  await vm.stop();
  await started;
  assert.ok(launcher.qemus.every(({ hasEnded }) => hasEnded));
});

for (const [kvm, expected] of [
  [false, ['vm.emulated']],
  [true, []],
] as const) {
  test(`a VM ${kvm ? 'with' : 'without'} KVM starts ${kvm ? 'without' : 'with'} a word about that`, async () => {
    for (const how of ['boot', 'incoming'] as const) {
      const { launcher, emitted, vm } = roleVm();
      launcher.kvm = { enabled: kvm };
      await vm.start(how);
      assert.deepEqual(emitted, expected, how);
    }
  });
}

test('a QEMU whose QMP cannot be connected to is killed, and the start rejects', async () => {
  const { launcher, time, dispatched, vm } = roleVm();
  launcher.qmpReady = Promise.reject(new ColoError('COLO_QMP_CONNECT', 'no greeting'));
  const started = assert.rejects(vm.start('boot'), { code: 'COLO_QMP_CONNECT' });
  await settled();
  await time.pass(500);
  await started;
  assert.equal(launcher.latest.hasEnded, true);
  assert.equal(vm.vm, null);
  assert.deepEqual(dispatched, []);
});

for (const [part, end] of [
  ['process', (launcher) => launcher.latest.kill()],
  ['QMP connection', (launcher) => launcher.latest.closeQmp()],
  [
    'port',
    ({ vmPorts: [port] }) => {
      port.close();
      port.pump();
    },
  ],
] as [string, (launcher: FakeLauncher) => void][]) {
  test(`a VM whose ${part} ends is stopped as a whole, and vmLost is dispatched once`, async () => {
    const { launcher, parts, dispatched, emitted, vm } = roleVm();
    await vm.start('boot');
    end(launcher);
    await settled();
    assert.equal(launcher.latest.hasEnded, true);
    assert.equal(parts.vmPort.isOpen, false);
    assert.equal(vm.vm, null);
    launcher.latest.closeQmp();
    await settled();
    assert.deepEqual(
      dispatched.map(({ type }) => type),
      ['vmLost'],
    );
    assert.deepEqual(emitted, ['vm.lost']);
  });
}

test('a VM that is stopped dispatches nothing', async () => {
  const { launcher, dispatched, emitted, vm } = roleVm();
  await vm.start('boot');
  await vm.stop();
  launcher.latest.closeQmp();
  await settled();
  assert.equal(launcher.latest.hasEnded, true);
  assert.equal(vm.vm, null);
  assert.deepEqual([dispatched, emitted], [[], []]);
});

test('a VM that is lost while its role ends dispatches nothing', async () => {
  const { launcher, dispatched, emitted, vm } = roleVm();
  await vm.start('boot');
  launcher.latest.closeQmp();
  await vm.stop();
  await settled();
  assert.deepEqual([dispatched, emitted], [[], []]);
});

test('a VM replies while it runs and its QEMU replies', async () => {
  const { launcher, vm } = roleVm();
  assert.equal(await vm.isWell(), false, 'not started');
  await vm.start('boot');
  assert.equal(await vm.isWell(), true);
  launcher.latest.replying = false;
  assert.equal(await vm.isWell(), false);
  launcher.latest.replying = true;
  await vm.stop();
  assert.equal(await vm.isWell(), false, 'stopped');
});

for (const [what, cause] of [
  ['closes QMP', new ColoError('COLO_QMP_CLOSED', 'QMP at unix:qmp.sock: read ECONNRESET')],
  ['resets the connection before its greeting', new ColoError('COLO_QMP_CONNECT', 'read ECONNRESET')],
] as const) {
  test(`a QEMU that ends at its start and ${what} leaves its own last words`, async () => {
    const { launcher, time, vm } = roleVm();
    launcher.qmpReady = Promise.reject(cause);
    const words = 'ended with status 1: -device virtio-net-pci,bogus=1: Property not found';
    const started = assert.rejects(vm.start('incoming'), { code: 'COLO_QEMU_EXITED', message: words });
    await settled();
    // QEMU's socket closes shortly before the process ends.
    await time.pass(20);
    launcher.latest.die(words);
    await started;
  });
}

test('a QEMU that refuses a command has said why, and nothing waits for its end', async () => {
  const { launcher, vm } = roleVm();
  launcher.qmpReady = Promise.reject(new ColoError('COLO_QMP_REFUSED', 'QEMU refused it'));
  await assert.rejects(vm.start('boot'), { code: 'COLO_QMP_REFUSED' });
});

for (const [major, minor, enabled, code] of [
  [7, 1, true, 'COLO_QEMU_TOO_OLD'],
  [9, 2, false, 'COLO_QEMU_TCG_TOO_OLD'],
  [10, 0, true, 'COLO_QEMU_BROKEN'],
] as const) {
  test(`a QEMU that is of no use is refused, and nothing waits for its end: ${code}`, async () => {
    const { launcher, vm } = roleVm();
    launcher.version = { major, minor, micro: 0, text: `${major}.${minor}.0` };
    launcher.kvm = { enabled };
    await assert.rejects(vm.start('boot'), { code });
    assert.equal(launcher.latest.hasEnded, true);
  });
}

test('a guest sleeps when its threads do, unless a checkpoint has stopped it', async () => {
  const { launcher, vm } = roleVm();
  const { sight } = await vm.start('boot');
  assert.equal(sight.blindness(), null, 'the threads are those that QMP names');
  assert.equal(sight.isAsleep(), false);
  launcher.latest.asleep = true;
  assert.equal(sight.isAsleep(), true);
  launcher.latest.event('STOP');
  assert.equal(sight.isAsleep(), false);
  launcher.latest.event('RESUME');
  assert.equal(sight.isAsleep(), true);
});

test('a VM in trouble dispatches that again and again, and is not well', async () => {
  const { launcher, parts, time, dispatched, emitted, vm } = roleVm();
  const { silenceMsMax } = parts.config.vm;
  await vm.start('boot');
  launcher.latest.hangs = true;
  await time.pass(2 * silenceMsMax);
  assert.deepEqual(emitted, ['vm.trouble']);
  assert.ok(dispatched.length > 2);
  assert.ok(dispatched.every((event) => event.type === 'vmTrouble' && event.kind === 'hung'));
  assert.equal(await vm.isWell(), false);
  await vm.stop();
  const { length } = dispatched;
  await time.pass(silenceMsMax);
  assert.equal(dispatched.length, length, 'a VM that has been stopped is watched no more');
});

test('a VM that an operator has stopped may be the one VM; one that stands for an error may not', async () => {
  const { launcher, time, vm } = roleVm();
  await vm.start('boot');
  for (const [state, isWell] of [
    ['paused', true],
    ['io-error', false],
    ['running', true],
  ] as const) {
    launcher.latest.state = state;
    launcher.latest.event(state === 'running' ? 'RESUME' : 'STOP');
    await time.pass(1);
    assert.equal(await vm.isWell(), isWell, state);
  }
});

for (const onPoweroff of ['stop', 'restart'] as const) {
  test(`a guest that is off is ${onPoweroff === 'stop' ? 'dispatched' : 'started again'} by "${onPoweroff}"`, async () => {
    const { config } = fakeParts().parts;
    const launcher = new FakeLauncher();
    const { parts, time, dispatched, emitted } = fakeParts({
      launcher,
      transports: { connect: launcher.connect },
      config: { ...config, vm: { ...config.vm, onPoweroff } },
    });
    const vm = new RoleVm(parts);
    await vm.start('boot');
    launcher.latest.state = 'shutdown';
    launcher.latest.event('STOP');
    await time.pass(1);
    const { commands } = launcher.latest;
    if (onPoweroff === 'stop') {
      assert.deepEqual(dispatched[0], {
        type: 'vmTrouble',
        kind: 'off',
        message: 'the guest has been switched off',
      });
      assert.ok(!commands.includes('cont'));
    } else {
      assert.deepEqual(commands.slice(-2), ['system_reset', 'cont']);
      assert.deepEqual([dispatched, emitted], [[], ['vm.trouble', 'vm.restarted']]);
    }
    await vm.stop();
  });
}
