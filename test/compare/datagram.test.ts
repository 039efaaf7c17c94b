import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ethernet, ipv4, tcpFrame } from '../frames.ts';
import { echoReply, Rig, tcp, udp, VNET_HEADER_BYTES } from './rig.ts';

test('datagrams leave first to first, in order per flow, whichever VM is ahead', () => {
  const side = fc.record({ primary: fc.boolean(), flow: fc.integer({ min: 1, max: 3 }) });
  fc.assert(
    fc.property(fc.array(side, { maxLength: 60 }), (steps) => {
      const rig = new Rig();
      const said = { primary: [0, 0, 0, 0], secondary: [0, 0, 0, 0] };
      const frame = (flow: number, number: number) =>
        flow === 3 ? echoReply(7, number, `ping ${number}`) : udp(`${flow} says ${number}`, flow);
      const sum = () => [1, 2, 3].reduce((all, i) => all + Math.min(said.primary[i], said.secondary[i]), 0);
      const say = (primary: boolean, flow: number) => {
        if (primary) rig.pvm(frame(flow, said.primary[flow]++));
        else rig.svm(frame(flow, said.secondary[flow]++));
        assert.equal(rig.released.length, sum());
        assert.equal(rig.confirmed.length, sum());
      };
      for (const { primary, flow } of steps) say(primary, flow);
      for (const flow of [1, 2, 3]) {
        while (said.primary[flow] < said.secondary[flow]) say(true, flow);
        while (said.secondary[flow] < said.primary[flow]) say(false, flow);
      }
      assert.deepEqual(rig.diverged, []);
      rig.assertConfirmed(rig.released.length);
      rig.assertEmpty();
    }),
    { numRuns: 200 },
  );
});

test('another payload or length diverges once, and holds its flow only', () => {
  for (const [other, reason] of [
    ['answeR', 'diverged-bytes'],
    ['answer!', 'diverged-length'],
  ]) {
    const rig = new Rig();
    rig.pvm(udp('answer', 1));
    rig.svm(udp(other, 1));
    rig.svm(udp('next', 1));
    assert.equal(rig.pvm(udp('next', 1)), 0);
    assert.equal(rig.diverged.length, 1);
    assert.match(rig.diverged[0], new RegExp(`^${reason} udp 10.0.2.15:53 <-> 10.0.2.2:1$`));
    rig.pvm(udp('elsewhere', 2));
    assert.equal(rig.svm(udp('elsewhere', 2)), 1);
    assert.equal(rig.commit(), 2);
    rig.assertEmpty();
    rig.pvm(udp('after', 1));
    assert.equal(rig.svm(udp('after', 1)), 1);
  }
});

test('bytes after a UDP datagram are compared, and so is its end', () => {
  const frame = (length: number, last: number) => {
    const bytes = udp('datagram and more');
    bytes.writeUInt16BE(8 + length, 38);
    bytes[bytes.length - 1] = last;
    return bytes;
  };
  for (const [primary, secondary, out] of [
    [frame(8, 1), frame(8, 1), 1],
    [frame(8, 1), frame(8, 2), 0],
    [frame(8, 1), frame(9, 1), 0],
    [frame(8, 1), frame(17, 1), 0],
  ] as const) {
    const rig = new Rig();
    rig.pvm(primary);
    assert.equal(rig.svm(secondary), out);
    assert.equal(rig.diverged.length, 1 - out);
  }
});

test('protocols with ports have a flow for each pair of them', () => {
  const sctp = (port: number, text: string) =>
    ethernet(0x0800, ipv4({ protocol: 132 }, Buffer.from(`${String.fromCharCode(0, port, 0, 9)}${text}`)));
  const rig = new Rig();
  rig.pvm(sctp(1, 'one'));
  rig.pvm(sctp(2, 'two'));
  assert.equal(rig.svm(sctp(2, 'two')), 1);
  assert.equal(rig.svm(sctp(1, 'one')), 1);
  rig.pvm(sctp(1, 'one'));
  rig.svm(sctp(1, 'ONE'));
  assert.deepEqual(rig.diverged, ['diverged-bytes sctp 10.0.2.2:1 <-> 10.0.2.15:9']);
});

/** With a virtio-net header; `csum`: where the checksum starts and its offset there, both in the frame. */
function vnet(frame: Buffer, { csum, gso = 0 }: { csum?: [number, number]; gso?: number } = {}): Buffer {
  const header = Buffer.alloc(VNET_HEADER_BYTES);
  header[1] = gso;
  if (csum !== undefined) {
    header[0] = 1;
    header.writeUInt16LE(csum[0], 6);
    header.writeUInt16LE(csum[1], 8);
  }
  return Buffer.concat([header, frame]);
}

test('a checksum that is not complete yet is no difference, in whatever is compared whole', () => {
  const L4 = 34;
  for (const [protocol, at, width] of [
    [132, 8, 4],
    [99, 4, 2],
  ]) {
    const whole = (filler: number, end = 1) => {
      const body = Buffer.alloc(16, 7);
      body.fill(filler, at, at + width);
      body[15] = end;
      return ethernet(0x0800, ipv4({ protocol }, body));
    };
    const partial = { csum: [L4, at] as [number, number] };
    for (const [primary, secondary, out] of [
      [vnet(whole(1), partial), vnet(whole(2), partial), 1],
      [vnet(whole(1), partial), vnet(whole(2)), 1],
      [vnet(whole(1)), vnet(whole(2), partial), 1],
      [vnet(whole(1)), vnet(whole(2)), 0],
      [vnet(whole(1), partial), vnet(whole(1, 2), partial), 0],
      [vnet(whole(1), { csum: [0, 3] }), vnet(whole(2)), 0],
      [vnet(whole(1), { csum: [L4, 15] }), vnet(whole(1, 2)), 0],
      [vnet(whole(1), { csum: [60_000, 60_000] }), vnet(whole(1)), 1],
    ] as const) {
      const rig = new Rig(2048, 64, {}, 'vnet');
      rig.pvm(primary);
      assert.equal(rig.svm(secondary), out);
      rig.commit();
      rig.assertEmpty();
    }
  }
});

test('a GSO frame of 64 KiB matches its segments, whatever its IP length and checksum are', () => {
  const payload = Buffer.alloc(65_000, 'jumbo ');
  for (const version of [4, 6] as const) {
    const rig = new Rig(70_000, 64, {}, 'vnet');
    const large = tcpFrame({ version, seq: 1, ack: 1, payload });
    large.writeUInt16BE(0, version === 4 ? 16 : 18);
    large.fill(0xee, 14 + (version === 4 ? 36 : 56), 14 + (version === 4 ? 38 : 58));
    rig.pvm(vnet(large, { gso: version === 4 ? 1 : 4, csum: [34, 16] }));
    for (let from = 0; from < payload.length; from += 9000) {
      const end = Math.min(payload.length, from + 9000);
      const left = rig.svm(
        vnet(tcpFrame({ version, seq: 1 + from, ack: 1, payload: payload.subarray(from, end) })),
      );
      assert.equal(left, end === payload.length ? 1 : 0);
    }
    rig.assertEmpty();
    rig.pvm(vnet(tcp({ text: 'x' })));
    const lie = tcp({ text: 'x' });
    lie.writeUInt16BE(0, 16);
    rig.pvm(vnet(lie));
    assert.equal(rig.comparator.counters.malformed, 1, 'only a frame that will be cut may have no length');
  }
});
