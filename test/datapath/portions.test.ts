/** What reaches the VMs when: portions, their ends, their bound, the gate. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QUIET_MS } from '../../src/datapath/portion-answers.ts';
import { Portions } from '../../src/datapath/portions.ts';
import { SvmSleep } from '../../src/datapath/svm-sleep.ts';
import type { DivergenceClass } from '../../src/divergence/explained.ts';
import { PORTS_WORD } from '../../src/flow/key.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { LIMITS } from '../../src/limits.ts';
import type { Instant } from '../../src/units.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { ACK, arpFrame, CLIENT_ADDRESS, tcpFrame, VM_ADDRESS } from '../frames.ts';
import { keyOfService } from './two-paths.ts';

const KEY = keyOfService(6, 80);
const OTHER_KEY = keyOfService(6, 443);
const PORTS = { a: 1001, b: 1002, c: 1003, d: 1004 } as const;
type Client = keyof typeof PORTS;

class Bed {
  readonly time = new FakeTime();
  readonly pvm = { drained: true, exhausted: true, rests: false, blindness: null as string | null };
  readonly slabs = new SlabPool(4096, 4096);
  readonly portions: Portions;
  /** clients' ports whose flow has output that waits for its counterpart */
  readonly held = new Set<number>();
  asks = 0;
  readonly svm = new SvmSleep(() => {
    this.asks++;
  });
  looks = 0;
  private texts: string[] = [];
  private batch: string[] = [];
  private readonly batches: string[] = [];

  constructor({ on = true }: { on?: boolean } = {}) {
    this.portions = new Portions({
      slabs: this.slabs,
      limits: LIMITS,
      vm: this.pvm,
      sight: () => ({
        isAsleep: () => {
          this.looks++;
          return this.pvm.rests;
        },
        blindness: () => this.pvm.blindness,
      }),
      clock: this.time,
      timers: this.time,
      svm: this.svm,
      owner: {
        deliver: (slab, at, length) => {
          this.svm.forget();
          this.batch.push(this.slabs.buffer(slab).toString('latin1', at + 54, at + length));
        },
        delivered: () => {
          if (this.batch.length > 0) this.batches.push(this.batch.join(' '));
          this.batch = [];
        },
        isHeld: (key) => this.held.has(key[PORTS_WORD] & 0xffff),
      },
    });
    this.portions.closeGate();
    this.portions.protect();
    this.portions.openGate();
    if (on) this.diverge();
  }

  diverge(by: DivergenceClass = 'order'): void {
    for (const ms of [0, 200, 400, 600, 800])
      this.portions.diverged(KEY, by, (this.time.now() + ms) as Instant);
  }

  /** One read from the uplink: each text is that of a client, by its first letter; `-` is a bare ACK of client a. */
  input(...texts: string[]): void {
    for (const text of texts) {
      const payload = Buffer.from(text === '-' ? '' : text, 'latin1');
      this.take(
        tcpFrame({
          sourcePort: PORTS[text[0] as Client] ?? PORTS.a,
          destinationPort: 80,
          flags: ACK,
          payload,
        }),
      );
    }
    this.readEnds();
  }

  take(frame: Buffer): void {
    const slab = this.slabs.acquire();
    frame.copy(this.slabs.buffer(slab), 4);
    this.portions.take(slab, 4, frame.length);
    this.slabs.unref(slab);
  }

  /** Both VMs have sent something in the flows of these clients. */
  answer(clients: string, payload = 'answer'): void {
    for (const client of clients) {
      const slab = this.slabs.acquire();
      const frame = tcpFrame({
        ...{ source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4] },
        ...{ sourcePort: 80, destinationPort: PORTS[client as Client], flags: ACK },
        payload: Buffer.from(payload, 'latin1'),
      });
      frame.copy(this.slabs.buffer(slab), 4);
      this.portions.released(slab, 4, frame.length);
      this.slabs.unref(slab);
    }
    this.portions.compared();
  }

  readEnds(): void {
    if (this.batch.length > 0) this.batches.push(this.batch.join(' '));
    this.batch = [];
    this.portions.taken();
  }

  /** The secondary notifies. */
  svmSleeps(): void {
    if (this.svm.asleep(this.time.now())) this.portions.svmAsleep();
  }

  /** Both VMs sleep; the SVM first. */
  sleep(): void {
    this.pvm.rests = true;
    this.svmSleeps();
    this.pvm.rests = false;
  }

  /** Returns the batches that were delivered since the last call. */
  get delivered(): string[] {
    this.texts = this.batches.splice(0);
    return this.texts;
  }
}

