import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ackMayLeave, noteSvmAck } from '../../src/compare/ack-rule.ts';
import type { Seq } from '../../src/units.ts';
import { ACK, SYN } from '../frames.ts';
import { Rig, tcp } from './rig.ts';

const seq = (number: number) => (number | 0) as Seq;

test('an ACK may leave up to what the SVM has acknowledged, over the wrap too', () => {
  const flow = { svmAckKnown: false, svmAck: 0 as Seq, svmWindow: 0, windowScale: 0 };
  assert.equal(ackMayLeave(flow, seq(0)), false, 'nothing is known yet');
  noteSvmAck(flow, seq(0xfffffff0), 100);
  assert.equal(ackMayLeave(flow, seq(0xfffffff0)), true);
  assert.equal(ackMayLeave(flow, seq(0xfffffff1)), false);
  noteSvmAck(flow, seq(5), 100);
  assert.equal(ackMayLeave(flow, seq(5)), true);
  assert.equal(ackMayLeave(flow, seq(6)), false);
  noteSvmAck(flow, seq(0xfffffff8), 100);
  assert.equal(ackMayLeave(flow, seq(5)), true, 'an older one takes nothing back');
});

function opened(): Rig {
  const rig = new Rig();
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  rig.pvm(synAck);
  rig.svm(synAck);
  return rig;
}

const pureAck = (ack: number) => tcp({ seq: 1001, ack });

const left = (rig: Rig) => rig.released.splice(0).map(({ bytes }) => bytes);

test('a pure ACK leaves as far as the SVM acknowledges', () => {
  const rig = opened();
  left(rig);
  assert.equal(rig.pvm(pureAck(600)), 0, 'no news yet');
  assert.equal(rig.svm(pureAck(599)), 1);
  assert.deepEqual(left(rig), [pureAck(599)]);
  assert.equal(rig.svm(pureAck(700)), 1);
  assert.deepEqual(left(rig), [pureAck(600)]);
  // That of 700 acknowledges more than the client was sent.
  assert.deepEqual(rig.confirmed, [0, 1]);
  assert.equal(rig.pvm(pureAck(650)), 1);
  assert.deepEqual(rig.confirmed, [0, 1]);
  assert.equal(rig.pvm(pureAck(700)), 1);
  rig.assertConfirmed(3);
  assert.equal(rig.svm(pureAck(700)), 0);
  rig.assertConfirmed(4);
  rig.assertEmpty();
});

test('agreed bytes leave with as much of their ACK as the SVM acknowledges; the rest follows', () => {
  const rig = opened();
  left(rig);
  const segment = (ack: number) => tcp({ seq: 1001, ack, text: 'answer' });
  rig.pvm(segment(600));
  assert.equal(rig.svm(segment(550)), 1);
  assert.deepEqual(left(rig), [segment(550)]);
  assert.equal(rig.svm(tcp({ seq: 1007, ack: 600 })), 1);
  assert.deepEqual(left(rig), [tcp({ seq: 1007, ack: 600 })]);
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('an SVM ACK from before a commit is not a proof after it', () => {
  const rig = opened();
  rig.svm(pureAck(900));
  rig.commit();
  // The SVM is now a copy of the PVM, which has never acknowledged 900.
  assert.equal(rig.pvm(pureAck(900)), 0);
  assert.equal(rig.svm(pureAck(900)), 1);
  assert.equal(rig.pvm(pureAck(501)), 1, 'what the client has heard stays true');
});

test('an ACK that left at a commit covers its repetition', () => {
  const rig = opened();
  rig.pvm(pureAck(900));
  assert.equal(rig.commit(), 1);
  assert.equal(rig.pvm(pureAck(900)), 1);
});
