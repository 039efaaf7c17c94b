/** Packets that two VMs, or two captures, cut in different ways: fragments, and packets that the network card would have cut. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reassembly } from '../../src/diff/reassembly.ts';
import { parseRecorded, type RecordedFrame } from '../../src/diff/recorded-frame.ts';
import type { Instant } from '../../src/units.ts';
import { PacketView } from '../../src/wire/packet.ts';
import type { Record } from '../capture/captures.ts';
import {
  ACK,
  arpFrame,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  ethernet,
  fragmentExtension,
  icmpFrame,
  ipv4,
  ipv6,
  paddingExtension,
  udpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';
import { fromVm, type Numbers, PVM, SVM } from '../translate/connection.ts';
import { at, compare, question } from './recordings.ts';
import { c, content, ends, opening, reasons } from './streams.ts';

const link = { sourceMac: VM_MAC, destinationMac: CLIENT_MAC };

function text(n: number, bytes: number): Buffer {
  return Buffer.alloc(bytes, `answer ${n} with its bytes, `);
}

/** A UDP datagram of the VM in fragments of `cut` bytes, 0.1 ms apart. */
function fragments(version: 4 | 6, id: number, cut: number, payload: Buffer): Buffer[] {
  const addresses = { source: VM_ADDRESS[version], destination: CLIENT_ADDRESS[version] };
  const whole = udpFrame({ version, ...addresses, sourcePort: 53, destinationPort: 5000, payload });
  const body = whole.subarray(version === 4 ? 34 : 54);
  return Array.from({ length: Math.ceil(body.length / cut) }, (_, i) => {
    const from = i * cut;
    const piece = body.subarray(from, from + cut);
    const more = from + cut < body.length;
    if (version === 4) {
      const header = { ...addresses, protocol: 17, id, fragmentOffset: from, moreFragments: more };
      return ethernet(0x0800, ipv4(header, piece), link);
    }
    const extensions = [paddingExtension(0), fragmentExtension(from, more, id)];
    return ethernet(0x86dd, ipv6({ ...addresses, next: 17, extensions }, piece), link);
  });
}

type Cutting = {
  version: 4 | 6;
  cut?: number;
  firstId?: number;
  /** The order of the fragments, by index; a fragment that is not in it is lost in datagram 4. */
  order?: number[];
  lost?: number;
  other?: number;
};

/** Ten replies of 3000 bytes, each to one question. */
function replies({ version, cut = 1480, firstId = 1, order = [], lost = -1, other = -1 }: Cutting): Record[] {
  const records: Record[] = [];
  for (let n = 0; n < 10; n++) {
    records.push(at(n * 50, question(`q ${n}`)));
    const payload = text(n, 3000);
    if (n === other) payload[2500] ^= 1;
    const cutUp = fragments(version, firstId + n, cut, payload);
    const sent = order.length === 0 ? cutUp : order.map((i) => cutUp[i]);
    const kept = n === 4 ? sent.filter((_, i) => i !== lost) : sent;
    for (const [i, frame] of kept.entries()) records.push(at(n * 50 + 2 + i * 0.1, frame));
  }
  return [...records, ...ends(9000)];
}

for (const version of [4, 6] as const)
  test(`datagrams in fragments of IPv${version} are compared whole, however they were cut`, async () => {
    const primary = replies({ version });
    const same: Partial<Cutting>[] = [
      { firstId: 999 },
      { cut: 1000 },
      { cut: 8000 },
      { order: [2, 1, 0] },
      { order: [0, 0, 1, 1, 2, 2] },
    ];
    for (const how of same) {
      const report = await compare(primary, replies({ version, firstId: 999, ...how }));
      assert.deepEqual([report.findings, report.compared.matched], [[], 10], JSON.stringify(how));
    }
    const differs = await compare(primary, replies({ version, firstId: 999, cut: 1000, other: 4 }));
    assert.deepEqual(
      differs.findings.map(({ reason, position, primary: mine, secondary }) => [
        reason,
        position?.at,
        mine?.frame,
        secondary?.frame,
      ]),
      [['diverged-bytes', 5, 18, 22]],
    );
    for (const lost of [0, 1, 2]) {
      const holed = replies({ version, firstId: 999, lost });
      const inSecondary = await compare(primary, holed);
      assert.deepEqual(reasons(inSecondary), ['wait-primary']);
      assert.deepEqual(reasons(await compare(holed, primary)), ['wait-secondary']);
      const inBoth = await compare(holed, replies({ version, lost }));
      assert.deepEqual([reasons(inBoth), inBoth.compared.matched], [[], 9]);
      assert.match(inSecondary.warnings[0], /does not have all fragments of 1 datagrams/);
      assert.equal(inBoth.warnings.length, 2);
    }
  });

function put(reassembly: Reassembly, bytes: Buffer, ms: number): RecordedFrame | null {
  const view = new PacketView();
  const { length } = bytes;
  const frame = { bytes, at: 0, length, originalLength: length, number: 1, fileMs: ms, ms: ms as Instant };
  parseRecorded(frame, view);
  return reassembly.take(frame, view);
}

