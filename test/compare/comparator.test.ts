import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LIMITS } from '../../src/limits.ts';
import type { Instant } from '../../src/units.ts';
import {
  ACK,
  arpFrame,
  CLIENT_ADDRESS,
  ethernet,
  FIN,
  fragmentExtension,
  icmpFrame,
  ipv4,
  ipv6,
  RST,
  SYN,
  u32,
  VM_ADDRESS,
} from '../frames.ts';
import { echoReply, Rig, tcp, udp, withoutNumbers } from './rig.ts';

const WAITS = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };

test('harmless frames leave at once, and those of the SVM need no keeping', () => {
  const rig = new Rig();
  assert.equal(rig.pvm(arpFrame()), 1);
  assert.equal(rig.released[0].cause, 'harmless');
  rig.svm(arpFrame());
  rig.assertConfirmed(1);
  assert.equal(rig.comparator.flowCount, 0);
  rig.assertEmpty();
});

test('a frame whose lengths lie is dropped and counted, or confirmed', () => {
  const rig = new Rig();
  const short = tcp({ text: 'cut short' }).subarray(0, 40);
  assert.equal(rig.pvm(short), 0);
  assert.equal(rig.comparator.counters.malformed, 1);
  rig.svm(short);
  rig.assertConfirmed(1);
  rig.assertEmpty();
});

test('an unknown EtherType is compared whole', () => {
  const rig = new Rig();
  const frame = (text: string) => ethernet(0x88b5, Buffer.from(text));
  rig.pvm(frame('same'));
  assert.equal(rig.svm(frame('same')), 1);
  rig.pvm(frame('this'));
  rig.svm(frame('that'));
  assert.deepEqual(rig.diverged, ['diverged-bytes ethertype 0x88b5 <-> 52:54:00:12:34:56']);
});

test('frames that are not IP match per group: publishers may send in any order', () => {
  const rig = new Rig();
  const publish = (group: number, count: number) =>
    ethernet(0x88b8, Buffer.from(`publisher ${group} says ${count}`), {
      destinationMac: `01:0c:cd:01:00:0${group}`,
    });
  for (let count = 0; count < 50; count++) {
    rig.pvm(publish(1, count));
    rig.pvm(publish(2, count));
    rig.svm(publish(2, count));
    rig.svm(publish(1, count));
  }
  assert.deepEqual(rig.diverged, []);
  assert.equal(rig.released.length, 100);
  rig.assertConfirmed(100);
  rig.assertEmpty();
});

test('a frame that is not IP does not leave for one that the SVM sent to another address', () => {
  for (const destinationMac of ['01:0c:cd:01:00:02', '01:0d:cd:01:00:01', '02:00:00:00:00:09']) {
    const rig = new Rig();
    const frame = (to: string) => ethernet(0x88b8, Buffer.from('the same'), { destinationMac: to });
    rig.pvm(frame('01:0c:cd:01:00:01'));
    assert.equal(rig.svm(frame(destinationMac)), 0);
    assert.equal(rig.held, 1);
    assert.equal(rig.comparator.overdue(1000 as Instant, WAITS), 'wait-primary');
  }
});

test('the packets of two ESP and AH associations may be sent in any order, those of one may not', () => {
  for (const [protocol, before] of [
    [50, 0],
    [51, 4],
  ]) {
    const packet = (spi: number, text: string) =>
      ethernet(
        0x0800,
        ipv4({ protocol }, Buffer.concat([Buffer.alloc(before), u32(spi), Buffer.from(text)])),
      );
    const rig = new Rig();
    for (const frame of [packet(0xc0000001, 'one'), packet(0xc0000002, 'two')]) rig.pvm(frame);
    assert.equal(rig.svm(packet(0xc0000002, 'two')), 1);
    assert.equal(rig.svm(packet(0xc0000001, 'one')), 1);
    rig.pvm(packet(1, 'first'));
    rig.svm(packet(1, 'other'));
    assert.equal(rig.diverged.length, 1);
  }
});

