import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HALF_FRAMES_MAX, LEAD_MS_MAX, SAMPLE_MS_MIN, SAMPLES_MAX } from '../../src/datapath/clock-lead.ts';
import { tcp } from '../compare/rig.ts';
import { ACK, padded, RST, SYN, timestamps } from '../frames.ts';
import { TwoPaths } from './two-paths.ts';

type Vm = 'pvm' | 'svm';

/** Two guests with a clock each, and one connection: what both send on it is the same but for the time in it. */
class TwoGuests {
  readonly pair = new TwoPaths();
  leadMs = 0;
  /** where the connection's times begin */
  startMs = 0;
  private isn: Record<Vm, number> = { pvm: 1000, svm: 1000 };
  private clientPort = 40_000;
  private offset = 0;

  /** The connection is older than the pair. */
  static protected(leadMs: number, startMs = 0): TwoGuests {
    const guests = new TwoGuests();
    guests.leadMs = leadMs;
    guests.startMs = startMs;
    guests.sends('pvm');
    guests.offset++;
    guests.pair.checkpoint();
    return guests;
  }

  get lead() {
    return this.pair.primary.clockLead.lead();
  }

  checkpoint(): void {
    this.pair.checkpoint();
    this.isn.svm = this.isn.pvm;
  }

  /** Returns the timestamps option that a VM puts into a segment now. */
  time(vm: Vm): number[] {
    const ms = this.pair.nowMs + this.startMs + (vm === 'svm' ? this.leadMs : 0);
    return [1, 1, ...timestamps(Math.floor(ms), 7)];
  }

  sends(vm: Vm, options = this.time(vm)): void {
    const seq = this.isn[vm] + this.offset;
    this.writes(vm, tcp({ seq, ack: 501, text: 'x', options, ...this.connection }));
  }

  private get connection() {
    return { flags: ACK, destinationPort: this.clientPort };
  }

  private writes(vm: Vm, frame: Buffer): void {
    this.pair[vm].write(frame);
    this.pair.settle();
  }

  /** What is sent from now on is the next of the stream. */
  next(): void {
    this.offset++;
  }

  /** The same for another connection, whose times begin elsewhere. */
  sendsElsewhere(vm: Vm): void {
    const [, , ...option] = this.time(vm);
    option[2] ^= 0x7f;
    this.writes(vm, tcp({ ...this.connection, destinationPort: 5, text: 'y', options: [1, 1, ...option] }));
  }

  /** A segment with a time that is not the guest's, and these flags. */
  sendsFlags(vm: Vm, flags: number): void {
    const options = [1, 1, ...timestamps(this.pair.nowMs + 300, 0)];
    this.writes(vm, tcp({ ...this.connection, seq: 77, ack: 501, flags, options }));
  }

  /** One segment of each VM, made at once; the SVM's arrives `linkMs` later. */
  replyOverLink(linkMs: number): void {
    this.pair.nowMs += 2 * SAMPLE_MS_MIN;
    const made = this.time('svm');
    this.sends('pvm');
    this.pair.nowMs += linkMs;
    this.sends('svm', made);
    this.offset++;
  }

  /** One segment of each VM, the SVM's made and here later by `lagMs`. */
  reply(lagMs: number, options: Partial<Record<Vm, number[]>> = {}): void {
    const [first, second]: Vm[] = lagMs < 0 ? ['svm', 'pvm'] : ['pvm', 'svm'];
    this.pair.nowMs += 2 * SAMPLE_MS_MIN;
    this.sends(first, options[first]);
    this.pair.nowMs += Math.abs(lagMs);
    this.sends(second, options[second]);
    this.offset++;
  }

  /** Both VMs begin a connection, each with a number of its own, the SVM later by `lagMs`. */
  begin(clientPort: number, lagMs: number): void {
    this.isn = { pvm: 300_000, svm: 700_000 };
    this.clientPort = clientPort;
    this.offset = 1;
    this.writes('pvm', this.synAck('pvm'));
    this.pair.nowMs += lagMs;
    this.writes('svm', this.synAck('svm'));
  }

  private synAck(vm: Vm): Buffer {
    return tcp({
      ...this.connection,
      seq: this.isn[vm],
      ack: 501,
      flags: SYN | ACK,
      options: this.time(vm),
    });
  }