test('until order has parted the VMs, input passes and nobody looks', () => {
  const bed = new Bed({ on: false });
  bed.input('a1', 'b1');
  bed.input('a2');
  assert.deepEqual(bed.delivered, ['a1 b1', 'a2']);
  assert.equal(bed.asks + bed.looks, 0);
  assert.equal(bed.portions.status.why, 'not-needed');
});

test('clocks and unknown causes are no reason for portions, random numbers in another order are', () => {
  const bed = new Bed({ on: false });
  for (const by of ['clock', 'unknown', 'length', 'flags'] as const) {
    bed.diverge(by);
    assert.equal(bed.portions.status.state, 'off', by);
  }
  bed.diverge('random');
  assert.equal(bed.portions.status.state, 'on');
});

test('input for a service that order does not part never waits, but at the gate', () => {
  const bed = new Bed();
  const other = (text: string) =>
    tcpFrame({ sourcePort: 7, destinationPort: 443, flags: ACK, payload: Buffer.from(text) });
  bed.input('a1');
  bed.take(other('x1'));
  bed.readEnds();
  assert.deepEqual(bed.delivered, ['x1']);
  bed.portions.closeGate();
  bed.take(other('x2'));
  bed.take(other('x3'));
  bed.readEnds();
  assert.deepEqual(bed.delivered, []);
  bed.portions.openGate();
  assert.deepEqual(bed.delivered, ['x2 x3']);
  bed.sleep();
  assert.deepEqual(bed.delivered, ['a1']);
});

for (const gate of ['open', 'closed'] as const)
  test(`nothing overtakes what waits of a service whose portions are switched off: gate ${gate}`, () => {
    const bed = new Bed();
    const frame = (text: string) =>
      tcpFrame({ sourcePort: 7, destinationPort: 443, flags: ACK, payload: Buffer.from(text) });
    const diverge = (fromMs: number, toMs: number) => {
      for (let ms = fromMs; ms <= toMs; ms += 200)
        bed.portions.diverged(OTHER_KEY, 'order', (bed.time.now() + ms) as Instant);
    };
    diverge(0, 800);
    bed.input('a1');
    bed.take(frame('x1'));
    bed.readEnds();
    if (gate === 'closed') bed.portions.closeGate();
    diverge(1000, 6000);
    if (gate === 'open') assert.deepEqual(bed.delivered, ['a1 x1']);
    bed.take(frame('x2'));
    bed.readEnds();
    assert.deepEqual(bed.delivered, gate === 'open' ? ['x2'] : []);
    if (gate === 'closed') {
      bed.portions.openGate();
      assert.equal(bed.delivered.join(' '), 'a1 x1 x2');
    }
    assert.equal(bed.portions.status.state, 'on', 'those of the other service are not');
  });

test('the next portion begins when both VMs sleep, the SVM having said so first', async () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  assert.deepEqual(bed.delivered, [], 'what went before is a portion of unknown flows');
  assert.equal(bed.asks, 1);
  bed.pvm.rests = true;
  await bed.time.pass(20);
  assert.deepEqual(bed.delivered, [], 'the SVM has not slept');
  assert.equal(bed.looks, 0);
  bed.pvm.rests = false;
  bed.svmSleeps();
  await bed.time.pass(20);
  assert.deepEqual(bed.delivered, [], 'the PVM works');
  bed.pvm.rests = true;
  bed.portions.outputSeen();
  assert.deepEqual(bed.delivered, ['a1 b1']);
  assert.equal(bed.portions.status.endedBySleep, 1);
});