test('a divergence comes with the two frames that differ', () => {
  const rig = new Rig();
  rig.svm(udp('equal'));
  rig.pvm(udp('equal'));
  const [svm, pvm] = [udp('right'), udp('wrong')];
  rig.svm(svm);
  rig.pvm(pvm);
  const segment = (text: string) => tcp({ seq: 100, ack: 1, text });
  rig.pvm(segment('from the primary'));
  rig.svm(segment('from the secondary'));
  const signed = tcp({
    seq: 7,
    flags: SYN,
    destinationPort: 40001,
    options: [19, 18, ...Array(18).fill(1)],
  });
  rig.pvm(signed);
  assert.deepEqual(rig.divergedFrames, [
    [pvm, svm],
    [segment('from the primary'), segment('from the secondary')],
    [signed, null],
  ]);
  rig.commit();
  rig.assertEmpty();
});

test('a commit releases everything in order of arrival, whatever its flow, and traffic goes on', () => {
  const rig = new Rig();
  const frames = [
    udp('a', 1),
    tcp({ seq: 1, ack: 1, text: 'tcp' }),
    udp('b', 2),
    echoReply(1, 1, 'ping'),
    udp('c', 1),
    tcp({ flags: SYN, sourcePort: 81 }),
    udp('d', 2),
  ];
  for (const frame of frames) rig.pvm(frame);
  rig.svm(udp('other', 3));
  rig.svm(tcp({ seq: 1, ack: 1, text: 'TCP' }));
  assert.equal(rig.commit(), frames.length);
  assert.deepEqual(
    rig.released.map(({ bytes, cause }) => `${cause} ${bytes.toString('hex')}`),
    frames.map((bytes) => `commit ${bytes.toString('hex')}`),
  );
  assert.deepEqual(rig.confirmed, [], 'a commit forgets SVM frames, it does not confirm them');
  rig.assertEmpty();
  for (const frame of [udp('e', 1), tcp({ seq: 4, ack: 1, text: 'more' }), echoReply(1, 2, 'ping')]) {
    rig.pvm(frame);
    assert.equal(rig.svm(frame), 1);
  }
  rig.assertConfirmed(3);
});

test('all columns are there for a frame that is held again in another one’s place', () => {
  const rig = new Rig();
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 5; i++) rig.svm(udp(`${round} ${i}`));
    for (let i = 0; i < 5; i++) assert.equal(rig.pvm(udp(`${round} ${i}`)), 1);
    rig.assertEmpty();
  }
});

test('overdue: data after dataMs, an ACK after ackMs, the SVM after secondaryMs', () => {
  const rig = new Rig();
  const { comparator } = rig;
  const synAck = tcp({ flags: SYN | ACK, seq: 0, ack: 100 });
  rig.pvm(synAck);
  rig.svm(synAck);
  assert.equal(comparator.overdue(1e9 as Instant, WAITS), null);
  rig.nowMs = 1000;
  // Further than any window: it must wait.
  rig.pvm(tcp({ seq: 1, ack: 0x50000000 }));
  assert.equal(comparator.oldestWaitMs(1049 as Instant), 49);
  assert.equal(comparator.overdue(1049 as Instant, WAITS), null);
  assert.equal(comparator.overdue(1050 as Instant, WAITS), 'wait-primary');
  rig.nowMs = 1005;
  rig.pvm(udp('nobody says that'));
  assert.equal(comparator.overdue(1014 as Instant, WAITS), null);
  assert.equal(comparator.overdue(1015 as Instant, WAITS), 'wait-primary', 'younger, but data');
  rig.commit();
  assert.equal(comparator.overdue(1e9 as Instant, WAITS), null);
  assert.equal(comparator.oldestWaitMs(1e9 as Instant), 0);
  rig.nowMs = 2000;
  rig.svm(udp('only the SVM'));
  assert.equal(comparator.overdue(2099 as Instant, WAITS), null);
  assert.equal(comparator.overdue(2100 as Instant, WAITS), 'wait-secondary');
});

test('an ACK that is owed, because the SVM does not acknowledge as much, has the longest time', () => {
  const rig = new Rig();
  const { comparator } = rig;
  rig.pvm(tcp({ seq: 1, ack: 200, text: 'x' }));
  assert.equal(comparator.overdue(10 as Instant, WAITS), 'wait-primary');
  rig.svm(tcp({ seq: 1, ack: 100, text: 'x' }));
  assert.equal(comparator.overdue(999 as Instant, WAITS), null);
  assert.equal(comparator.overdue(1000 as Instant, WAITS), 'wait-primary');
  rig.nowMs = 900;
  rig.svm(tcp({ seq: 2, ack: 150 }));
  assert.equal(comparator.overdue(1899 as Instant, WAITS), null, 'the SVM has acknowledged more');
  assert.equal(comparator.overdue(1900 as Instant, WAITS), 'wait-primary');
  rig.svm(tcp({ seq: 2, ack: 200 }));
  assert.equal(comparator.overdue(1e9 as Instant, WAITS), null);
  rig.assertEmpty();
});

