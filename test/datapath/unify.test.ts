/** Replies that differ in `Date`, over both nodes' paths: what clients get, before and after a promotion. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OperatorRules } from '../../src/compare/operator-rules.ts';
import { CONFIRM_MS_MAX } from '../../src/datapath/confirmations.ts';
import { HTTP_DATE_BYTES, httpDate } from '../../src/unify/http-date.ts';
import {
  ACK,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  internetChecksum,
  PSH,
  SYN,
  tcpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';
import { TwoPaths } from './two-paths.ts';

const dateAt = (second: number) => httpDate(new Date(Date.UTC(2026, 10, 30, 18, 0, second)));
const reply = (second: number) => `HTTP/1.1 200 OK\r\nDate: ${dateAt(second)}\r\nContent-Length: 2\r\n\r\nhi`;
const BYTES = reply(0).length;
const DATE_END = reply(0).indexOf(dateAt(0)) + HTTP_DATE_BYTES;
const HEADERS_BYTES = 54;

const ISN = { pvm: 1000, svm: 70_000 } as const;
type Vm = keyof typeof ISN;

/** `place`: from the VM's own ISN on. */
const fromVm = (vm: Vm, place: number, text: string, flags = ACK | PSH) =>
  tcpFrame({
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
    source: VM_ADDRESS[4],
    destination: CLIENT_ADDRESS[4],
    sourcePort: 80,
    destinationPort: 40000,
    flags,
    seq: ISN[vm] + place,
    ack: 501,
    payload: Buffer.from(text),
  });
const fromClient = (seq: number, ack: number, flags = ACK) =>
  tcpFrame({
    source: CLIENT_ADDRESS[4],
    destination: VM_ADDRESS[4],
    sourcePort: 40000,
    destinationPort: 80,
    flags,
    seq,
    ack,
  });

const textOf = (frame: Buffer) => frame.toString('latin1', HEADERS_BYTES);

function assertSound(frame: Buffer): void {
  const pseudo = Buffer.concat([frame.subarray(26, 34), Buffer.from([0, 6, 0, frame.length - 34])]);
  assert.equal(internetChecksum(pseudo, frame.subarray(34)), 0, 'the checksum is right');
}

/** A pair with an open connection; the VM's next byte is its first. */
function opened(): TwoPaths {
  const pair = new TwoPaths();
  const match = { protocol: 6, port: 80, client: null };
  pair.primary.comparator.useOperatorRules(new OperatorRules([{ match, unify: 'http-date' }]));
  pair.checkpoint();
  pair.client.write(fromClient(500, 0, SYN));
  pair.settle();
  for (const vm of ['pvm', 'svm'] as const) pair[vm].write(fromVm(vm, 0, '', SYN | ACK));
  pair.settle();
  pair.client.write(fromClient(501, ISN.pvm + 1));
  pair.settle();
  assert.equal(pair.client.receivedFrames().length, 1, 'the SYN-ACK');
  return pair;
}

/** Both VMs reply; the client gets the PVM's. */
function replied(): TwoPaths {
  const pair = opened();
  pair.svm.write(fromVm('svm', 1, reply(8)));
  pair.pvm.write(fromVm('pvm', 1, reply(7)));
  pair.settle();
  const frames = pair.client.receivedFrames();
  assert.deepEqual(frames, [fromVm('pvm', 1, reply(7))]);
  assert.deepEqual(pair.diverged, []);
  pair.pass(CONFIRM_MS_MAX);
  return pair;
}

/** Returns what clients get of a frame of the promoted VM. */
function sentByPromoted(pair: TwoPaths, frame: Buffer): Buffer {
  const bytes = Buffer.from(frame);
  pair.secondary.offsets.output(bytes, 0, bytes.length);
  return bytes;
}

function promoted(pair: TwoPaths): Buffer[] {
  const sent: Buffer[] = [];
  const promotion = pair.promote((slab, at, length) =>
    sent.push(Buffer.from(pair.secondarySlabs.buffer(slab).subarray(at, at + length))),
  );
  assert.equal(promotion.lostConnections, 0);
  for (const frame of sent) assertSound(frame);
  return sent;
}

