/** Which flows of a portion were answered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PortionAnswers, QUIET_MS } from '../../src/datapath/portion-answers.ts';
import { FLOW_KEY_WORDS, writeOutputKey } from '../../src/flow/key.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { arpFrame, CLIENT_ADDRESS, udpFrame, VM_ADDRESS } from '../frames.ts';

const slabs = new SlabPool(4096, 4096);

function outputTo(port: number): Buffer {
  return udpFrame({
    ...{ source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4] },
    ...{ sourcePort: 53, destinationPort: port, payload: Buffer.from('reply') },
  });
}

function keyOf(frame: Buffer): Int32Array {
  const key = new Int32Array(FLOW_KEY_WORDS);
  const view = new PacketView();
  parsePacket(frame, 0, frame.length, view);
  writeOutputKey(frame, view, key);
  return key;
}

function release(answers: PortionAnswers, frame: Buffer, nowMs: number): void {
  const slab = slabs.acquire();
  frame.copy(slabs.buffer(slab), 4);
  answers.released(slab, 4, frame.length, nowMs);
  slabs.unref(slab);
}

test('datagrams are answers too; what is no packet, or of another flow, is none', () => {
  const answers = new PortionAnswers(slabs, 4);
  assert.equal(answers.isComplete, false, 'a portion without work is not answered');
  answers.expect(keyOf(outputTo(1)));
  release(answers, arpFrame(), 1);
  release(answers, outputTo(2), 2);
  assert.equal(answers.isComplete, false);
  release(answers, outputTo(1), 3);
  assert.equal(answers.isComplete, true);
  assert.equal(
    answers.remainingMs(4, () => false),
    QUIET_MS - 1,
  );
  assert.equal(
    answers.remainingMs(3 + QUIET_MS, () => false),
    0,
  );
  assert.equal(
    answers.remainingMs(100, () => true),
    QUIET_MS,
  );
  answers.clear();
  assert.equal(answers.isComplete, false);
});

test('a portion of more flows than are tracked is never answered', () => {
  const answers = new PortionAnswers(slabs, 2);
  for (const port of [1, 2, 3]) answers.expect(keyOf(outputTo(port)));
  for (const port of [1, 2, 3]) release(answers, outputTo(port), 0);
  assert.equal(answers.isComplete, false);
});