test('alone, every frame leaves, and every stream is known when the VM is protected again', () => {
  const rig = new Rig();
  rig.alone(tcp({ seq: 1, ack: 50, text: 'abc' }));
  rig.alone(udp('datagram'));
  assert.deepEqual(
    rig.released.map(({ cause }) => cause),
    ['alone', 'alone'],
  );
  rig.commit();
  assert.equal(rig.pvm(tcp({ seq: 2, ack: 50, text: 'bc' })), 1, 'a repetition');
  assert.equal(rig.pvm(tcp({ seq: 4, ack: 51 })), 0, 'a new ACK');
  assert.equal(rig.svm(tcp({ seq: 4, ack: 51 })), 1);
  rig.assertEmpty();
});

/** Of a frame with the IPv4 header at its usual place: another client's. */
function fromClient(frame: Buffer, client: number): Buffer {
  const DESTINATION_AT = 30;
  frame.writeUInt32BE(0x0b000000 + client, DESTINATION_AT);
  return frame;
}

test('a full flow table forgets a flow without held frames; if there is none, nothing is lost and a commit heals', () => {
  const flowsMax = 100;
  const rig = new Rig(256, 512, { flowsMax });
  const frame = udp('x');
  for (let client = 0; client < 3 * flowsMax; client++) {
    rig.pvm(fromClient(frame, client));
    assert.equal(rig.svm(frame), 1);
  }
  assert.equal(rig.comparator.flowCount, flowsMax);
  assert.equal(rig.comparator.counters.flowsEvicted, 2 * flowsMax);
  rig.released.length = 0;
  for (let client = 0; client < flowsMax; client++) rig.pvm(fromClient(frame, client));
  assert.equal(rig.comparator.pressure(), null);
  assert.equal(rig.svm(fromClient(frame, flowsMax)), 0);
  assert.equal(rig.comparator.counters.secondaryDropped, 1);
  assert.equal(rig.comparator.pressure(), 'limit-flows', 'what the PVM says there waits in vain');
  assert.equal(rig.comparator.isFull(0), false, 'but what it says elsewhere does not');
  assert.equal(rig.pvm(frame), 0);
  assert.equal(rig.comparator.isFull(0), true);
  assert.equal(rig.svm(fromClient(frame, 0)), 1, 'flows with a place go on');
  assert.equal(rig.pvm(fromClient(frame, flowsMax)), 0, 'none overtakes what is held without one');
  assert.equal(rig.pvm(fromClient(frame, flowsMax)), 0, 'nor when there is room for it again');
  rig.svm(frame);
  rig.released.length = 0;
  assert.equal(rig.commit(), flowsMax + 2);
  assert.ok(rig.released.at(-1)?.bytes.equals(fromClient(frame, flowsMax)));
  assert.equal(rig.comparator.pressure(), null);
  assert.equal(rig.comparator.flowCount, flowsMax, 'nothing is wiped');
  rig.pvm(frame);
  assert.equal(rig.svm(frame), 1, 'there is room again');
  rig.commit();
  rig.assertEmpty();
});

test('a flood of 200 000 SYNs costs the flood its flows, and the established ones nothing', () => {
  const rig = new Rig(256, 64);
  const port = (sourcePort: number) => ({ sourcePort, ack: 501 });
  const established = [81, 82, 83];
  const synAck = (sourcePort: number) => tcp({ ...port(sourcePort), flags: SYN | ACK, seq: 1000 });
  const both = (frame: Buffer) => {
    rig.pvm(frame);
    assert.equal(rig.svm(frame), 1);
  };
  for (const sourcePort of established) {
    both(synAck(sourcePort));
    both(tcp({ ...port(sourcePort), seq: 1001, text: 'a' }));
  }
  const answer = synAck(80);
  for (let client = 0; client < 200_000; client++) {
    both(fromClient(answer, client));
    rig.released.length = 0;
    rig.syns.length = 0;
    rig.confirmed.length = 0;
    if (client % 10_000 !== 0) continue;
    const seq = 1002 + client / 10_000;
    for (const sourcePort of established) both(tcp({ ...port(sourcePort), seq, text: 'b' }));
  }
  assert.equal(rig.comparator.pressure(), null);
  assert.equal(rig.comparator.flowCount, LIMITS.flowsMax);
  for (const sourcePort of established) {
    // Only a flow that is still known can tell that this is a retransmission.
    assert.equal(rig.pvm(tcp({ ...port(sourcePort), seq: 1001, text: 'a' })), 1);
  }
  assert.deepEqual(rig.diverged, []);
  rig.assertEmpty();
});

