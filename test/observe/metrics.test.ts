import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMetrics } from '../../src/observe/metrics.ts';
import { fakeStatus, REPORT } from './fake-node.ts';

test('a scrape is made from one status', async () => {
  let looks = 0;
  const status = fakeStatus();
  status.rules = [{ match: 'udp 161', exempt: { frames: 12, bytes: 800 }, intervalMsMin: null, unify: null }];
  const metrics = createMetrics({
    status: () => {
      looks++;
      return status;
    },
    eventsUnwritten: () => 6,
  });
  metrics.observeCheckpoint(REPORT);
  const lines = (await metrics.render()).split('\n');
  assert.equal(looks, 1);
  for (const line of [
    'colo_node_info{node="alpha",pair="web",qemu="11.1.3",accel="kvm"} 1',
    'colo_role{role="primary"} 1',
    'colo_role{role="secondary"} 0',
    'colo_phase{phase="protected"} 1',
    'colo_phase{phase="fenced"} 0',
    'colo_generation 3',
    'colo_peer_silence_seconds 0.012',
    'colo_checkpoints_total{reason="wait-secondary"} 10',
    'colo_checkpoint_pause_seconds_bucket{le="0.004"} 0',
    'colo_checkpoint_pause_seconds_bucket{le="0.008"} 1',
    'colo_checkpoint_pause_seconds_sum 0.0055',
    'colo_checkpoint_duration_seconds_sum 0.0125',
    'colo_checkpoint_state_bytes_total 1500000',
    'colo_checkpoint_periodic 0',
    'colo_checkpoint_time_share 0.125',
    'colo_held_oldest_seconds 0.0025',
    'colo_flows{protocol="tcp"} 12',
    'colo_released_bytes_total 2500000',
    'colo_exempt_frames_total{rule="udp 161"} 12',
    'colo_exempt_bytes_total{rule="udp 161"} 800',
    'colo_events_unwritten_total 6',
  ]) {
    assert.ok(lines.includes(line), `${line}\nis missing in\n${lines.join('\n')}`);
  }
  assert.ok(
    !lines.some((line) => line.startsWith('colo_failover_detect_seconds ')),
    'unknown is absent, not zero',
  );
});

test('a second scrape replaces the counters, and does not add to them', async () => {
  const status = fakeStatus();
  const metrics = createMetrics({ status: () => status });
  await metrics.render();
  status.traffic.inputFrames = 1001;
  status.failover = { generation: 3, cause: 'silence', detectMs: 300, promoteMs: 20, atMs: 0 };
  const [one, two] = await Promise.all([metrics.render(), metrics.render()]);
  assert.equal(one, two);
  assert.match(one, /^colo_input_frames_total 1001$/m);
  assert.match(one, /^colo_failover_detect_seconds 0\.3$/m);
});

test('names and help texts follow the conventions, and the list is complete', async () => {
  const metrics = createMetrics({ status: fakeStatus, eventsUnwritten: () => 0 });
  const list = await metrics.describe();
  const text = await metrics.render();
  assert.deepEqual(
    list.map(({ name }) => name).toSorted(),
    [...text.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1]).toSorted(),
  );
  for (const { name, type, help } of list) {
    assert.match(name, /^colo_[a-z_]+$/);
    assert.equal(name.endsWith('_total'), type === 'counter', name);
    assert.doesNotMatch(name, /_ms|_milli|_kb|_mb/);
    assert.match(help, /^[A-Z0-9].*\.$/, name);
  }
  assert.deepEqual(list.find(({ name }) => name === 'colo_flows')?.labels, ['protocol']);
});

test('two nodes in one process do not share their metrics', async () => {
  const a = createMetrics({ status: fakeStatus });
  const b = createMetrics({ status: () => ({ ...fakeStatus(), epoch: 99 }) });
  assert.match(await a.render(), /^colo_epoch 42$/m);
  assert.match(await b.render(), /^colo_epoch 99$/m);
});

test('the trouble of a VM is one of its kinds', async () => {
  const status = fakeStatus();
  status.vm.silentMs = 2400;
  status.vm.trouble = { kind: 'hung', state: null, message: '', forMs: 400 };
  const text = await createMetrics({ status: () => status }).render();
  assert.match(text, /^colo_vm_silence_seconds 2.4$/m);
  assert.match(text, /^colo_vm_trouble{kind="hung"} 1$/m);
  for (const kind of ['failing', 'dead', 'stopped', 'asleep', 'off'])
    assert.match(text, new RegExp(`^colo_vm_trouble{kind="${kind}"} 0$`, 'm'));
});