test('what arrives while a portion is worked on is one portion, in order', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.input('b1', 'c1');
  bed.input('d1');
  assert.deepEqual(bed.delivered, ['a1']);
  bed.sleep();
  assert.deepEqual(bed.delivered, ['b1 c1 d1']);
});

test('one flow alone never waits, and costs no look', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  const { asks, looks } = bed;
  for (let i = 2; i < 100; i++) bed.input(`a${i}`);
  await bed.time.pass(100);
  assert.equal(bed.delivered.length, 99);
  assert.equal(bed.asks, asks);
  assert.equal(bed.looks, looks);
  assert.equal(bed.portions.status.waitedFrames, 1);
});

test('a flow that joins waits for the end of what another has begun, and then has it alone', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.input('b1');
  bed.sleep();
  bed.input('b2');
  bed.input('b3');
  assert.deepEqual(bed.delivered, ['a1', 'b1', 'b2', 'b3']);
});

test('a second frame of a flow is not in one portion with its first if another flow lies between', () => {
  const bed = new Bed();
  bed.input('a1', 'b1', 'b2', 'a2', 'c1', 'b3');
  bed.sleep();
  assert.deepEqual(bed.delivered, ['a1 b1 b2']);
  bed.sleep();
  assert.deepEqual(bed.delivered, ['a2 c1 b3']);
  bed.sleep();
  assert.deepEqual(bed.delivered, []);
});

test('frames without work pass through a portion, and wait behind what waits', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.take(arpFrame());
  bed.input('-');
  assert.equal(bed.delivered.length, 2);
  bed.input('b1', '-');
  assert.deepEqual(bed.delivered, []);
  bed.sleep();
  assert.equal(bed.delivered.length, 1, 'both went');
});

test('a portion of several flows asks the SVM before anything waits', () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  bed.sleep();
  assert.deepEqual(bed.delivered, ['a1 b1']);
  assert.equal(bed.asks, 2);
  bed.svmSleeps();
  bed.pvm.rests = true;
  bed.input('a2');
  assert.deepEqual(bed.delivered, ['a2'], 'it knows already that the SVM sleeps');
});

test('no input waits longer than the bound, and all that has waited goes', async () => {
  const bed = new Bed();
  bed.input('a1');
  await bed.time.pass(LIMITS.portionMsMax - 1);
  bed.input('b1', 'a2');
  assert.deepEqual(bed.delivered, []);
  assert.equal(bed.portions.waitedMs(bed.time.now()), LIMITS.portionMsMax - 1);
  await bed.time.pass(1);
  assert.deepEqual(bed.delivered, ['a1']);
  assert.equal(bed.portions.status.boundMs, LIMITS.portionMsMax / 2);
  await bed.time.pass(LIMITS.portionMsMax / 2 - 1);
  assert.deepEqual(bed.delivered, ['b1 a2']);
  assert.equal(bed.portions.status.endedByBound, 2);
});

test('a portion also ends once both VMs have answered it and were quiet', async () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  bed.sleep();
  bed.input('c1');
  bed.answer('a');
  await bed.time.pass(QUIET_MS);
  bed.answer('b', '');
  await bed.time.pass(QUIET_MS);
  assert.deepEqual(bed.delivered, ['a1 b1'], 'an ACK is no answer');
  bed.answer('b');
  await bed.time.pass(QUIET_MS - 1);
  bed.answer('b');
  await bed.time.pass(QUIET_MS - 1);
  assert.deepEqual(bed.delivered, [], 'b was not quiet');
  await bed.time.pass(1);
  assert.deepEqual(bed.delivered, ['c1']);
  assert.equal(bed.portions.status.endedByAnswers, 1);
});

test('a portion is not over while the SVM owes output of one of its flows', async () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  bed.sleep();
  bed.input('c1');
  bed.held.add(PORTS.a);
  bed.answer('ab');
  await bed.time.pass(10);
  assert.deepEqual(bed.delivered, ['a1 b1']);
  bed.held.clear();
  await bed.time.pass(QUIET_MS);
  assert.deepEqual(bed.delivered, ['c1']);
});

