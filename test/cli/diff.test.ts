/** `colo diff` as a process, over two small captures with known differences. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { DiffReport } from '../../src/diff/report.ts';
import { pcap, pcapng } from '../capture/captures.ts';
import { answer, at, question } from '../diff/recordings.ts';
import { tempFolder } from '../temp-folder.ts';
import { type Result, runColo } from './colo.ts';

const folder = tempFolder();
const colo = (...args: string[]): Promise<Result> => runColo(args, folder);

const asked = [0, 100, 200, 300].map((ms, i) => at(ms, question(`question ${i}`)));
const primary = [...asked, ...[1, 101, 201].map((ms, i) => at(ms, answer(`the answer is ${i}`)))];
const secondary = [
  ...asked,
  at(2, answer('the answer is 0')),
  at(102, answer('the answer is \u001b[31m')),
  at(240, answer('the answer is 2')),
];
const inOrder = <T extends { ms: number }>(records: T[]): T[] => records.toSorted((a, b) => a.ms - b.ms);
writeFileSync(join(folder, 'p.pcap'), pcap(inOrder(primary), { endian: 'big', nano: true }));
writeFileSync(join(folder, 's.pcapng.gz'), gzipSync(pcapng(inOrder(secondary))));

const TEXT = `primary      p.pcap: 7 frames, 3 of the VM, 4 to it
secondary    s.pcapng.gz: 7 frames, 3 of the VM, 4 to it
vm           52:54:00:12:34:56, the only one with QEMU's prefix
clocks       as they are (4 input frames are in both files)
compared     300 ms, 1 flow
matched      1 frame
harmless     0 frames
held         0 frames at the end
divergences  1 in 1 flow: diverged-length 1
classes      length 1
checkpoints  2 (6.7/s): wait-primary 1, diverged-length 1; they released 2 frames
waits        20 ms median, 20 ms p99, 20 ms longest

#1  0.101000 s  diverged-length, datagram 2
    udp 10.0.2.15:53 <-> 10.0.2.2:5000
    primary frame 4; secondary frame 4
    length: one datagram is longer
    primary   0006  73 77 65 72 20 69 73 20 31                       swer is 1
    secondary 0006  73 77 65 72 20 69 73 20 1b 5b 33 31 6d           swer is .[31m

#2  0.201000 s  wait-primary, datagram 3, after 1 in this flow
    udp 10.0.2.15:53 <-> 10.0.2.2:5000
    primary frame 6
    the secondary sent as much 39 ms later
`;

test('as text', async () => {
  const { code, out, err } = await colo('diff', 'p.pcap', 's.pcapng.gz');
  assert.equal(err, '');
  assert.equal(out, TEXT);
  assert.equal(code, 0);
  const fewer = await colo('diff', 'p.pcap', 's.pcapng.gz', '--max', '1');
  assert.ok(fewer.out.endsWith('\n\n1 more; show them with --max N or --json --max N\n'), fewer.out);
});

test('as JSON', async () => {
  const { code, out, err } = await colo(
    'diff',
    'p.pcap',
    's.pcapng.gz',
    '--json',
    '--mac',
    '52:54:00:12:34:56',
  );
  assert.deepEqual([code, err, out.split('\n').length], [0, '', 2]);
  const report = JSON.parse(out) as DiffReport;
  assert.equal(report.version, 1);
  assert.deepEqual(report.vm, { mac: '52:54:00:12:34:56', how: 'given' });
  assert.deepEqual(report.compared.divergences, { 'diverged-length': 1 });
  assert.deepEqual(
    report.findings.map(({ reason, primary, secondary }) => [reason, primary?.frame, secondary?.frame]),
    [
      ['diverged-length', 4, 4],
      ['wait-primary', 6, undefined],
    ],
  );
});

test('captures without a difference', async () => {
  const { code, out } = await colo('diff', 'p.pcap', 'p.pcap');
  assert.equal(code, 0);
  assert.match(out, /^divergences {2}0\ncheckpoints {2}0\n/m);
  assert.ok(!out.includes('#1'));
});

test('wrong arguments and files are refused', async () => {
  writeFileSync(join(folder, 'text'), 'node: a\n');
  const cases: [string[], number, RegExp][] = [
    [['diff'], 2, /^COLO_USAGE: missing required argument 'primary'/],
    [['diff', 'p.pcap'], 2, /^COLO_USAGE: p\.pcap does not hold both VMs/],
    [['diff', 'p.pcap', 'none'], 1, /^COLO_PCAP_READ: cannot read none: there is no such file$/],
    [['diff', 'text', 'p.pcap'], 1, /^COLO_PCAP_FORMAT: text is not a capture/],
    [['diff', 'p.pcap', 'p.pcap', '--mac', 'x'], 2, /^COLO_USAGE: .*six pairs of hex digits/],
    [['diff', 'p.pcap', 'p.pcap', '--max', '-1'], 2, /^COLO_USAGE: .*whole number/],
    [
      ['diff', 'p.pcap', 'p.pcap', '--mac', '02:00:00:00:00:99'],
      1,
      /^COLO_DIFF_MAC: p\.pcap has no frame that/,
    ],
  ];
  const results = await Promise.all(cases.map(([args]) => colo(...args)));
  for (const [i, { code, out, err }] of results.entries()) {
    assert.match(err.trimEnd(), cases[i][2]);
    assert.deepEqual([code, out, err.split('\n').length], [cases[i][1], '', 2]);
  }
});
