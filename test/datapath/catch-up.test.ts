/** A client's input waits while the SVM has sent less in that flow than the PVM has. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../src/limits.ts';
import type { Instant } from '../../src/units.ts';
import {
  ACK,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  FIN,
  RST,
  SYN,
  tcpFrame,
  udpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';
import { keyOfService, TwoPaths } from './two-paths.ts';

const SERVICE = 443;
const PORT = 40_000;
const CLIENT_ISN = 5000;
const VM_ISN = 9000;

type Sent = {
  readonly seq: number;
  readonly ack?: number;
  readonly flags?: number;
  readonly text?: string;
  readonly port?: number;
};

/** A frame of the client; numbers count from the first byte of each stream. */
function input({ seq, ack = 0, flags = ACK, text = '', port = PORT }: Sent): Buffer {
  return tcpFrame({
    sourcePort: port,
    destinationPort: SERVICE,
    seq: CLIENT_ISN + 1 + seq,
    ack: VM_ISN + 1 + ack,
    flags,
    payload: Buffer.from(text, 'latin1'),
  });
}

function output({ seq, ack = 0, flags = ACK, text = '', port = PORT }: Sent): Buffer {
  return tcpFrame({
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
    source: VM_ADDRESS[4],
    destination: CLIENT_ADDRESS[4],
    sourcePort: SERVICE,
    destinationPort: port,
    seq: VM_ISN + 1 + seq,
    ack: CLIENT_ISN + 1 + ack,
    flags,
    payload: Buffer.from(text, 'latin1'),
  });
}

/** A protected pair with connections of one client, whose request both VMs have received. */
class Bed extends TwoPaths {
  constructor(...ports: number[]) {
    super();
    this.checkpoint();
    for (const port of ports.length > 0 ? ports : [PORT]) {
      this.input({ seq: -1, flags: SYN, port });
      this.send('both', { seq: -1, flags: SYN | ACK, port });
      this.input({ seq: 0, text: 'request', port });
    }
    this.given();
    this.left();
  }

  /** One read of the uplink. */
  input(...frames: Sent[]): void {
    this.client.write(...frames.map(input));
    this.settle();
  }

  send(vm: 'pvm' | 'svm' | 'both', ...frames: Sent[]): void {
    for (const one of vm === 'both' ? (['pvm', 'svm'] as const) : [vm])
      this[one].write(...frames.map(output));
    this.settle();
  }

  /** What both VMs got since the last call, which must be the same. */
  given(): string[] {
    const pvm = this.pvm.receivedFrames();
    assert.deepEqual(this.svm.receivedFrames(), pvm, 'both VMs get the same');
    return pvm.map(nameOf);
  }

  /** What has left to the client since the last call. */
  left(): string[] {
    return this.client.receivedFrames().map(nameOf);
  }

  get status() {
    return this.primary.catchUp.status;
  }

  /** The PVM has sent its reply and its end, the SVM the reply only: the client goes on. */
  part(port = PORT): void {
    this.send('pvm', { seq: 0, ack: 7, text: 'reply', port });
    this.send('pvm', { seq: 5, ack: 7, text: 'bye', port }, { seq: 8, ack: 7, flags: FIN | ACK, port });
    this.send('svm', { seq: 0, ack: 7, text: 'reply', port });
    assert.deepEqual(this.left().slice(-1), ['reply'], 'the client has the reply, and no more');
  }

  /** The SVM sends the rest. */
  level(port = PORT): void {
    this.send('svm', { seq: 5, ack: 7, text: 'bye', port }, { seq: 8, ack: 7, flags: FIN | ACK, port });
  }
}

const FLAG_NAMES = [
  [SYN, 'syn'],
  [FIN, 'fin'],
  [RST, 'rst'],
  [ACK, 'ack'],
] as const;

/** Returns a frame's payload, or what else it is. */
function nameOf(frame: Buffer): string {
  if (frame[23] === 17) return frame.toString('latin1', 42);
  const text = frame.toString('latin1', 54);
  return text === '' ? (FLAG_NAMES.find(([flag]) => (frame[47] & flag) !== 0)?.[1] ?? '') : text;
}

const CLIENTS_END: Sent[] = [
  { seq: 7, ack: 5, text: 'close' },
  { seq: 12, ack: 5, flags: FIN | ACK },
];