test('a fragment that comes 2 s after the first one of its datagram belongs to another one', () => {
  for (const [ms, incomplete] of [
    [2000, 0],
    [2001, 2],
  ]) {
    const reassembly = new Reassembly();
    const [first, last] = fragments(4, 7, 1480, text(0, 2000));
    assert.equal(put(reassembly, first, 0), null);
    assert.equal(put(reassembly, last, ms) === null, incomplete > 0);
    assert.equal(reassembly.incomplete, incomplete);
  }
});

test('of more than 1024 incomplete datagrams the oldest is given up', () => {
  const reassembly = new Reassembly();
  const datagram = (id: number): Buffer[] => fragments(4, id, 1480, text(0, 2000));
  for (let id = 0; id <= 1024; id++) assert.equal(put(reassembly, datagram(id)[0], 0), null);
  assert.notEqual(put(reassembly, datagram(1)[1], 1), null);
  assert.equal(put(reassembly, datagram(0)[1], 1), null);
  assert.equal(reassembly.incomplete, 1025);
});

test('fragments of more than an IP packet may have are no datagram', () => {
  const cut = 8192;
  for (const [bytes, incomplete] of [
    [65_512, 0],
    [65_520, 1],
  ]) {
    const reassembly = new Reassembly();
    let whole: RecordedFrame | null = null;
    for (let from = 0; from < bytes; from += cut) {
      const piece = text(0, Math.min(cut, bytes - from));
      const more = from + cut < bytes;
      const header = { protocol: 17, id: 7, fragmentOffset: from, moreFragments: more };
      whole = put(reassembly, ethernet(0x0800, ipv4(header, piece), link), 0);
    }
    assert.equal(whole === null, incomplete > 0);
    assert.equal(reassembly.incomplete, incomplete);
  }
});

test('a fragment that was cut when captured leaves its flow out', async () => {
  const cutOne = replies({ version: 4 }).map((record, i) =>
    i === 6 ? { ...record, frame: record.frame.subarray(0, 60), original: record.frame.length } : record,
  );
  const report = await compare(cutOne, replies({ version: 4, firstId: 7 }));
  assert.deepEqual([reasons(report), report.primary.cut, report.compared.flowsLeftOut], [[], 1, 1]);
});

test('ICMP errors match by what they report, whichever VM sends first', async () => {
  const errors = (code: number, ms: number, ttl: number, payload = 'to nobody'): Record[] => [
    ...Array.from({ length: 5 }, (_, n) => at(3000 + n * 50, question(payload, 5000 + n))),
    ...Array.from({ length: 5 }, (_, n) => {
      const quoted = udpFrame({ sourcePort: 5000 + n, destinationPort: 53, payload: Buffer.from(payload) });
      const quote = Buffer.from(quoted.subarray(14));
      quote[8] = ttl;
      const addresses = { source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4] };
      return at(3001 + n * 50 + ms, icmpFrame({ ...link, ...addresses, type: 3, code, payload: quote }));
    }),
    at(0, question('first')),
    at(9000, arpFrame()),
  ];
  const sorted = (records: Record[]): Record[] => records.toSorted((a, b) => a.ms - b.ms);
  for (const lagMs of [0, 0.5, -0.5]) {
    const primary = sorted(errors(3, 0, 64));
    assert.deepEqual(reasons(await compare(primary, sorted(errors(3, lagMs, 63)))), []);
    const differ = Array(5).fill('diverged-bytes');
    assert.deepEqual(reasons(await compare(primary, sorted(errors(10, lagMs, 64)))), differ);
    assert.deepEqual(reasons(await compare(primary, sorted(errors(3, lagMs, 64, 'to nobady')))), differ);
  }
});

/** 120 000 bytes in segments of `cut`; the IP length of segments that IP allows is 0 if `withoutLength`. */
function stream(vm: Numbers, cut: number, change: number, how: 'with-length' | 'without-length'): Record[] {
  const bytes = content(0, 120_000);
  if (change >= 0) bytes[change] ^= 1;
  const records = opening(vm);
  for (let from = 0; from < bytes.length; from += cut) {
    const payload = bytes.subarray(from, Math.min(from + cut, from + 60_000));
    const segment = fromVm(c, vm, { clientAt: 1, vmAt: 1 + from, time: 3, payload, flags: ACK });
    const rest = bytes.subarray(from + payload.length, from + cut);
    if (how === 'without-length') segment.writeUInt16BE(0, 16);
    records.push(at(3 + from / 100_000, Buffer.concat([segment, rest])));
  }
  return [...records, at(9000, arpFrame())];
}

test('a packet with an IP length of 0, which the network card would have cut, is compared', async () => {
  const primary = stream(PVM, 1400, -1, 'with-length');
  const same = await compare(primary, stream(SVM, 30_000, -1, 'without-length'));
  assert.deepEqual([same.findings, same.compared.checkpoints], [[], {}]);
  const differs = await compare(primary, stream(SVM, 30_000, 71_234, 'without-length'));
  assert.deepEqual(
    differs.findings.map(({ reason, position }) => [reason, position?.at]),
    [['diverged-bytes', 71_234]],
  );
});

test('a flow with a packet that is longer than IP can say is left out', async () => {
  const report = await compare(
    stream(PVM, 1400, -1, 'with-length'),
    stream(SVM, 100_000, -1, 'without-length'),
  );
  assert.deepEqual([report.findings, report.compared.flowsLeftOut], [[], 1]);
});