test('a flood that only the PVM replies to costs checkpoints, and stops no established flow', () => {
  const flowsMax = 64;
  const rig = new Rig(256, 512, { flowsMax });
  const segment = (seq: number) => tcp({ seq, ack: 501, text: 'x' });
  rig.pvm(segment(1));
  rig.svm(segment(1));
  const answer = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  let commits = 0;
  for (let client = 0; client < 500; client++) {
    rig.pvm(fromClient(answer, client));
    if (rig.comparator.pressure() !== null) {
      assert.equal(rig.comparator.pressure(), 'limit-flows');
      rig.pvm(segment(2 + commits));
      assert.equal(rig.svm(segment(2 + commits)), 1);
      rig.commit();
      commits++;
    }
  }
  assert.ok(commits > 0);
  assert.equal(rig.released.length + rig.held, 501 + commits, 'no PVM frame is lost');
});

test('connections that are over are forgotten: soon after an RST, in time after a FIN', () => {
  const rig = new Rig();
  const { comparator } = rig;
  const both = (frame: Buffer) => {
    rig.pvm(frame);
    rig.svm(frame);
  };
  for (let client = 0; client < 20; client++) both(fromClient(tcp({ seq: 1, ack: 1, text: 'x' }), client));
  both(fromClient(tcp({ flags: RST, seq: 2 }), 0));
  rig.commit();
  assert.equal(comparator.flowCount, 19);
  assert.equal(comparator.tcpFlows, 19);
  for (let client = 5000; client < 6000; client++) both(fromClient(tcp({ flags: RST, seq: 2 }), client));
  assert.ok(comparator.flowCount < 30, 'refusals leave nothing behind');
  rig.commit();
  assert.equal(comparator.flowCount, 19);
  for (let client = 1; client < 10; client++)
    both(fromClient(tcp({ flags: ACK | FIN, seq: 2, ack: 1 }), client));
  rig.nowMs = LIMITS.flowClosedMsMax - 1;
  for (let client = 100; client < 110; client++) both(fromClient(udp('x'), client));
  assert.equal(comparator.flowCount, 29);
  rig.nowMs++;
  for (let client = 110; client < 120; client++) both(fromClient(udp('x'), client));
  assert.equal(comparator.flowCount, 30);
  assert.equal(comparator.tcpFlows, 10);
  rig.assertEmpty();
});

test('a table that is half full forgets idle flows', () => {
  const rig = new Rig(256, 64, { flowsMax: 40, flowIdleMsMax: 100 });
  const both = (client: number) => {
    const frame = fromClient(tcp({ seq: 1, ack: 1, text: 'x' }), client);
    rig.pvm(frame);
    assert.equal(rig.svm(frame), 1);
  };
  for (let client = 0; client < 20; client++) both(client);
  rig.nowMs = 99;
  both(20);
  assert.equal(rig.comparator.flowCount, 21);
  rig.nowMs = 100;
  for (let client = 21; client < 24; client++) both(client);
  assert.equal(rig.comparator.flowCount, 16, 'eight of them, and then it is not half full any more');
  assert.equal(rig.comparator.counters.flowsEvicted, 8);
});

test('a forgotten flow that continues is one first seen in its middle, and its old state releases nothing', () => {
  const rig = new Rig(256, 64, { flowsMax: 1 });
  const segment = (seq: number, text: string) => tcp({ seq, ack: 501, text });
  rig.pvm(segment(1, 'abc'));
  rig.svm(segment(1, 'abc'));
  rig.nowMs = LIMITS.flowQuietMsMin;
  rig.pvm(udp('other'));
  rig.svm(udp('other'));
  assert.equal(rig.comparator.counters.flowsEvicted, 1);
  assert.equal(rig.pvm(segment(1, 'abc')), 0, 'nobody knows that it is a retransmission');
  rig.commit();
  rig.pvm(segment(4, 'd'));
  assert.equal(rig.svm(segment(4, 'd')), 1);
  assert.equal(rig.pvm(segment(2, 'bc')), 1);
});

