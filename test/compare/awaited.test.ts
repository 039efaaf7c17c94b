/** What the input side asks of the comparator: is the SVM behind in a flow, and does the flow stay known meanwhile? */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_FLOW } from '../../src/compare/held-frames.ts';
import { ACK, FIN, tcpFrame } from '../frames.ts';
import { flowOf, Rig } from './rig.ts';

const FLOWS_MAX = 8;

function output(port: number, { seq = 1000, ack = 1, flags = ACK, text = '' }): Buffer {
  return tcpFrame({ destinationPort: port, seq, ack, flags, payload: Buffer.from(text) });
}

test('the SVM is behind while PVM output with sequence numbers lacks its counterpart', () => {
  const rig = new Rig();
  const data = output(5000, { text: 'data' });
  const fin = output(5000, { seq: 1004, flags: FIN | ACK });
  assert.equal(flowOf(rig, data), NO_FLOW);
  rig.pvm(data);
  const flow = flowOf(rig, data);
  const isBehind = () => rig.comparator.svmIsBehind(flow);
  assert.equal(isBehind(), true);
  rig.pvm(fin);
  rig.svm(data);
  assert.equal(isBehind(), true, 'the FIN');
  rig.svm(fin);
  assert.equal(isBehind(), false);
  rig.svm(output(5000, { seq: 1005, text: 'more' }));
  assert.equal(isBehind(), false, 'the PVM is');
});

test('a segment that waits for nothing but the SVM’s ACK is not behind', () => {
  const rig = new Rig();
  rig.pvm(output(5000, { text: 'data' }));
  rig.svm(output(5000, { text: 'data', ack: 0, flags: 0 }));
  assert.equal(rig.comparator.primary.frames, 1, 'the SVM has acknowledged nothing');
  assert.equal(rig.comparator.svmIsBehind(flowOf(rig, output(5000, {}))), false);
});

test('a full table does not forget a flow of which input waits', () => {
  const rig = new Rig(256, 512, { flowsMax: FLOWS_MAX });
  const match = (port: number) => {
    for (const vm of ['pvm', 'svm'] as const) {
      rig[vm](output(port, { text: 'bye' }));
      rig[vm](output(port, { seq: 1003, flags: FIN | ACK }));
    }
  };
  match(5000);
  const flow = flowOf(rig, output(5000, {}));
  rig.comparator.noteAwaited(flow, 'awaited');
  for (let port = 5001; port < 5001 + 4 * FLOWS_MAX; port++) match(port);
  rig.comparator.commit();
  assert.equal(flowOf(rig, output(5000, {})), flow);
  rig.comparator.noteAwaited(flow, 'not-awaited');
  for (let port = 6001; port < 6001 + 4 * FLOWS_MAX; port++) match(port);
  assert.equal(flowOf(rig, output(5000, {})), NO_FLOW);
});
