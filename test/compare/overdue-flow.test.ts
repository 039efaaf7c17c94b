/** Which flow a checkpoint is taken for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeFlowKey } from '../../src/flow/key.ts';
import type { Instant } from '../../src/units.ts';
import { ethernet } from '../frames.ts';
import { Rig, tcp, udp } from './rig.ts';

const WAITS = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };

function overdue(rig: Rig): [reason: string | null, flow: string | null] {
  const reason = rig.comparator.overdue(rig.nowMs as Instant, WAITS);
  const key = rig.comparator.overdueFlow();
  return [reason, key === null ? null : describeFlowKey(key)];
}

const to = (destinationPort: number, ack: number) => tcp({ seq: 1, ack, text: 'x', destinationPort });

test('an overdue wait names the flow of the frame that is held', () => {
  const rig = new Rig();
  rig.pvm(to(1, 100));
  rig.svm(udp('only the SVM', 2));
  rig.nowMs = 50;
  assert.deepEqual(overdue(rig), ['wait-primary', 'tcp 10.0.2.15:80 <-> 10.0.2.2:1']);
  rig.svm(to(1, 100));
  rig.nowMs = 100;
  assert.deepEqual(overdue(rig), ['wait-secondary', 'udp 10.0.2.15:53 <-> 10.0.2.2:2']);
});

test('it names the flow in which an ACK is owed, and not that of an earlier wait', () => {
  const rig = new Rig();
  rig.pvm(to(1, 200));
  rig.svm(to(1, 100));
  rig.pvm(to(2, 100));
  rig.nowMs = 50;
  assert.deepEqual(overdue(rig), ['wait-primary', 'tcp 10.0.2.15:80 <-> 10.0.2.2:2']);
  rig.svm(to(2, 100));
  rig.nowMs = 1000;
  assert.deepEqual(overdue(rig), ['wait-primary', 'tcp 10.0.2.15:80 <-> 10.0.2.2:1']);
});

test('it names none where the frame has no flow', () => {
  const rig = new Rig(2048, 64, { flowsMax: 1 });
  rig.pvm(to(1, 100));
  rig.svm(to(1, 100));
  rig.pvm(tcp({ seq: 2, ack: 100, text: 'new', destinationPort: 1 }));
  rig.pvm(ethernet(0x88b5, Buffer.from('beyond the table')));
  rig.nowMs = 50;
  assert.deepEqual(overdue(rig), ['wait-primary', 'tcp 10.0.2.15:80 <-> 10.0.2.2:1']);
  rig.svm(tcp({ seq: 2, ack: 100, text: 'new', destinationPort: 1 }));
  assert.deepEqual(overdue(rig), ['wait-primary', null]);
});