test('a flow that has its share of held frames or bytes asks for a checkpoint', () => {
  const text = '0123456789';
  const bytes = udp(text).length;
  for (const limits of [{ flowFramesMax: 10 }, { flowBytesMax: 9 * bytes }]) {
    for (const side of ['pvm', 'svm'] as const) {
      const rig = new Rig(256, 64, limits);
      for (let i = 0; i < 10; i++) {
        assert.equal(rig.comparator.pressure(), null);
        rig[side](udp(text));
      }
      if (side === 'svm') rig.svm(udp(text));
      assert.equal(rig.comparator.pressure(), 'limit-share');
      rig.pvm(udp('another flow', 1));
      assert.equal(rig.svm(udp('another flow', 1)), 1);
      if (side === 'pvm') assert.equal(rig.pvm(udp(text)), 0, 'it is held all the same');
      else assert.equal(rig.comparator.secondary.frames, 10, 'more of the SVM is not');
      assert.equal(rig.commit(), side === 'pvm' ? 11 : 0);
      assert.equal(rig.comparator.pressure(), null);
      for (let i = 0; i < 10; i++) {
        rig.pvm(udp(text));
        assert.equal(rig.svm(udp(text)), 1);
      }
      for (let i = 0; i < 9; i++) rig.pvm(udp(text));
      for (let i = 0; i < 9; i++) assert.equal(rig.svm(udp(text)), 1);
      for (let i = 0; i < 9; i++) rig.svm(udp(text));
      for (let i = 0; i < 9; i++) assert.equal(rig.pvm(udp(text)), 1);
      for (let i = 0; i < 9; i++) rig.pvm(udp(text));
      assert.equal(rig.comparator.pressure(), null, 'what has left is not counted');
      rig.commit();
      rig.assertEmpty();
    }
  }
});

test('an SVM that runs far ahead asks for a checkpoint and never takes the place of PVM output', () => {
  const heldSecondaryMax = 1000;
  const heldFramesMax = 3000;
  const rig = new Rig(256, heldFramesMax, { heldSecondaryMax, heldFramesMax, heldSlabsMax: heldFramesMax });
  const { comparator } = rig;
  const ahead = (i: number) => udp('ahead', 1 + (i % 2));
  for (let i = 0; i < heldSecondaryMax; i++) {
    assert.equal(comparator.pressure(), null);
    rig.svm(ahead(i));
  }
  assert.equal(comparator.pressure(), 'limit-frames');
  rig.svm(ahead(0));
  assert.equal(comparator.counters.secondaryDropped, 1);
  const places = heldFramesMax - heldSecondaryMax;
  const held = udp('differs');
  for (let i = 0; i < places; i++) rig.pvm(held);
  assert.equal(rig.commit(), places);
  rig.assertEmpty();
});

test('half of the columns in use ask for a checkpoint', () => {
  const heldFramesCheckpoint = 200;
  const rig = new Rig(256, 1024, { heldFramesCheckpoint });
  const frame = udp('waits');
  for (let i = 0; i < heldFramesCheckpoint - 1; i++) rig.pvm(frame);
  assert.equal(rig.comparator.pressure(), null);
  rig.pvm(frame);
  assert.equal(rig.comparator.pressure(), 'limit-frames');
});

test('slabs in use ask for a checkpoint', () => {
  const rig = new Rig(256, LIMITS.heldSlabsMax);
  for (let i = 0; i < LIMITS.heldSlabsMax - 1; i++) rig.pvm(udp('x'));
  assert.equal(rig.comparator.pressure(), null);
  rig.pvm(udp('x'));
  assert.equal(rig.comparator.pressure(), 'limit-bytes');
});

test('discard drops all held frames and releases none', () => {
  const rig = new Rig();
  rig.pvm(udp('held'));
  rig.pvm(tcp({ seq: 1, ack: 1, text: 'held' }));
  rig.svm(udp('differs'));
  rig.comparator.discard();
  assert.equal(rig.released.length, 0);
  rig.assertEmpty();
});

/* Whatever either VM sends: frames that make sense one by one, and nonsense. */

