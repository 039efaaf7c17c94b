import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Record } from '../capture/captures.ts';
import { enhancedPacket, interfaceBlock, pcap, pcapng, section } from '../capture/captures.ts';
import { arpFrame } from '../frames.ts';
import {
  CONNECTION,
  clientSyn,
  fromClient,
  fromVm,
  handshakeAck,
  type Numbers,
  PVM,
  SVM,
  vmSyn,
} from '../translate/connection.ts';
import { answer, at, compare, question, START_MS, written } from './recordings.ts';

const c = CONNECTION;

/** A connection: the client sends a request, and the VM replies with `text` after `delayMs`. */
function connection(vm: Numbers, text: string, delayMs = 0, skewMs = 0): Record[] {
  const ask = { clientAt: 1, vmAt: 1, time: 3, payload: Buffer.from('GET /') };
  const answerAt = { clientAt: 6, vmAt: 1, time: 4, payload: Buffer.from(text) };
  return [
    at(0, clientSyn(c, vm)),
    at(1 + delayMs, vmSyn(c, vm)),
    at(10, handshakeAck(c, vm)),
    at(11, fromClient(c, vm, ask)),
    at(12 + delayMs, fromVm(c, vm, answerAt)),
    at(20, fromClient(c, vm, { clientAt: 6, vmAt: 1 + text.length, time: 6 })),
  ].map(({ ms, frame }) => ({ ms: ms + skewMs, frame }));
}

/** Request i is at 100 i ms, its reply `delay` later. */
const dialogue = (delays: number[], from = 0): Record[] =>
  delays
    .flatMap((delay, i) => [
      at((from + i) * 100, question(`q${from + i}`)),
      at((from + i) * 100 + delay, answer(`a${from + i}`)),
    ])
    .sort((x, y) => x.ms - y.ms);

test('two VMs with other numbers and the same bytes match', async () => {
  const report = await compare(connection(PVM, 'hello'), connection(SVM, 'hello', 2));
  const { compared } = report;
  assert.deepEqual([compared.matched, compared.heldAtEnd, compared.flows], [2, 0, 1]);
  assert.deepEqual([compared.divergences, compared.checkpoints, report.findings], [{}, {}, []]);
  assert.deepEqual(report.vm, { mac: '52:54:00:12:34:56', how: 'the one that answers connections' });
  assert.deepEqual([compared.waits.maxMs, report.durationMs, report.warnings], [2, 20, []]);
});

test('clocks that are an hour apart are corrected by common input', async () => {
  const report = await compare(connection(PVM, 'hello'), connection(SVM, 'hello', 1, 3_600_000));
  assert.equal(report.clocks.secondaryAheadMs, 3_600_000);
  assert.deepEqual([report.compared.matched, report.findings.length], [2, 0]);
});

test('a finding names the place, the bytes and the frames', async () => {
  const report = await compare(
    connection(PVM, 'HTTP/1.1 200 OK\r\nDate: 12:00:01\r\n'),
    connection(SVM, 'HTTP/1.1 200 OK\r\nDate: 12:00:02\r\n', 1, 500),
  );
  assert.deepEqual(report.compared.divergences, { 'diverged-bytes': 1 });
  assert.deepEqual(report.compared.divergencesByClass, { clock: 1 });
  assert.deepEqual(report.compared.checkpoints, { 'diverged-bytes': 1 });
  assert.equal(report.checkpointsPerSecond, 50);
  const hex = (text: string): string => Buffer.from(text).toString('hex');
  const found = { payloadOffset: 22, flags: 'ACK', frame: 5 };
  assert.deepEqual(report.findings, [
    {
      reason: 'diverged-bytes',
      class: 'clock',
      why: 'a time of day',
      flow: 'tcp 10.0.2.15:80 <-> 10.0.2.2:40000',
      timeMs: 12,
      earlierInFlow: 0,
      position: { unit: 'byte', at: 30 },
      primary: { ...found, atMs: START_MS + 12, hex: hex(' 12:00:01\r\n').replace(/^/, '') },
      secondary: { ...found, atMs: START_MS + 513, hex: hex(' 12:00:02\r\n') },
      cameAfterMs: null,
    },
  ]);
});