test('a client’s end waits for the SVM’s, and both VMs then close alike', () => {
  const bed = new Bed();
  bed.part();
  bed.pass(58);
  bed.input(...CLIENTS_END);
  assert.deepEqual(bed.given(), []);
  bed.pass(2);
  bed.level();
  assert.deepEqual(bed.left(), ['bye', 'fin']);
  assert.deepEqual(bed.given(), ['close', 'fin'], 'in order');
  assert.deepEqual(bed.status, { caughtUpFrames: 2, boundFrames: 0 });
  bed.send('both', { seq: 9, ack: 13 });
  assert.equal(bed.primary.comparator.primary.frames, 0, 'nothing is left for a checkpoint');
  bed.assertNoLeak();
});

test('a SYN and an RST wait as data do', () => {
  for (const flags of [SYN, RST | ACK]) {
    const bed = new Bed();
    bed.part();
    bed.input({ seq: 7, flags });
    assert.deepEqual(bed.given(), []);
    bed.level();
    assert.deepEqual(bed.given(), [flags === SYN ? 'syn' : 'rst']);
    bed.assertNoLeak();
  }
});

test('input of other flows, and datagrams, do not wait', () => {
  const bed = new Bed(PORT, PORT + 1);
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'late' }, { seq: 7, text: 'other', port: PORT + 1 });
  bed.client.write(
    udpFrame({ sourcePort: PORT, destinationPort: SERVICE, payload: Buffer.from('datagram') }),
  );
  bed.settle();
  assert.deepEqual(bed.given(), ['other', 'datagram']);
  bed.level();
  assert.deepEqual(bed.given(), ['late']);
  bed.assertNoLeak();
});

test('a bare ACK does not wait, but behind data of its flow', () => {
  const bed = new Bed(PORT, PORT + 1);
  bed.part();
  bed.input({ seq: 7, ack: 5 });
  assert.deepEqual(bed.given(), ['ack']);
  bed.input({ seq: 7, ack: 5, text: 'data' }, { seq: 11, ack: 5 }, { seq: 7, port: PORT + 1 });
  assert.deepEqual(bed.given(), ['ack'], 'that of the other flow');
  bed.level();
  assert.deepEqual(bed.given(), ['data', 'ack']);
  bed.assertNoLeak();
});

test('nothing overtakes: what comes when the SVM has caught up goes after what waited', () => {
  const bed = new Bed();
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'one' });
  bed.svm.write(
    ...[
      { seq: 5, ack: 7, text: 'bye' },
      { seq: 8, ack: 7, flags: FIN | ACK },
    ].map(output),
  );
  bed.client.write(input({ seq: 10, ack: 5, text: 'two' }));
  bed.settle();
  assert.deepEqual(bed.given(), ['one', 'two']);
  bed.assertNoLeak();
});

test('input does not wait for a PVM that is behind', () => {
  const bed = new Bed();
  bed.send('svm', { seq: 0, ack: 7, text: 'reply' });
  bed.input({ seq: 7, text: 'more' });
  assert.deepEqual(bed.given(), ['more']);
  bed.send('pvm', { seq: 0, ack: 7, text: 'reply' });
  assert.deepEqual(bed.left().slice(-1), ['reply']);
  bed.assertNoLeak();
});

test('no input waits longer than the bound, and all of its flow goes then', () => {
  const bed = new Bed(PORT, PORT + 1);
  bed.part();
  bed.part(PORT + 1);
  bed.input({ seq: 7, ack: 5, text: 'a1' });
  bed.pass(LIMITS.catchUpMsMax / 2);
  bed.input({ seq: 9, ack: 5, text: 'a2' }, { seq: 7, ack: 5, text: 'b1', port: PORT + 1 });
  bed.pass(LIMITS.catchUpMsMax / 2 - 1);
  assert.deepEqual(bed.given(), []);
  assert.equal(bed.primary.catchUp.waitedMs(bed.nowMs as Instant), LIMITS.catchUpMsMax - 1);
  bed.pass(1);
  assert.deepEqual(bed.given(), ['a1', 'a2']);
  bed.pass(LIMITS.catchUpMsMax / 2);
  assert.deepEqual(bed.given(), ['b1'], 'its own bound');
  assert.deepEqual(bed.status, { caughtUpFrames: 0, boundFrames: 3 });
  bed.input({ seq: 11, ack: 5, text: 'a3' });
  assert.deepEqual(bed.given(), [], 'the next one waits again');
  bed.assertNoLeak();
});