test('more work for an answered flow asks for another answer', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.answer('a');
  bed.input('a2');
  bed.input('b1');
  await bed.time.pass(10);
  assert.deepEqual(bed.delivered, ['a1', 'a2']);
  bed.answer('a');
  await bed.time.pass(QUIET_MS);
  assert.deepEqual(bed.delivered, ['b1']);
});

test('input that comes when the answers are long there begins a portion at once, and nobody looks', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.answer('a');
  await bed.time.pass(QUIET_MS);
  const { asks, looks } = bed;
  bed.input('b1');
  assert.deepEqual(bed.delivered, ['a1', 'b1']);
  assert.deepEqual([bed.asks, bed.looks], [asks, looks]);
});

test('answers to what came before portions end none', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.answer('a');
  await bed.time.pass(10);
  assert.deepEqual(bed.delivered, [], 'what went before is a portion of unknown flows');
});

test('what a commit releases while the gate is closed is an answer', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.input('b1');
  bed.portions.closeGate();
  bed.answer('a');
  bed.portions.openGate();
  await bed.time.pass(QUIET_MS);
  assert.deepEqual(bed.delivered, ['a1', 'b1']);
});

test('in a guest that never sleeps the answers end the portions that the bound began', async () => {
  const bed = new Bed();
  bed.input('a1');
  await bed.time.pass(LIMITS.portionMsMax);
  assert.deepEqual(bed.delivered, ['a1']);
  bed.input('b1');
  bed.answer('a');
  await bed.time.pass(QUIET_MS);
  assert.deepEqual(bed.delivered, ['b1']);
  assert.equal(bed.portions.status.endedByBound, 1);
});

test('a gate stops the wait for quiet, and its opening begins it again', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.input('b1');
  bed.answer('a');
  bed.portions.closeGate();
  await bed.time.pass(10);
  assert.deepEqual(bed.delivered, ['a1']);
  bed.portions.openGate();
  assert.deepEqual(bed.delivered, ['b1']);
});

test('a guest that never sleeps shortens the bound, and one that sleeps lengthens it again', async () => {
  const bed = new Bed();
  for (let i = 0; i < 10; i++) {
    bed.input('a1', 'b1');
    await bed.time.pass(LIMITS.portionMsMax);
  }
  assert.equal(bed.portions.status.boundMs, LIMITS.portionMsMin);
  for (let i = 0; i < 10; i++) {
    bed.input('a1', 'b1');
    bed.sleep();
  }
  assert.equal(bed.portions.status.boundMs, LIMITS.portionMsMax);
});

test('clients that send without pause make nobody wait longer than the bound', async () => {
  const bed = new Bed();
  let seenMs = 0;
  for (let ms = 0; ms < 3000; ms++) {
    bed.input('a', 'b', 'c');
    await bed.time.pass(1);
    seenMs = Math.max(seenMs, bed.portions.waitedMs(bed.time.now()));
  }
  assert.ok(seenMs <= LIMITS.portionMsMax, `${seenMs} ms`);
  assert.ok(bed.portions.status.boundMs === LIMITS.portionMsMin);
});

test('the size of a portion follows the time that it takes', async () => {
  const bed = new Bed();
  const full = () => bed.input(...Array.from({ length: 70 }, (_, i) => (i < 35 ? 'a' : 'b')));
  full();
  bed.sleep();
  await bed.time.pass(90);
  bed.sleep();
  assert.equal(bed.portions.status.size, LIMITS.portionFramesMax / 2);
  for (let i = 0; i < 10; i++) {
    full();
    bed.sleep();
  }
  assert.equal(bed.portions.status.size, LIMITS.portionFramesMax);
});

test('time in which nothing waited does not count as work', async () => {
  const bed = new Bed();
  bed.input('a1', 'b1');
  bed.sleep();
  await bed.time.pass(5000);
  bed.input('a2');
  bed.sleep();
  assert.equal(bed.portions.status.size, LIMITS.portionFramesMax);
});