const near = fc.oneof(
  fc.integer({ min: 995, max: 1015 }),
  fc.constantFrom(1000 + 0x40000000, 1000 + 0x80000000, 1000 - 0x40000001 + 2 ** 32),
);
const shortText = fc.string({ maxLength: 12, unit: fc.constantFrom('a', 'a', 'a', 'b') });
const anyTcp = fc
  .record({
    seq: near,
    ack: near,
    flags: fc.oneof(
      { weight: 4, arbitrary: fc.constant(ACK) },
      fc.constantFrom(
        SYN,
        SYN | ACK,
        RST,
        RST | ACK,
        FIN | ACK,
        FIN,
        0,
        0xff,
        ACK | 0x20,
        SYN | FIN,
        SYN | RST,
      ),
    ),
    urgent: fc.nat(12),
    sourcePort: fc.constantFrom(80, 81),
    text: shortText,
  })
  .map(tcp);
const anyFragment = fc
  .record({
    version: fc.constantFrom(4, 6),
    id: fc.nat(2),
    from: fc.nat(3),
    bytes: fc.nat(24),
    more: fc.boolean(),
    protocol: fc.constantFrom(1, 6, 17, 58, 99, 136),
  })
  .map(({ version, id, from, bytes, more, protocol }) => {
    const payload = Buffer.alloc(bytes, 1);
    const fragmentOffset = 8 * from;
    if (version === 4) {
      const addresses = { source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4] };
      return ethernet(
        0x0800,
        ipv4({ ...addresses, protocol, id, fragmentOffset, moreFragments: more }, payload),
      );
    }
    const extensions = [fragmentExtension(fragmentOffset, more, id)];
    return ethernet(0x86dd, ipv6({ next: protocol, extensions }, payload));
  });
const anyError = fc
  .record({ type: fc.constantFrom(3, 11), payload: fc.uint8Array({ maxLength: 40 }) })
  .map(({ type, payload }) => icmpFrame({ type, payload }));
const anyFrame = fc.oneof(
  { weight: 6, arbitrary: anyTcp },
  { weight: 3, arbitrary: anyFragment },
  fc
    .record({ text: shortText, port: fc.integer({ min: 1, max: 6 }) })
    .map(({ text, port }) => udp(text, port)),
  anyError,
  fc.constant(arpFrame()),
);
const anyStep = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({ side: fc.constantFrom('pvm' as const, 'svm' as const), frame: anyFrame }),
  },
  { weight: 4, arbitrary: anyFrame.map((frame) => ({ side: 'both' as const, frame })) },
  { weight: 1, arbitrary: fc.constant({ side: 'commit' as const, frame: Buffer.alloc(0) }) },
);

test('whatever either VM sends, each frame of the PVM leaves once, by the next commit', () => {
  const limits = { flowsMax: 5, flowFramesMax: 6, fragmentedDatagramsMax: 3, fragmentsPerDatagramMax: 3 };
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 80, size: 'max' }), (steps) => {
      const rig = new Rig(256, 512, { ...limits, heldSecondaryMax: 30, heldFramesMax: 200 });
      const { comparator } = rig;
      const said: string[] = [];
      for (const { side, frame } of steps) {
        rig.nowMs += 300;
        if (side === 'commit') {
          rig.commit();
          rig.assertEmpty();
        }
        if (side === 'pvm' || side === 'both') {
          const { malformed } = comparator.counters;
          rig.pvm(frame);
          if (comparator.counters.malformed === malformed) said.push(withoutNumbers(frame));
        }
        if (side === 'svm' || side === 'both') rig.svm(frame);
        const left = rig.released.filter(({ cause }) => cause !== 'made').length;
        assert.equal(left + rig.absorbed.length + rig.held, said.length);
        assert.ok(comparator.flowCount <= limits.flowsMax);
        assert.ok(comparator.secondary.frames <= 30);
      }
      rig.commit();
      rig.assertEmpty();
      const left = rig.released.filter(({ cause }) => cause !== 'made').map(({ bytes }) => bytes);
      assert.deepEqual([...left, ...rig.absorbed].map(withoutNumbers).sort(), said.sort());
      // The next datagram that both send leaves.
      for (const frame of [udp('end', 9), tcp({ sourcePort: 99, seq: 1, ack: 1, text: 'end' })]) {
        rig.pvm(frame);
        assert.equal(rig.svm(frame), 1);
      }
      comparator.discard();
      rig.assertEmpty();
    }),
    { numRuns: 1000 },
  );
});