test('a reply that comes too late costs a checkpoint, and is not compared with the next', async () => {
  const report = await compare(dialogue([1, 1, 1, 1]), dialogue([1, 36, 1, 1]));
  assert.deepEqual([report.compared.checkpoints, report.compared.divergences], [{ 'wait-primary': 1 }, {}]);
  const [found] = report.findings;
  assert.deepEqual(
    [found.reason, found.timeMs, found.position, found.cameAfterMs],
    ['wait-primary', 101, { unit: 'datagram', at: 2 }, 35],
  );
});

test('only frames of the time that both captures cover are compared', async () => {
  const report = await compare(dialogue(Array(10).fill(1)), dialogue(Array(5).fill(1), 3));
  assert.deepEqual([report.compared.matched, report.findings, report.compared.checkpoints], [5, [], {}]);
  assert.deepEqual([report.primary.outside, report.secondary.outside], [5, 0]);
  const swapped = await compare(dialogue(Array(5).fill(1), 3), dialogue(Array(10).fill(1)));
  assert.deepEqual([swapped.compared.matched, swapped.findings], [5, []]);
  assert.deepEqual([swapped.primary.outside, swapped.secondary.outside], [0, 5]);
});

test("the secondary's capture may match held output after the primary's has ended", async () => {
  const report = await compare(dialogue([1, 1]), dialogue([1, 10]));
  assert.deepEqual([report.compared.matched, report.compared.heldAtEnd], [2, 0]);
  const late = await compare(dialogue([1, 1]), dialogue([1, 50]));
  assert.deepEqual([late.compared.matched, late.compared.heldAtEnd], [1, 1]);
  assert.deepEqual(
    late.findings.map(({ reason, primary, secondary }) => [reason, primary?.frame, secondary]),
    [['held', 4, null]],
  );
});

test("the VM's address is given, or found, or asked for", async () => {
  const one = [at(0, question('q')), at(1, answer('a'))];
  const found = await compare(one, one);
  assert.equal(found.vm.how, "the only one with QEMU's prefix");
  const given = await compare(one, one, { mac: '02:00:00:00:00:01' });
  assert.deepEqual([given.vm, given.compared.matched], [{ mac: '02:00:00:00:00:01', how: 'given' }, 1]);
  const strangers = one.map(({ ms, frame }) => ({
    ms,
    frame: Buffer.from(Buffer.from(frame).toString('hex').replaceAll('525400123456', '020000000002'), 'hex'),
  }));
  await assert.rejects(compare(strangers, strangers), {
    code: 'COLO_DIFF_MAC',
    message: /which is the VM\? 02:00:00:00:00:01, 02:00:00:00:00:02; give --mac/,
  });
  await assert.rejects(compare([one[0]], [one[1]]), {
    code: 'COLO_DIFF_MAC',
    message: /no address sends in both/,
  });
  await assert.rejects(compare(one, one, { mac: '02:00:00:00:00:99' }), {
    code: 'COLO_DIFF_MAC',
    message: /has no frame that 02:00:00:00:00:99 sent, among 2/,
  });
});

/** A capture as `colo capture` writes it, with one interface for each place that a node captures at. */
function nodeCapture(frames: [index: number, ms: number, frame: Buffer][]): string {
  return written(
    Buffer.concat([
      section('little'),
      ...['primary-vm', 'secondary-vm', 'uplink-in', 'released'].map((name) =>
        interfaceBlock('little', { name }),
      ),
      ...frames.map(([index, ms, frame]) =>
        enhancedPacket('little', index, BigInt(Math.round((START_MS + ms) * 1000)), frame, {
          comment: 'epoch 1',
        }),
      ),
    ]),
  );
}