test('the gate retains everything, and the portion goes on after it', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.input('b1');
  bed.portions.closeGate();
  bed.input('c1');
  bed.pvm.rests = true;
  bed.svmSleeps();
  bed.portions.outputSeen();
  await bed.time.pass(1000);
  assert.deepEqual(bed.delivered, ['a1'], 'neither sleep nor the bound opens the gate');
  const { asks } = bed;
  bed.pvm.rests = false;
  bed.svm.forget();
  bed.portions.openGate();
  assert.deepEqual(bed.delivered, []);
  assert.equal(bed.asks, asks + 1, 'the SVM is asked again: it has another state');
  bed.sleep();
  assert.deepEqual(bed.delivered, ['b1 c1']);
});

test('a checkpoint ends the watch of a PVM that does not sleep yet', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.sleep();
  bed.input('b1');
  bed.svmSleeps();
  bed.portions.closeGate();
  bed.pvm.rests = true;
  const { looks } = bed;
  await bed.time.pass(1000);
  assert.deepEqual([bed.looks, bed.delivered], [looks, ['a1']]);
});

test('the wait at the gate does not count to the bound', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.portions.closeGate();
  await bed.time.pass(1000);
  bed.portions.openGate();
  await bed.time.pass(LIMITS.portionMsMax - 1);
  assert.deepEqual(bed.delivered, []);
  await bed.time.pass(1);
  assert.deepEqual(bed.delivered, ['a1']);
});

test('checkpoints that follow each other do not begin the wait again', async () => {
  const bed = new Bed();
  bed.input('a1');
  for (let ms = 0; ms < LIMITS.portionMsMax - 50; ms += 50) {
    await bed.time.pass(50);
    bed.portions.closeGate();
    await bed.time.pass(20);
    bed.portions.openGate();
  }
  assert.deepEqual(bed.delivered, []);
  await bed.time.pass(50);
  assert.deepEqual(bed.delivered, ['a1']);
});

test('without portions the gate opens for all that waits', () => {
  const bed = new Bed({ on: false });
  bed.portions.closeGate();
  bed.input('a1', 'b1', 'a2');
  bed.portions.openGate();
  assert.deepEqual(bed.delivered, ['a1 b1 a2']);
});

test('a VM that is alone gets what waits, and everything from then on', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.portions.goAlone();
  bed.input('b1');
  assert.deepEqual(bed.delivered, ['a1', 'b1']);
  assert.equal(bed.portions.status.why, 'alone');
});

test('a VM whose sleep cannot be seen gets everything, and the status says why', async () => {
  const bed = new Bed();
  bed.input('a1');
  bed.pvm.blindness = 'hidden';
  await bed.time.pass(LIMITS.portionMsMax);
  bed.input('b1');
  assert.deepEqual(bed.delivered, ['a1', 'b1']);
  const { state, why, blindness } = bed.portions.status;
  assert.deepEqual({ state, why, blindness }, { state: 'off', why: 'blind', blindness: 'hidden' });
});

test('a secondary that cannot see its VM sleep ends portions at once', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.svm.blindness = 'hidepid';
  bed.portions.svmBlind();
  assert.deepEqual(bed.delivered, ['a1']);
  assert.equal(bed.portions.status.blindness, 'hidepid');
  bed.portions.goAlone();
  bed.svm.blindness = null;
  bed.portions.closeGate();
  bed.portions.protect();
  bed.portions.openGate();
  assert.equal(bed.portions.status.state, 'on', 'another secondary may see');
});

test('an SVM that sends something by itself after it was seen asleep is asked again', () => {
  const bed = new Bed();
  bed.input('a1');
  bed.svmSleeps();
  bed.svm.outputSeen();
  const { asks } = bed;
  bed.pvm.rests = true;
  bed.portions.outputSeen();
  assert.deepEqual(bed.delivered, []);
  assert.equal(bed.asks, asks + 1);
  bed.svmSleeps();
  assert.deepEqual(bed.delivered, ['a1']);
});

test('no frame is left when the path is over', async () => {
  const bed = new Bed();
  bed.input('a1', 'b1', '-');
  bed.portions.discard();
  await bed.time.pass(1000);
  assert.deepEqual(bed.delivered, []);
  assert.equal(bed.slabs.inUse, 0);
});
