/** Gaps in two recordings: what a file lacks, and what comes out of order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Record } from '../capture/captures.ts';
import { type Numbers, PVM, SVM } from '../translate/connection.ts';
import { answer, at, compare, question } from './recordings.ts';
import { changed, ends, frames, opening, reasons, sends, sound } from './streams.ts';

test('what the secondary sent out of order counts although the other file has ended before', async () => {
  const all = (vm: Numbers, lagMs: number, order: number[]): Record[] => [
    ...opening(vm),
    ...order.map((i, n) => sends(vm, 100 + lagMs + n * 2, i * 100, 100)),
  ];
  const primary = all(PVM, 0, [0, 1, 2, 3]);
  sound(await compare(primary, [...all(SVM, 2, [0, 1, 3, 2]), ...ends(500)]));
  // If it does not come within a tenth of a second, it is not in the file.
  const report = await compare(primary, [...all(SVM, 2, [0, 1, 3]), ...ends(500)]);
  assert.deepEqual(reasons(report), ['gap-in-secondary']);
});

test('what the primary sent out of order counts although the other file has ended before', async () => {
  const all = (vm: Numbers, lagMs: number, order: number[]): Record[] => [
    ...opening(vm),
    ...order.map((i, n) => sends(vm, 100 + lagMs + n * 2, i * 100, 100)),
  ];
  const secondary = all(SVM, -1, [0, 1, 2, 3]);
  const report = await compare([...all(PVM, 0, [0, 1, 3, 2]), ...ends(500)], secondary);
  sound(report);
  assert.deepEqual([report.compared.inGaps, report.primary.outside], [1, 0]);
  const differs = all(PVM, 0, [0, 1, 3, 2]).with(-1, at(106, changed(sends(PVM, 106, 200, 100).frame, 1)));
  const found = await compare([...differs, ...ends(500)], secondary);
  assert.deepEqual(found.findings.map(frames), [['diverged-bytes', 7, 6]]);
  // Nothing else is compared beyond the end.
  const more = [...all(PVM, 0, [0, 1, 3]), sends(PVM, 107, 400, 100), at(108, answer('late'))];
  const without = await compare([...more, ...ends(500)], secondary);
  assert.deepEqual([reasons(without), without.primary.outside], [['gap-in-primary'], 2]);
});

test('a byte that differs in two gaps which overlap is one difference', async () => {
  const recording = (vm: Numbers, pieces: [number, number][], change = 0): Record[] => [
    ...opening(vm),
    sends(vm, 10, 0, 100),
    ...pieces.map(([place, bytes], i) => {
      const { frame } = sends(vm, 20 + i, place, bytes);
      return at(20 + i, place === 100 ? changed(frame, change) : Buffer.from(frame));
    }),
    ...ends(9000),
  ];
  const primary = recording(PVM, [
    [300, 50],
    [100, 80],
    [180, 120],
  ]);
  const secondary = recording(
    SVM,
    [
      [180, 100],
      [100, 80],
      [280, 70],
    ],
    1,
  );
  for (const [mine, theirs] of [
    [primary, secondary],
    [secondary, primary],
  ]) {
    const report = await compare(mine, theirs);
    assert.deepEqual(report.findings.map(frames), [['diverged-bytes', 6, 6]]);
  }
});

test('bytes that lie in two gaps which overlap are missing once', async () => {
  const recording = (vm: Numbers, pieces: [number, number][]): Record[] => [
    ...opening(vm),
    sends(vm, 10, 0, 100),
    ...pieces.map(([place, bytes], i) => sends(vm, 20 + i, place, bytes)),
    ...ends(9000),
  ];
  // The primary's file lacks 180 to 300, the secondary's 160 to 180, and both 400 to 420.
  const primary = recording(PVM, [
    [300, 50],
    [100, 80],
    [350, 50],
    [430, 50],
    [420, 10],
  ]);
  const secondary = recording(SVM, [
    [180, 120],
    [100, 60],
    [300, 100],
    [450, 30],
    [420, 30],
  ]);
  const report = await compare(primary, secondary);
  assert.deepEqual(report.findings.map(frames), [
    ['gap-in-primary', null, 5],
    ['gap-in-secondary', 6, null],
  ]);
  const gaps = report.gaps.map(({ at, bytes, in: inFile }) => [at, bytes, inFile]);
  assert.deepEqual(gaps.sort(), [
    [160, 20, 'primary'],
    [180, 120, 'secondary'],
    [400, 20, 'neither'],
  ]);
});

test('a gap names no frame that lies after it', async () => {
  // What the secondary's file lacks left the primary at a checkpoint of another connection, before the gap was noticed.
  const primary = [
    ...opening(PVM),
    at(5, question('q')),
    at(6, answer('0')),
    at(10, answer('this')),
    sends(PVM, 20, 0, 50),
    sends(PVM, 100, 50, 100),
    ...ends(9000),
  ];
  const secondary = [
    ...opening(SVM),
    at(5, question('q')),
    at(6, answer('0')),
    sends(SVM, 101, 80, 70),
    sends(SVM, 102, 50, 30),
    ...ends(9000),
  ];
  const report = await compare(primary, secondary);
  assert.deepEqual(report.findings.map(frames), [['wait-primary', 6, null]]);
  assert.deepEqual(
    report.gaps.map(({ at, bytes, in: inFile }) => [at, bytes, inFile]),
    [[0, 50, 'primary']],
  );
});
