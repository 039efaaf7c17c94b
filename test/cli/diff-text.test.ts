import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diffText } from '../../src/cli/diff-text.ts';
import type { DiffReport, Finding } from '../../src/diff/report.ts';

const side = (file: string) => ({
  file,
  frames: 1,
  output: 1,
  input: 0,
  foreign: 0,
  cut: 0,
  malformed: 0,
  outside: 0,
  leftOut: 0,
});

const found = (rest: Partial<Finding>): Finding => ({
  reason: 'diverged-bytes',
  class: null,
  why: null,
  flow: 'tcp a <-> b',
  timeMs: 0,
  earlierInFlow: 0,
  position: { unit: 'byte', at: 1_234_567 },
  primary: null,
  secondary: null,
  cameAfterMs: null,
  ...rest,
});

const report = (rest: Partial<DiffReport>): DiffReport => ({
  version: 1,
  vm: { mac: null, how: 'by interface' },
  clocks: { secondaryAheadMs: 0, how: 'one file' },
  durationMs: 0,
  primary: side('p'),
  secondary: side('s'),
  compared: {
    flows: 0,
    flowsLeftOut: 0,
    matched: 0,
    matchedLate: 0,
    harmless: 0,
    releasedByCheckpoint: 0,
    heldAtEnd: 0,
    inGaps: 0,
    duplicates: 0,
    nearBeginning: 0,
    secondaryUnmatched: 0,
    divergences: {},
    divergencesByClass: {},
    flowsDiverged: 0,
    checkpoints: {},
    waits: { p50Ms: 0, p99Ms: 0, maxMs: 0 },
  },
  checkpointsPerSecond: 0,
  findings: [],
  findingsLeftOut: 0,
  gaps: [],
  warnings: [],
  ...rest,
});

const row = (text: string, name: string): string | undefined =>
  text.split('\n').find((line) => line.startsWith(name.padEnd(13)));

test('the summary has only those counts that are not zero', () => {
  const plain = diffText(report({}));
  assert.equal(row(plain, 'primary'), 'primary      p: 1 frame, 1 of the VM, 0 to it');
  assert.equal(row(plain, 'vm'), 'vm           by interface');
  assert.equal(row(plain, 'warning'), undefined);
  const odd = diffText(
    report({
      secondary: { ...side('s\u001b[2J'), foreign: 1, cut: 2, malformed: 3, outside: 4000, leftOut: 5 },
      clocks: { secondaryAheadMs: -1500, how: 'so' },
      warnings: ['one', 'two\n'],
    }),
  );
  assert.equal(
    row(odd, 'secondary'),
    'secondary    s?[2J: 1 frame, 1 of the VM, 0 to it, 1 foreign, 2 cut, 3 malformed, 4 000 outside the other, 5 left out',
  );
  assert.equal(row(odd, 'clocks'), 'clocks       secondary behind by 1.5 s (so)');
  assert.ok(odd.endsWith('warning      one\nwarning      two?'));
});

test('an unknown reason is shown like any other', () => {
  const frame = {
    frame: 7,
    atMs: 0,
    flags: 'SYN ACK',
    payloadOffset: 16,
    hex: Buffer.from('0123456789abcdef!').toString('hex'),
  };
  const text = diffText(report({ findings: [found({ reason: 'diverged-order', primary: frame })] }));
  assert.deepEqual(text.split('\n').slice(-5), [
    '#1  0.000000 s  diverged-order, byte 1 234 567',
    '    tcp a <-> b',
    '    primary frame 7 (SYN ACK)',
    '    primary   0010  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef',
    '              0020  21                                               !',
  ]);
});

test('a divergence is shown with its class, and the classes in the summary', () => {
  const { compared } = report({});
  const text = diffText(
    report({
      compared: {
        ...compared,
        divergences: { 'diverged-bytes': 3 },
        divergencesByClass: { clock: 1, order: 2 },
        flowsDiverged: 2,
      },
      findings: [found({ class: 'clock', why: 'a time of day' })],
    }),
  );
  assert.equal(row(text, 'classes'), 'classes      order 2, clock 1');
  assert.equal(text.split('\n').at(-1), '    clock: a time of day');
});

test('a wait is shown with its duration', () => {
  const last = (rest: Partial<Finding>): string | undefined =>
    diffText(report({ findings: [found(rest)] }))
      .split('\n')
      .at(-1);
  assert.equal(
    last({ reason: 'wait-primary', cameAfterMs: 35 }),
    '    the secondary sent as much 35 ms later',
  );
  assert.equal(last({ reason: 'wait-primary' }), "    the secondary's file does not have as much");
  assert.equal(last({ reason: 'wait-secondary' }), "    the primary's file does not have as much");
});

test('what a file lacks is said of the file', () => {
  const gap = { flow: 'tcp a <-> b', timeMs: 4, at: 100, bytes: 1200, in: 'neither' as const };
  const text = diffText(report({ gaps: [gap, { ...gap, in: 'primary' }] }));
  assert.deepEqual(text.split('\n').slice(-3), [
    'gap 0.004000 s, byte 100',
    '    tcp a <-> b',
    '    compared on, behind a gap of 1 200 bytes that is in neither file',
  ]);
  const last = (reason: string): string | undefined =>
    diffText(report({ findings: [found({ reason })] }))
      .split('\n')
      .at(-1);
  assert.match(last('held') ?? '', /the files end before it is known/);
  assert.match(last('gap-in-primary') ?? '', /the primary's file has a gap here/);
  assert.match(last('gap-in-secondary') ?? '', /the secondary's file has a gap here/);
});
