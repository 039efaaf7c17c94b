import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EarlierSegments } from '../../src/diff/earlier-segments.ts';
import { FlowRecord } from '../../src/diff/flow-record.ts';
import type { Side } from '../../src/diff/report.ts';
import { FLOW_KEY_WORDS } from '../../src/flow/key.ts';
import type { Instant } from '../../src/units.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { ACK, tcpFrame } from '../frames.ts';

const view = new PacketView();

/** A connection of which each VM has sent `count` segments of `bytes` bytes from number 1 on. */
function keep(earlier: EarlierSegments, count: number, bytes: number): FlowRecord {
  const flow = new FlowRecord(1, new Int32Array(FLOW_KEY_WORDS), true);
  for (let i = 0; i < count; i++) {
    const frame = tcpFrame({ seq: 1 + i * bytes, ack: 1, flags: ACK, payload: Buffer.alloc(bytes) });
    const { length } = frame;
    const recorded = {
      bytes: frame,
      at: 0,
      length,
      originalLength: length,
      number: i,
      fileMs: 0,
      ms: 0 as Instant,
    };
    for (const side of ['primary', 'secondary'] as const satisfies Side[]) {
      parsePacket(frame, 0, length, view);
      earlier.keep(side, flow, recorded, recorded, view);
    }
  }
  flow.primaryEnd = 1 + count * bytes;
  flow.secondaryEnd = 1 + count * bytes;
  return flow;
}

test('what both VMs sent before a connection was placed is handed out: the latest 64 segments of each', () => {
  for (const [count, kept] of [
    [3, 3],
    [64, 64],
    [65, 64],
  ]) {
    const earlier = new EarlierSegments();
    const flow = keep(earlier, count, 10);
    assert.equal(earlier.take(flow, view).length, 2 * kept);
    assert.equal(flow.fromSeq, 1 + (count - kept) * 10);
    assert.equal(earlier.take(flow, view).length, 0);
  }
});

test('beyond 32 MiB in all connections nothing is kept, until some are forgotten', () => {
  const earlier = new EarlierSegments();
  const perFlow = 2 * 64 * (54 + 60_000);
  const flows = Array.from({ length: Math.ceil((32 * 1024 * 1024) / perFlow) }, () =>
    keep(earlier, 64, 60_000),
  );
  assert.equal(earlier.take(keep(earlier, 1, 60_000), view).length, 0);
  earlier.forget(flows[0]);
  assert.equal(earlier.take(keep(earlier, 1, 60_000), view).length, 2);
});
