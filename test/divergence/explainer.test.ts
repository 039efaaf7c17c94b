/** The explainer beside a real comparator: what it is given, what it looks at, and how often. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Comparator } from '../../src/compare/comparator.ts';
import type { Explained } from '../../src/divergence/explained.ts';
import { Explainer } from '../../src/divergence/explainer.ts';
import { type Framing, prefixBytesOf } from '../../src/frames/frame-reader.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { Instant } from '../../src/units.ts';
import { tcp, udp, VNET_HEADER_BYTES } from '../compare/rig.ts';
import { ACK, FIN, SYN } from '../frames.ts';

const NOW = 0 as Instant;

class Pair {
  readonly found: string[] = [];
  readonly settled: string[] = [];
  readonly explainer: Explainer;
  private readonly pool = new SlabPool(4096, 2048);
  private readonly comparator: Comparator;
  private readonly prefixBytes: number;
  private index = 0;

  constructor(framing: Framing = 'plain') {
    this.prefixBytes = prefixBytesOf(framing);
    const explained = ({ class: one, why }: Explained) => this.found.push(`${one}: ${why}`);
    this.comparator = new Comparator(
      this.pool,
      {
        release: () => {},
        absorb: () => {},
        teach: () => {},
        confirm: () => {},
        diverged: (key, reason, primary, secondary) =>
          explained(this.explainer.explain(key, reason, primary, secondary)),
      },
      1,
      framing,
    );
    this.explainer = new Explainer(this.comparator, this.pool, framing, ({ class: one, why }) =>
      this.settled.push(`${one}: ${why}`),
    );
  }

  pvm(frame: Buffer): void {
    this.place(frame, (slab) => this.comparator.primaryFrame(slab, this.prefixBytes, frame.length, NOW));
  }

  svm(frame: Buffer): void {
    this.place(frame, (slab) =>
      this.comparator.secondaryFrame(slab, this.prefixBytes, frame.length, this.index++, NOW),
    );
  }

  /** Opens a client's connection in both VMs. */
  open(client: number): void {
    const synAck = tcp({ sourcePort: 6379, destinationPort: client, flags: SYN | ACK, seq: 1000, ack: 501 });
    this.pvm(synAck);
    this.svm(synAck);
  }

  private place(frame: Buffer, use: (slab: ReturnType<SlabPool['acquire']>) => void): void {
    const slab = this.pool.acquire();
    const buffer = this.pool.buffer(slab);
    buffer.fill(0, 0, this.prefixBytes);
    buffer.writeUInt32BE(VNET_HEADER_BYTES, 4);
    frame.copy(buffer, this.prefixBytes);
    use(slab);
    this.pool.unref(slab);
  }
}

const reply = (client: number, text: string, seq = 1001): Buffer =>
  tcp({ sourcePort: 6379, destinationPort: client, seq, ack: 501, flags: ACK, text });

test('replies in another order, however the frames of the two VMs arrive', () => {
  const clients = [40_000, 40_001, 40_002];
  const primary = [101, 102, 103].map((value, i) => reply(clients[i], `:${value}\r\n`));
  const secondary = [103, 101, 102].map((value, i) => reply(clients[i], `:${value}\r\n`));
  for (const [first, second] of [
    ['pvm', 'svm'],
    ['svm', 'pvm'],
  ] as const) {
    const pair = new Pair();
    for (const client of clients) pair.open(client);
    const [early, late] = first === 'pvm' ? [primary, secondary] : [secondary, primary];
    for (const frame of early) pair[first](frame);
    for (const frame of late) pair[second](frame);
    assert.equal(pair.found.length, 3);
    for (const one of pair.found) assert.match(one, /^order: /);
  }
});

test('a reply that was exchanged and comes later: what is open is settled at the end of the epoch', () => {
  const order = 'order: the other VM sent these bytes to another client';
  const pair = new Pair();
  for (const client of [40_000, 40_001]) pair.open(client);
  pair.pvm(reply(40_000, ':101\r\n'));
  pair.svm(reply(40_000, ':105\r\n'));
  assert.match(pair.found[0], /^unknown/);
  pair.svm(reply(40_001, ':101\r\n'));
  assert.deepEqual(pair.settled, []);
  pair.explainer.settle();
  assert.deepEqual(pair.settled, [order]);
  pair.explainer.settle();
  assert.equal(pair.settled.length, 1);
});

test('of each VM the 128 newest held frames are looked at', () => {
  for (const [between, found] of [
    [126, /^order/],
    [127, /^unknown/],
  ] as const) {
    const pair = new Pair();
    for (let client = 40_000; client <= 40_001 + between; client++) pair.open(client);
    for (let client = 40_001; client <= 40_001 + between; client++)
      pair.svm(reply(client, client === 40_001 ? ':101\r\n' : `:${client}\r\n`));
    pair.pvm(reply(40_000, ':101\r\n'));
    pair.svm(reply(40_000, ':105\r\n'));
    assert.match(pair.found[0], found);
  }
});

test('what is recognised is settled at once, and what is not, as it is', () => {
  const pair = new Pair();
  for (const client of [40_000, 40_001]) pair.open(client);
  pair.pvm(reply(40_000, '03:22:35'));
  pair.svm(reply(40_000, '03:22:36'));
  assert.deepEqual(pair.settled, ['clock: a time of day']);
  pair.pvm(reply(40_001, ':101\r\n'));
  pair.svm(reply(40_001, ':105\r\n'));
  pair.explainer.settle();
  assert.match(pair.settled[1], /^unknown/);
});

test('of many that are open some are settled at once, and each one once', () => {
  const pair = new Pair();
  for (let i = 0; i < 200; i++) {
    pair.open(40_000 + i);
    pair.pvm(reply(40_000 + i, `:${1000 + i}\r\n`));
    pair.svm(reply(40_000 + i, `:${8000 + i}\r\n`));
  }
  assert.equal(pair.settled.length, 168);
  pair.explainer.settle();
  assert.equal(pair.settled.length, 200);
});

test('frames with a virtio-net header are read behind it', () => {
  const pair = new Pair('vnet');
  const header = Buffer.alloc(VNET_HEADER_BYTES);
  const framed = (text: string): Buffer => Buffer.concat([header, udp(text)]);
  pair.pvm(framed('at 03:22:35 GMT'));
  pair.svm(framed('at 03:22:36 GMT'));
  assert.deepEqual(pair.found, ['clock: a time of day']);
});

test('a FIN where the other VM has data', () => {
  const pair = new Pair();
  pair.open(40_000);
  pair.pvm(tcp({ sourcePort: 6379, destinationPort: 40_000, seq: 1001, ack: 501, flags: FIN | ACK }));
  pair.svm(reply(40_000, 'more'));
  assert.deepEqual(pair.found, ['flags: TCP flags or options differ']);
});

test('an epoch with more divergences than are explained: the next one begins anew', () => {
  const pair = new Pair();
  for (let i = 0; i < 200; i++) {
    pair.open(40_000 + i);
    pair.pvm(reply(40_000 + i, '03:22:35'));
    pair.svm(reply(40_000 + i, '03:22:36'));
  }
  const count = (text: string): number => pair.found.filter((one) => one.startsWith(text)).length;
  assert.deepEqual([count('clock'), count('unknown: one of more than 128')], [128, 72]);
  pair.explainer.forget();
  pair.open(41_000);
  pair.pvm(reply(41_000, '03:22:35'));
  pair.svm(reply(41_000, '03:22:36'));
  assert.equal(pair.found.at(-1), 'clock: a time of day');
});