test('at the gate input waits in order, the clock of the bound stands, and a commit lets all go', () => {
  const bed = new Bed();
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'one' });
  bed.pass(10);
  bed.primary.closeGate();
  bed.input({ seq: 10, ack: 5, text: 'two' });
  bed.pass(500);
  assert.equal(bed.primary.catchUp.waitedMs(bed.nowMs as Instant), 10);
  bed.primary.openGate();
  bed.settle();
  assert.deepEqual(bed.given(), [], 'no checkpoint was taken');
  bed.pass(5);
  bed.checkpoint();
  assert.deepEqual(bed.given(), ['one', 'two']);
  assert.deepEqual(bed.status, { caughtUpFrames: 2, boundFrames: 0 });
  bed.assertNoLeak();
});

test('an SVM that catches up while the gate is closed moves input to the gate, in order', () => {
  const bed = new Bed();
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'one' });
  bed.primary.closeGate();
  bed.level();
  bed.input({ seq: 10, ack: 5, text: 'two' });
  bed.pass(500);
  assert.deepEqual(bed.given(), []);
  bed.primary.openGate();
  bed.settle();
  assert.deepEqual(bed.given(), ['one', 'two']);
  bed.assertNoLeak();
});

test('the bound begins again where it stood when the gate opens', () => {
  const bed = new Bed();
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'one' });
  bed.pass(LIMITS.catchUpMsMax - 10);
  bed.primary.closeGate();
  bed.pass(500);
  bed.primary.openGate();
  bed.pass(9);
  assert.deepEqual(bed.given(), []);
  bed.pass(1);
  assert.deepEqual(bed.given(), ['one']);
  bed.assertNoLeak();
});

test('a primary that goes alone gives its VM all that waits', () => {
  const bed = new Bed();
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'one' }, { seq: 10, ack: 5, text: 'two' });
  bed.primary.goAlone(2);
  bed.settle();
  assert.deepEqual(bed.pvm.receivedFrames().map(nameOf), ['one', 'two']);
  assert.deepEqual(bed.left(), ['bye', 'fin']);
  bed.assertNoLeak();
});

test('a fenced path drops what waits', () => {
  const bed = new Bed();
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'one' });
  bed.primary.fence();
  bed.pass(2 * LIMITS.catchUpMsMax);
  assert.deepEqual(bed.given(), []);
  bed.assertNoLeak();
});

test('so many bytes wait at most; what comes then takes all of its flow along, and nothing of others', () => {
  const bed = new Bed(PORT, PORT + 1);
  bed.part();
  bed.part(PORT + 1);
  bed.input({ seq: 7, ack: 5, text: 'b1', port: PORT + 1 });
  const text = 'x'.repeat(1400);
  const most = Math.floor((LIMITS.catchUpBytesMax - 56) / 1454);
  for (let i = 0; i < most; i++) bed.input({ seq: 7 + 1400 * i, ack: 5, text });
  assert.deepEqual(bed.given(), []);
  assert.ok(bed.primary.catchUp.waitingBytes <= LIMITS.catchUpBytesMax);
  bed.input({ seq: 7 + 1400 * most, ack: 5, text: `${text.slice(4)}last` });
  const given = bed.given();
  assert.equal(given.length, most + 1);
  assert.ok(given.at(-1)?.endsWith('last'));
  bed.level(PORT + 1);
  assert.deepEqual(bed.given(), ['b1']);
  bed.assertNoLeak();
});

test('the SVM comes first, then the portion', () => {
  const bed = new Bed(PORT, PORT + 1, PORT + 2);
  for (let i = 0; i < 5; i++)
    bed.primary.portions.diverged(keyOfService(6, SERVICE), 'order', (bed.nowMs + 200 * i) as Instant);
  bed.part();
  bed.input({ seq: 7, ack: 5, text: 'a1' }, { seq: 7, text: 'b1', port: PORT + 1 });
  assert.deepEqual(bed.given(), []);
  assert.equal(bed.primary.portions.status.waitedFrames, 1, 'b1 waits for the portion');
  bed.level();
  assert.equal(bed.primary.portions.status.waitedFrames, 2, 'and now a1');
  bed.asleep.pvm = true;
  bed.asleep.svm = true;
  bed.pass(10);
  assert.deepEqual(bed.given(), ['b1', 'a1']);
  bed.assertNoLeak();
});