  /** The SVM sends datagrams of another flow. */
  others(count: number): void {
    this.pair.svm.send(...Array(count).fill('another flow'));
    this.pair.settle();
  }
}

function assertNear(actual: number | null, expected: number, errorMs: number): void {
  assert.ok(actual !== null && Math.abs(actual - expected) <= errorMs, `${actual} beside ${expected}`);
}

test('any lead shows to the millisecond, however late or early the SVM is, and wherever its times begin', () => {
  // Not fc.double: nearly all of its numbers are about zero.
  const ms = (min: number, max: number) =>
    fc.integer({ min: 16 * min, max: 16 * max }).map((part) => part / 16);
  const start = fc.oneof(
    fc.nat(0xffffffff),
    ...[2 ** 31, 2 ** 32].map((end) => fc.integer({ min: end - 2500, max: end - 1 })),
  );
  fc.assert(
    fc.property(
      ms(-300, 900),
      fc.array(ms(-50, 50), { minLength: 1, maxLength: 20 }),
      start,
      (leadMs, lags, startMs) => {
        const guests = TwoGuests.protected(leadMs, startMs);
        assert.deepEqual(guests.lead, { epoch: null, smoothed: null });
        for (const lagMs of lags) guests.reply(lagMs);
        assertNear(guests.lead.epoch, leadMs, 1);
        assert.equal(guests.lead.smoothed, guests.lead.epoch);
        assert.deepEqual(guests.pair.diverged, []);
        guests.pair.assertNoLeak();
      },
    ),
    { numRuns: 60 },
  );
});

test('times that wrap between the two halves show the lead', () => {
  for (const end of [2 ** 31, 2 ** 32]) {
    const guests = TwoGuests.protected(5);
    guests.startMs = end - 1 - (guests.pair.nowMs + 2 * SAMPLE_MS_MIN);
    guests.reply(0);
    assert.equal(guests.lead.epoch, 5);
  }
});

test('the way of the SVM over the link makes the lead seem less', () => {
  const guests = TwoGuests.protected(10);
  guests.replyOverLink(3);
  assert.equal(guests.lead.epoch, 7);
});

test('one late frame does not move the median', () => {
  const guests = TwoGuests.protected(8);
  for (const linkMs of [0, 40, 0]) guests.replyOverLink(linkMs);
  assert.equal(guests.lead.epoch, 8);
});

test('each commit draws another lead, and an eighth of it counts for the smoothed one', () => {
  const guests = TwoGuests.protected(8);
  guests.reply(2);
  guests.checkpoint();
  assert.deepEqual(guests.lead, { epoch: null, smoothed: 8 });
  guests.leadMs = 16;
  guests.reply(-3);
  assert.deepEqual(guests.lead, { epoch: 16, smoothed: 9 });
  guests.checkpoint();
  guests.checkpoint();
  assert.deepEqual(guests.lead, { epoch: null, smoothed: 9 });
  guests.pair.primary.goAlone(2);
  assert.deepEqual(guests.lead, { epoch: null, smoothed: null });
});

test('a guest without timestamps shows no lead', () => {
  const guests = TwoGuests.protected(8);
  for (let i = 0; i < 5; i++) guests.reply(i, { pvm: [], svm: [] });
  for (let i = 0; i < 5; i++) guests.reply(i, { pvm: [] });
  for (let i = 0; i < 5; i++) guests.reply(-i, { svm: [] });
  assert.deepEqual(guests.lead, { epoch: null, smoothed: null });
});

test('a connection that began in this epoch shows no lead: its times were set equal', () => {
  const guests = TwoGuests.protected(50);
  guests.pair.nowMs += 1;
  guests.begin(40_001, 4);
  for (let i = 0; i < 5; i++) guests.reply(4);
  assert.deepEqual(guests.lead, { epoch: null, smoothed: null });
  assert.equal(guests.pair.primary.releasedBy.match, 6);
  guests.checkpoint();
  guests.reply(4);
  assert.equal(guests.lead.epoch, 50);
});