test('one capture of "colo capture" at the primary has both VMs', async () => {
  const path = nodeCapture([
    [2, 0, clientSyn(c, PVM)],
    [0, 1, vmSyn(c, PVM)],
    [1, 2, vmSyn(c, SVM)],
    [3, 2, vmSyn(c, PVM)],
    [2, 3, handshakeAck(c, PVM)],
    [0, 4, fromVm(c, PVM, { clientAt: 1, vmAt: 1, time: 1, payload: Buffer.from('yes') })],
    // The secondary's node has translated the SVM's numbers.
    [1, 6, fromVm(c, PVM, { clientAt: 1, vmAt: 1, time: 1, payload: Buffer.from('yet') })],
  ]);
  const report = await compare([], [], { primary: path, secondary: null });
  assert.deepEqual(report.vm, { mac: null, how: 'by interface, as "colo capture" wrote them' });
  assert.deepEqual([report.primary.output, report.primary.input, report.primary.foreign], [2, 2, 3]);
  assert.deepEqual(report.compared.divergences, { 'diverged-bytes': 1 });
  const [{ primary, secondary, position }] = report.findings;
  assert.deepEqual([primary?.frame, secondary?.frame, position?.at], [6, 7, 2]);
});

test('two captures of "colo capture", one at each node, are compared', async () => {
  const primary = nodeCapture([
    [2, 0, clientSyn(c, PVM)],
    [0, 1, vmSyn(c, PVM)],
    [2, 3, handshakeAck(c, PVM)],
    [0, 4, fromVm(c, PVM, { clientAt: 1, vmAt: 1, time: 1, payload: Buffer.from('yes') })],
  ]);
  const secondary = nodeCapture([
    [2, 0, clientSyn(c, PVM)],
    [1, 2, vmSyn(c, SVM)],
    [2, 3, handshakeAck(c, PVM)],
    [1, 6, fromVm(c, SVM, { clientAt: 1, vmAt: 1, time: 1, payload: Buffer.from('yes') })],
  ]);
  const report = await compare([], [], { primary, secondary });
  assert.deepEqual([report.compared.matched, report.findings], [2, []]);
});

test('a single capture of another program is refused', async () => {
  const path = written(pcapng(dialogue([1])));
  await assert.rejects(compare([], [], { primary: path, secondary: null }), {
    code: 'COLO_USAGE',
    message: /does not hold both VMs.*give a second capture/,
  });
});

test('cut frames, a cut file and frames without a time are reported', async () => {
  const cut = dialogue([1, 1]).map(({ ms, frame }) => ({
    ms,
    frame: frame.subarray(0, 42),
    original: frame.length,
  }));
  const report = await compare([...dialogue([1, 1]), at(300, arpFrame())], [...cut, at(300, arpFrame())]);
  assert.deepEqual([report.secondary.cut, report.compared.flowsLeftOut, report.findings], [2, 1, []]);
  assert.match(report.warnings[0], /2 frames that were cut when captured/);
  const whole = pcap(dialogue([1, 1]));
  const short = written(whole.subarray(0, whole.length - 3));
  const { warnings } = await compare(dialogue([1, 1]), [], { secondary: short });
  assert.deepEqual(warnings, [
    `${short} ends within a record, at byte ${24 + 3 * (16 + 44)}: what came before counts`,
  ]);
});

test('captures that do not overlap are reported, and not compared', async () => {
  const other = [at(500_000, question('other')), at(500_001, answer('other'))];
  const { warnings, compared } = await compare(dialogue([1, 1]), other);
  assert.equal(compared.matched, 0);
  assert.deepEqual(warnings, ['the captures do not overlap in time: nothing was compared']);
});

test('progress is reported up to the last byte', async () => {
  const records = Array.from({ length: 40_000 }, (_, i) =>
    at(i, i % 2 === 0 ? question(`${i}`) : answer(`${i}`)),
  );
  const seen: [number, number][] = [];
  await compare(records, records, { onProgress: (read, total) => seen.push([read, total]) });
  assert.ok(seen.length >= 2);
  for (const [read, total] of seen) assert.ok(read > 0 && read <= total);
});
