/**
 * Hostile content: whatever two VMs send, a divergence gets a class, in our own words, after a bounded number of bytes.
 *
 * COLO_DIVERGENCE_SEED and COLO_DIVERGENCES choose others, and more.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FrameBytes } from '../../src/divergence/difference.ts';
import { explain } from '../../src/divergence/explain.ts';
import { DIVERGENCE_CLASSES } from '../../src/divergence/explained.ts';
import { FrameExplainer, type SentFrame } from '../../src/divergence/explainer.ts';
import type { Sent } from '../../src/divergence/sent.ts';
import { tcp } from '../compare/rig.ts';
import { Dice } from '../dice.ts';
import { placed, udpFrame } from '../frames.ts';
import * as samples from './samples.ts';

const SEED = Number(process.env.COLO_DIVERGENCE_SEED ?? 1);
const CASES = Number(process.env.COLO_DIVERGENCES ?? 3000);

const TEXTS = [
  'HTTP/1.1 200 OK\r\nDate: Mon, 30 Nov 2026 03:22:35 GMT\r\n\r\n',
  '*2\r\n$10\r\n1796008955\r\n$6\r\n123456\r\n',
  '2026-11-30T03:22:35.123Z 20261130032235Z uptime_in_seconds:12 took 12.5 ms',
  '::::::::00:00:00:00:00:00',
  '0123456789'.repeat(20),
  '=:"\' .,'.repeat(20),
].map((text) => Buffer.from(text));
const CONTENTS: Buffer[] = [...TEXTS, ...Object.values(samples).filter((one) => Buffer.isBuffer(one))];

/** Samples that were cut, joined, damaged and lengthened. */
function content(dice: Dice): Buffer {
  const parts: Buffer[] = [];
  for (let part = dice.roll(3); part >= 0; part--) {
    const from = dice.chance(4) ? dice.bytes(dice.roll(80)) : dice.pick(CONTENTS);
    const start = dice.chance(2) ? 0 : dice.roll(from.length + 1);
    parts.push(
      from.subarray(start, dice.chance(2) ? from.length : start + dice.roll(from.length - start + 1)),
    );
  }
  return damaged(Buffer.concat(parts), dice);
}

function damaged(bytes: Buffer, dice: Dice): Buffer {
  const copy = Buffer.from(bytes);
  for (let changes = dice.roll(4); changes > 0 && copy.length > 0; changes--)
    copy[dice.roll(copy.length)] = dice.pick([0, 0x39, 0x3a, 0xff, dice.roll(256)]);
  return copy;
}

function frame(payload: Buffer, dice: Dice, kind: 'tcp' | 'udp'): FrameBytes {
  const client = 40_000 + dice.roll(3);
  if (kind === 'udp') return placed(udpFrame({ sourcePort: 53, destinationPort: client, payload }));
  const seq = dice.pick([0, 1, 0x7fff_fff0, 0xffff_fff0]) + dice.roll(20);
  return placed(tcp({ sourcePort: 443, destinationPort: client, seq, payload }));
}

test('every divergence gets a class, and words that no VM has sent', () => {
  const explainer = new FrameExplainer('plain');
  const seen = new Map<string, number>();
  const words = new Set<string>();
  for (let i = 0; i < CASES; i++) {
    const dice = new Dice(SEED + i);
    const kind = dice.pick(['tcp', 'udp'] as const);
    const mine = content(dice);
    const theirs = dice.chance(3) ? content(dice) : damaged(mine, dice);
    const others: SentFrame[] = Array.from({ length: dice.roll(4) }, () => ({
      side: dice.pick(['primary', 'secondary'] as const),
      frame: frame(dice.chance(2) ? dice.pick([mine, theirs]) : content(dice), dice, kind),
    }));
    const reason = dice.pick(['diverged-bytes', 'diverged-length'] as const);
    const found = explainer.explain(reason, frame(mine, dice, kind), frame(theirs, dice, kind), others);
    assert.ok(DIVERGENCE_CLASSES.includes(found.class), `seed ${SEED + i}`);
    assert.match(found.why, /^[A-Za-z0-9 ,.'()-]{5,75}$/, `seed ${SEED + i}`);
    words.add(found.why);
    seen.set(found.class, (seen.get(found.class) ?? 0) + 1);
  }
  assert.ok(words.size < 40);
  for (const one of ['order', 'clock', 'random', 'length', 'unknown']) assert.ok(seen.has(one), one);
});

test('frames that lie about their lengths have a class, too', () => {
  const explainer = new FrameExplainer('plain');
  for (let i = 0; i < CASES; i++) {
    const dice = new Dice(SEED + i);
    const mine = frame(content(dice), dice, 'tcp');
    const theirs = frame(content(dice), dice, 'tcp');
    for (const one of [mine, theirs]) {
      for (let changes = dice.roll(6); changes > 0; changes--)
        one.bytes[one.at + dice.roll(Math.min(one.length, 70))] = dice.roll(256);
      one.length = dice.roll(one.length + 1);
    }
    const { class: found } = explainer.explain('diverged-bytes', mine, theirs, [
      { side: 'primary', frame: mine },
    ]);
    assert.ok(DIVERGENCE_CLASSES.includes(found), `seed ${SEED + i}`);
  }
});

/** Counts the bytes that are read. */
function counted(bytes: Uint8Array, count: { reads: number }): Uint8Array {
  return new Proxy(bytes, {
    get: (target, name) => {
      count.reads++;
      return target[name as unknown as number];
    },
  });
}

test('a payload of 64 KiB costs no more than a small one', () => {
  const record = Buffer.from([23, 3, 3, 0x40, 0x11]);
  const hostile = [
    Buffer.alloc(65_536),
    Buffer.alloc(65_536, 'ab'),
    Buffer.alloc(65_536, '1'),
    Buffer.alloc(65_536, '00:00:00 '),
    Buffer.alloc(65_536, Buffer.from([23, 3, 3, 0, 1, 0])),
    Buffer.alloc(65_536, Buffer.concat([record, Buffer.alloc(0x4011, 1)])),
    Buffer.alloc(65_536, Buffer.from(Array.from({ length: 251 }, (_, i) => i))),
  ];
  for (const bytes of hostile) {
    for (const at of [0, 30, 32_768, 65_535]) {
      const count = { reads: 0 };
      const other = Buffer.from(bytes);
      other[at] ^= 1;
      const sent = (one: Buffer): Sent => ({ bytes: counted(one, count), from: 0, at, to: one.length });
      const others = [
        { side: 'primary', flow: 'other', bytes: counted(bytes, count), from: 0, to: 65_536 },
      ] as const;
      const queued = { primary: 0, secondary: 0 };
      explain('diverged-bytes', {
        primary: sent(bytes),
        secondary: sent(other),
        servicePort: 53,
        others,
        queued,
      });
      assert.ok(count.reads < 80_000, `${count.reads} bytes were read`);
    }
  }
});
