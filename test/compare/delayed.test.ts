/** Waits of flows that a rule delays (`intervalMsMin`) end later; those of all other flows end as before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OperatorRules } from '../../src/compare/operator-rules.ts';
import { localPort, protocolOf } from '../../src/flow/key.ts';
import type { Instant } from '../../src/units.ts';
import { echoReply, Rig, udp } from './rig.ts';

const LIMITS = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };
const UDP_53 = { match: { protocol: 17, port: 53, client: null }, intervalMsMin: 500 };

function rig(): Rig {
  const one = new Rig();
  one.comparator.useOperatorRules(new OperatorRules([UDP_53]));
  return one;
}

const overdue = ({ comparator }: Rig, nowMs: number, ranMs: number) =>
  comparator.overdue(nowMs as Instant, { ...LIMITS, ranMs });

test('output of a delayed flow is overdue only when its interval is over', () => {
  const one = rig();
  one.pvm(udp('held'));
  assert.equal(overdue(one, 400, 499), null);
  assert.equal(overdue(one, 400, 500), 'wait-primary');
  assert.equal(one.comparator.overdue(400 as Instant, LIMITS), 'wait-primary', 'no time is given');
});

test('output of the SVM alone, too', () => {
  const one = rig();
  one.svm(udp('held'));
  assert.equal(overdue(one, 400, 499), null);
  assert.equal(overdue(one, 400, 500), 'wait-secondary');
});

test('another flow is overdue when it was before, however much of the delayed one is held', () => {
  const one = rig();
  for (let i = 0; i < 300; i++) one.pvm(udp(`held ${i}`));
  one.pvm(echoReply(1, 1, 'held'));
  for (let i = 0; i < 300; i++) one.svm(udp(`differs ${i}`));
  assert.equal(overdue(one, 5, 0), null);
  assert.equal(overdue(one, 10, 0), 'wait-primary');
  const key = one.comparator.overdueFlow();
  assert.ok(key !== null);
  assert.equal(protocolOf(key), 1);
  one.commit();
  one.svm(udp('held'));
  one.svm(echoReply(1, 1, 'held'));
  assert.equal(overdue(one, 200, 0), 'wait-secondary');
});

test('beyond a bound the search ends with the delayed flow, so that no other waits for it', () => {
  const one = new Rig(2048, 8192);
  one.comparator.useOperatorRules(new OperatorRules([UDP_53]));
  for (let i = 0; i < 4096; i++) one.pvm(udp('held'));
  assert.equal(overdue(one, 50, 0), null);
  one.pvm(udp('held'));
  assert.equal(overdue(one, 50, 0), 'wait-primary');
  const key = one.comparator.overdueFlow();
  assert.ok(key !== null);
  assert.equal(localPort(key), 53);
});

test('rules that change delay flows that are known', () => {
  const one = new Rig();
  one.pvm(udp('held'));
  one.commit();
  one.comparator.useOperatorRules(new OperatorRules([UDP_53]));
  assert.equal(one.comparator.flowCount, 1);
  one.pvm(udp('held'));
  assert.equal(overdue(one, 400, 499), null);
  one.commit();
  one.comparator.useOperatorRules(new OperatorRules([]));
  one.pvm(udp('held'));
  assert.equal(overdue(one, 400, 499), 'wait-primary');
});