test('the halves of a sample are segments of one connection, neither of them a SYN or RST', () => {
  const guests = TwoGuests.protected(12);
  guests.pair.nowMs += SAMPLE_MS_MIN;
  guests.sends('pvm');
  guests.sendsElsewhere('svm');
  guests.sendsFlags('svm', SYN | ACK);
  guests.sendsFlags('svm', RST | ACK);
  assert.equal(guests.lead.epoch, null);
  guests.sends('svm');
  assert.equal(guests.lead.epoch, 12);
});

test('a commit parts the halves of a sample', () => {
  const guests = TwoGuests.protected(12);
  guests.pair.nowMs += SAMPLE_MS_MIN;
  guests.sends('pvm');
  guests.checkpoint();
  guests.next();
  guests.sends('svm');
  assert.equal(guests.lead.epoch, null);
});

test('a connection that begins while its second half is awaited is another one', () => {
  const guests = TwoGuests.protected(50);
  guests.pair.nowMs += SAMPLE_MS_MIN;
  guests.sends('pvm');
  guests.begin(40_000, 0);
  guests.sends('svm');
  assert.equal(guests.lead.epoch, null);
});

test('what the SVM sent before its epoch was committed here shows no lead', () => {
  const guests = TwoGuests.protected(8);
  const { pair } = guests;
  pair.primary.closeGate();
  pair.settle();
  pair.commitSecondary();
  pair.nowMs += 1;
  guests.sends('svm');
  pair.nowMs += 8;
  pair.primary.commit(pair.primaryLink);
  pair.primary.openGate();
  assert.equal(pair.primary.comparator.secondary.frames, 1);
  pair.nowMs += 1;
  guests.sends('pvm');
  assert.equal(pair.primary.releasedBy.match, 1);
  assert.equal(guests.lead.epoch, null);
});

test('garbage in the options of either VM breaks nothing, and shows no lead beyond the limit', () => {
  const options = fc.oneof(
    fc.array(fc.nat(255), { maxLength: 40 }).map((bytes) => padded(bytes.slice(0, 40))),
    fc.nat(0xffffffff).map((time) => padded(timestamps(time, 0))),
    fc.constantFrom<number[]>(
      [8, 10, 0, 0],
      [1, 1, 8, 10],
      [8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      [8, 0, 0, 0],
    ),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(options, options), { maxLength: 8 }), (rounds) => {
      const guests = TwoGuests.protected(0);
      for (const [pvm, svm] of rounds) {
        guests.reply(1, { pvm, svm });
        const { epoch } = guests.lead;
        assert.ok(epoch === null || Math.abs(epoch) <= LEAD_MS_MAX);
      }
      guests.checkpoint();
      guests.pair.assertNoLeak();
    }),
  );
});

test('a lead beyond the limit is no time, and does not count', () => {
  const guests = TwoGuests.protected(LEAD_MS_MAX + 2);
  guests.reply(0);
  guests.leadMs = -LEAD_MS_MAX - 2;
  guests.reply(0);
  assert.equal(guests.lead.epoch, null);
  guests.leadMs = LEAD_MS_MAX;
  guests.reply(0);
  assert.equal(guests.lead.epoch, LEAD_MS_MAX);
});

test('the first samples of an epoch count, and one in each 10 ms', () => {
  const guests = TwoGuests.protected(5);
  for (let i = 0; i < SAMPLES_MAX; i++) guests.reply(0);
  guests.leadMs = 90;
  for (let i = 0; i < 2 * SAMPLES_MAX; i++) guests.reply(0);
  assert.equal(guests.lead.epoch, 5);
  guests.checkpoint();
  guests.reply(0);
  guests.leadMs = 5;
  guests.pair.nowMs -= SAMPLE_MS_MIN + 1;
  guests.reply(0);
  assert.equal(guests.lead.epoch, 90);
});

test('the second half is not waited for beyond so many frames', () => {
  const guests = TwoGuests.protected(5);
  guests.pair.nowMs += SAMPLE_MS_MIN;
  guests.sends('pvm');
  guests.others(HALF_FRAMES_MAX - 1);
  guests.sends('svm');
  assert.equal(guests.lead.epoch, 5);
  guests.checkpoint();
  guests.next();
  guests.pair.nowMs += SAMPLE_MS_MIN;
  guests.sends('pvm');
  guests.others(HALF_FRAMES_MAX);
  guests.sends('svm');
  assert.equal(guests.lead.epoch, null);
});
