import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Record } from '../capture/captures.ts';
import { clientSyn, fromClient, fromVm, handshakeAck, type Numbers, vmSyn } from '../translate/connection.ts';
import { answer, at, CONNECTION, compare, PVM, question, SVM } from './recordings.ts';

const c = CONNECTION;

/** A connection: the client asks, the VM answers with `text`, `delayMs` after it has heard. */
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

test('two VMs that count differently and say the same', async () => {
  const report = await compare(connection(PVM, 'hello'), connection(SVM, 'hello', 2));
  const { compared } = report;
  assert.deepEqual([compared.matched, compared.heldAtEnd, compared.flows], [2, 0, 1]);
  assert.deepEqual([compared.divergences, compared.checkpoints, report.findings], [{}, {}, []]);
  assert.equal(report.vm.mac, '52:54:00:12:34:56');
  assert.ok(compared.waits.maxMs > 1.9 && compared.waits.maxMs <= 2, `${compared.waits.maxMs}`);
});

test('clocks that are an hour apart are put right by what both heard', async () => {
  const report = await compare(connection(PVM, 'hello'), connection(SVM, 'hello', 1, 3_600_000));
  assert.equal(report.clocks.secondaryAheadMs, 3_600_000);
  assert.deepEqual([report.compared.matched, report.findings.length], [2, 0]);
});

test('other bytes: where, which, and in which frames', async () => {
  const report = await compare(
    connection(PVM, 'HTTP/1.1 200 OK\r\nDate: 12:00:01\r\n'),
    connection(SVM, 'HTTP/1.1 200 OK\r\nDate: 12:00:02\r\n'),
  );
  assert.deepEqual(report.compared.divergences, { 'diverged-bytes': 1 });
  assert.deepEqual(report.compared.checkpoints, { 'diverged-bytes': 1 });
  const [{ primary, secondary, ...found }] = report.findings;
  assert.deepEqual(found, {
    reason: 'diverged-bytes',
    flow: 'tcp 10.0.2.15:80 <-> 10.0.2.2:40000',
    timeMs: 12,
    earlierInFlow: 0,
    position: { unit: 'byte', at: 30 },
    cameAfterMs: null,
  });
  const text = (frame: typeof primary): string => Buffer.from(frame!.hex, 'hex').toString();
  assert.deepEqual(
    [primary?.frame, primary?.payloadOffset, text(primary)],
    [5, 22, ' 12:00:01\r\n'.slice(0)],
  );
  assert.deepEqual([secondary?.frame, secondary?.flags, text(secondary)], [5, 'ACK', ' 12:00:02\r\n']);
});

test('an answer that comes too late costs a checkpoint, and is not taken for the next', async () => {
  const pings = (delays: number[]): Record[] =>
    delays
      .flatMap((delay, i) => [at(i * 100, question(`q${i}`)), at(i * 100 + 1 + delay, answer(`a${i}`))])
      .sort((x, y) => x.ms - y.ms);
  const report = await compare(pings([0, 0, 0, 0]), pings([0, 35, 0, 0]));
  assert.deepEqual(report.compared.checkpoints, { 'wait-primary': 1 });
  assert.deepEqual(report.compared.divergences, {});
  const [found] = report.findings;
  assert.deepEqual(
    [found.reason, found.timeMs, found.position],
    ['wait-primary', 101, { unit: 'datagram', at: 2 }],
  );
  assert.ok(Math.abs(found.cameAfterMs! - 35) < 0.01, `${found.cameAfterMs}`);
  assert.ok(Math.abs(report.compared.waits.maxMs - 20) < 0.1, `${report.compared.waits.maxMs}`);
});