test('the client gets the PVM’s value, and nothing is retained that it has', () => {
  const pair = replied();
  assert.equal(pair.secondary.retainedFrames, 0);
  assert.equal(pair.primary.comparator.unified, 1);
  pair.assertNoLeak();
});

test('after a promotion the VM repeats the value that the client was told, however it cuts it', () => {
  const pair = replied();
  assert.deepEqual(promoted(pair), []);
  const again = sentByPromoted(pair, fromVm('svm', 1, reply(8)));
  assert.deepEqual(again, fromVm('pvm', 1, reply(7)));
  for (const [from, to] of [
    [0, 30],
    [30, 50],
    [50, BYTES],
  ]) {
    const part = sentByPromoted(pair, fromVm('svm', 1 + from, reply(8).slice(from, to)));
    assert.deepEqual(part, fromVm('pvm', 1 + from, reply(7).slice(from, to)));
  }
  const next = sentByPromoted(pair, fromVm('svm', 1 + BYTES, reply(9)));
  assert.deepEqual(next, fromVm('pvm', 1 + BYTES, reply(9)), 'the next reply is the VM’s own');
  pair.secondary.offsets.input(fromClient(501, ISN.pvm + 1 + BYTES), 0, HEADERS_BYTES);
  assert.equal(pair.secondary.offsets.values.size, 0);
});

for (const [stuck, stream, second] of [
  ['lesson', 0, 8],
  ['corrected segment', 1, 7],
] as const) {
  test(`if the ${stuck} is stuck when the primary dies, clients have nothing, and get one value`, () => {
    const pair = opened();
    pair.svm.write(fromVm('svm', 1, reply(8)));
    pair.settle();
    pair.linkStreams[stream].stalled = true;
    pair.pvm.write(fromVm('pvm', 1, reply(7)));
    pair.settle();
    assert.equal(pair.primary.comparator.unified, 1);
    assert.deepEqual(pair.client.receivedFrames(), []);
    assert.deepEqual(promoted(pair).map(textOf), [reply(second)]);
    assert.equal(textOf(sentByPromoted(pair, fromVm('svm', 1, reply(8)))), reply(second), 'and for good');
  });
}

test('the SVM’s own repetitions have the taught value, and the client’s ACK ends that', () => {
  const pair = replied();
  pair.svm.write(fromVm('svm', 1, reply(8)));
  pair.settle();
  assert.deepEqual(pair.diverged, []);
  assert.deepEqual(pair.client.receivedFrames(), []);
  pair.pvm.write(fromVm('pvm', 1, reply(7)));
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames().map(textOf), [reply(7)]);
  pair.client.write(fromClient(501, ISN.pvm + DATE_END));
  pair.settle();
  assert.equal(pair.secondary.translator.values.size, 1, 'all but one byte');
  pair.client.write(fromClient(501, ISN.pvm + 1 + DATE_END));
  pair.settle();
  assert.equal(pair.secondary.translator.values.size, 0);
});

test('a checkpoint ends it: the SVM has the PVM’s value', () => {
  const pair = replied();
  pair.checkpoint();
  assert.equal(pair.secondary.translator.values.size, 0);
  assert.deepEqual(promoted(pair), []);
  const own = fromVm('pvm', 1, reply(7));
  assert.deepEqual(sentByPromoted(pair, own), own);
});

test('a lesson of an epoch that is over, or about what the SVM has not sent, changes nothing', () => {
  const pair = opened();
  const lesson = fromVm('pvm', 1, reply(7));
  const slab = pair.secondarySlabs.acquire();
  lesson.copy(pair.secondarySlabs.buffer(slab));
  const teach = (epoch: number) => pair.secondary.teach(epoch, 2, slab, 0, lesson.length);
  teach(pair.secondary.epoch);
  assert.equal(pair.secondary.translator.values.size, 0, 'nothing is retained');
  pair.svm.write(fromVm('svm', 1, reply(8)));
  pair.settle();
  teach(pair.secondary.epoch - 1);
  assert.equal(pair.secondary.translator.values.size, 0, 'an earlier epoch');
  teach(pair.secondary.epoch);
  assert.equal(pair.secondary.translator.values.size, 1);
  pair.secondarySlabs.unref(slab);
});
