import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import type { NodeConfig } from '../../src/config/node-config.ts';
import { Control } from '../../src/node/control.ts';
import { NodeRules } from '../../src/node/node-rules.ts';
import type { PrimarySession } from '../../src/node/primary-session.ts';
import { Scope } from '../../src/node/scope.ts';
import { newPair, type PairEvent, type PairState } from '../../src/pair/machine.ts';
import { settled } from '../checkpoint/fake-time.ts';
import { CONFIG } from './config-of-b.ts';

const REPORT = { epoch: 7 } as CheckpointReport;

const alone: PairState = { name: 'alone', peer: null };
const withCandidate: PairState = { name: 'alone', peer: 'b' };
const syncing: PairState = { name: 'syncing', peer: 'b' };
const primary: PairState = { name: 'primary', peer: 'b' };
const secondary: PairState = { name: 'secondary' };
const promoting: PairState = { name: 'promoting' };
const fenced: PairState = { name: 'fenced', why: '' };
const candidate: PairState = { name: 'candidate', linked: false };
const copying: PairState = { name: 'copying' };
const starting: PairState = { name: 'starting' };
const returning: PairState = { name: 'returning' };
const claiming: PairState = {
  name: 'claiming',
  purpose: 'protect',
  peer: null,
  cause: '',
  linkLost: false,
};

/** A node in `state`; the test changes its state and lets its timers fire. */
function controlled(state: PairState) {
  const pair = newPair('a', true);
  pair.state = state;
  const scope = new Scope();
  const dispatched: PairEvent['type'][] = [];
  const timers: { ms: number; call: () => void }[] = [];
  const reasons: string[] = [];
  const session = {
    checkpoint: async (reason: string) => {
      reasons.push(reason);
      return REPORT;
    },
  } as unknown as PrimarySession;
  const waiting: (() => void)[] = [];
  const file = { rules: [] as NodeConfig['rules'] };
  const rules = new NodeRules(CONFIG, () => ({ ...CONFIG, ...file }), { emit: () => {} });
  const control = new Control({
    pair,
    scope,
    timers: {
      after(ms, call) {
        const timer = { ms, call };
        timers.push(timer);
        return () => timers.splice(timers.indexOf(timer), 1);
      },
      soon: () => assert.fail('control waits for events, not for turns'),
    },
    dispatch: ({ type }) => dispatched.push(type),
    primarySession: () => (pair.state.name === 'primary' || pair.state.name === 'syncing' ? session : null),
    rules,
    useRules: (inForce) => waiting.push(inForce),
  });
  const enter = (next: PairState) => {
    pair.state = next;
    control.changed();
  };
  return { control, scope, dispatched, timers, reasons, enter, waiting, file };
}

for (const [request, state, code] of [
  ['checkpoint', alone, 'COLO_NOT_PROTECTED'],
  ['checkpoint', syncing, 'COLO_NOT_PROTECTED'],
  ['checkpoint', secondary, 'COLO_NOT_PROTECTED'],
  ['failover', alone, 'COLO_NOT_PROTECTED'],
  ['failover', syncing, 'COLO_NOT_PROTECTED'],
  ['failover', fenced, 'COLO_NOT_PROTECTED'],
  ['protect', alone, 'COLO_NO_CANDIDATE'],
  ['protect', secondary, 'COLO_NOT_PRIMARY'],
  ['protect', fenced, 'COLO_NOT_PRIMARY'],
] as const) {
  test(`${request} is refused with ${code} in state ${state.name}, and dispatches nothing`, async () => {
    const { control, dispatched, timers, reasons } = controlled(state);
    await assert.rejects(control[request](), { code });
    assert.deepEqual([dispatched, timers, reasons], [[], [], []]);
  });
}

test('checkpoint asks the session of a protected primary', async () => {
  const { control, reasons } = controlled(primary);
  assert.equal(await control.checkpoint(), REPORT);
  assert.deepEqual(reasons, ['requested']);
});

for (const [request, from, through, reached] of [
  ['failover', primary, claiming, alone],
  ['failover', secondary, promoting, syncing],
  ['protect', withCandidate, syncing, primary],
  ['protect', syncing, promoting, primary],
] as const) {
  test(`${request} in state ${from.name} dispatches it, resolves in state ${reached.name}, and cancels its timer`, async () => {
    const { control, dispatched, timers, enter } = controlled(from);
    let done = false;
    const waited = control[request]().then(() => {
      done = true;
    });
    assert.deepEqual(dispatched, [request]);
    assert.equal(timers.length, 1);
    enter(through);
    await settled();
    assert.equal(done, false);
    enter(reached);
    await waited;
    assert.deepEqual(timers, []);
    enter(fenced);
  });
}

test('protect of a protected primary resolves at once and dispatches nothing', async () => {
  const { control, dispatched } = controlled(primary);
  await control.protect();
  assert.deepEqual(dispatched, []);
});

for (const [request, state, ms] of [
  ['failover', primary, 10_000],
  ['protect', withCandidate, 600_000],
] as const) {
  test(`${request} rejects with COLO_TIMEOUT after ${ms / 1000} s`, async () => {
    const { control, timers, enter } = controlled(state);
    const rejected = assert.rejects(control[request](), { code: 'COLO_TIMEOUT' });
    assert.equal(timers[0].ms, ms);
    timers[0].call();
    await rejected;
    enter(alone);
  });

  test(`${request} rejects with COLO_NODE_STOPPED when the node stops`, async () => {
    const { control, scope, timers } = controlled(state);
    const rejected = assert.rejects(control[request](), { code: 'COLO_NODE_STOPPED' });
    scope.end();
    await rejected;
    assert.deepEqual(timers, []);
  });
}

for (const [request, state] of [
  ['failover', primary],
  ['failover', secondary],
  ['protect', withCandidate],
] as const) {
  test(`a ${request} of a node that is ${state.name} rejects at once when the other node wins, or the VM is lost`, async () => {
    for (const lost of [fenced, candidate, copying, starting, returning]) {
      const { control, enter, timers } = controlled(state);
      const asked = assert.rejects(control[request](), { code: 'COLO_NODE_FENCED' });
      await settled();
      enter(lost);
      await asked;
      assert.equal(timers.length, 0, lost.name);
    }
  });
}

const UDP_161 = { match: { protocol: 17, port: 161, client: null }, exempt: true } as const;

test('reload resolves when the rules are in force, and one waits for the other', async () => {
  const { control, waiting, file, timers } = controlled(primary);
  file.rules = [UDP_161];
  const done: string[] = [];
  const first = control.reload().then(({ changed, rules }) => done.push(`${changed} ${rules.join()}`));
  const second = control.reload().then(({ changed, rules }) => done.push(`${changed} ${rules.join()}`));
  await settled();
  assert.deepEqual([done, waiting.length], [[], 1]);
  waiting[0]();
  await Promise.all([first, second]);
  assert.deepEqual(done, ['true udp 161: exempt', 'false udp 161: exempt']);
  assert.deepEqual([waiting.length, timers], [1, []]);
});

test('reload rejects when the node has lost before the rules were in force', async () => {
  const { control, file, enter } = controlled(primary);
  file.rules = [UDP_161];
  const rejected = assert.rejects(control.reload(), { code: 'COLO_NODE_FENCED' });
  await settled();
  enter(fenced);
  await rejected;
});

test('rules that are the same are not put into force again', async () => {
  const { control, waiting } = controlled(alone);
  assert.deepEqual(await control.reload(), {
    changed: false,
    rules: [],
    certificatesChanged: false,
    restartFor: [],
  });
  assert.deepEqual(waiting, []);
});
