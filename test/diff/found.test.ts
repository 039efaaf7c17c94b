/** Recordings that were once blamed for what they could not know, or for nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Record } from '../capture/captures.ts';
import { ACK, arpFrame, FIN, RST } from '../frames.ts';
import {
  clientSyn,
  fromClient,
  fromVm,
  handshakeAck,
  type Numbers,
  PVM,
  SVM,
  vmSyn,
} from '../translate/connection.ts';
import { answer, at, compare, question } from './recordings.ts';
import { c, changed, content, ends, frames, opening, reasons, sends, sound } from './streams.ts';

test('numbers that are merely near do not place a stream: its bytes do', async () => {
  const lines = (vm: Numbers, from: number, to: number): Record[] =>
    Array.from({ length: to - from }, (_, i) => {
      const n = from + i;
      return [
        at(
          100 + n * 10,
          fromClient(c, vm, {
            clientAt: 1 + n * 4,
            vmAt: 1 + n * 100,
            time: n,
            payload: Buffer.from('next'),
          }),
        ),
        sends(vm, 101 + n * 10, n * 100, 100, ACK, 5 + n * 4),
      ];
    }).flat();
  for (const apart of [0, 100, 1000, -1000, 4096, 0x4000_0000, -0x7000_0000]) {
    const svm = { isn: (PVM.isn + apart) >>> 0, ts: 3 };
    const report = await compare([...opening(PVM), ...lines(PVM, 0, 60)], lines(svm, 20, 60), {
      mac: '52:54:00:12:34:56',
    });
    sound(report);
    assert.ok(report.compared.matched >= 36, `${apart}: ${report.compared.matched}`);
  }
});

test('a stream that repeats itself cannot be placed, and is left out', async () => {
  const beats = (vm: Numbers, from: number, to: number, last: string): Record[] =>
    Array.from({ length: to - from }, (_, i) => {
      const n = from + i;
      const payload = Buffer.from(n === to - 1 ? last : 'one beat of the heart');
      return at(100 + n * 10, fromVm(c, vm, { clientAt: 1, vmAt: 1 + n * 21, time: n, payload }));
    });
  for (const apart of [0, 21, 42, -21, 63_000]) {
    const svm = { isn: PVM.isn + apart, ts: 3 };
    const report = await compare(
      [...opening(PVM), ...beats(PVM, 0, 60, 'the end of it')],
      [at(250, question('x')), ...beats(svm, 20, 60, 'the end of it')],
      { mac: '52:54:00:12:34:56' },
    );
    sound(report);
    assert.equal(report.compared.flowsLeftOut, 1);
  }
});

test('datagrams of recordings that do not begin at one instant', async () => {
  const dialogue = (from: number, to: number): Record[] =>
    Array.from({ length: to - from }, (_, i) => [
      at((from + i) * 5, question(`query ${from + i}`)),
      at((from + i) * 5 + 1, answer(`answer ${from + i}`)),
    ]).flat();
  for (const [p, s] of [
    [0, 2],
    [2, 0],
    [0, 7],
    [7, 0],
  ])
    sound(await compare(dialogue(p, 60), dialogue(s, 60)));
});

test('a stale segment of the secondary costs nothing', async () => {
  const both = (vm: Numbers): Record[] => [
    ...opening(vm),
    at(3, fromClient(c, vm, { clientAt: 1, vmAt: 1, time: 3, payload: Buffer.from('get') })),
    sends(vm, 4, 0, 50, ACK, 4),
    at(5, fromClient(c, vm, { clientAt: 4, vmAt: 51, time: 5, flags: FIN | ACK })),
    at(6, fromVm(c, vm, { clientAt: 5, vmAt: 51, time: 6, flags: RST | ACK })),
  ];
  const minute = Array.from({ length: 60 }, (_, i) => at(1000 + i * 1000, arpFrame()));
  const stale = sends(SVM, 156, 0, 50, ACK, 4);
  sound(await compare([...both(PVM), ...minute], [...both(SVM), stale, ...minute]));
  const early = sends(SVM, 5.5, 0, 50, ACK, 4);
  sound(
    await compare(
      [...both(PVM), ...minute],
      [...both(SVM), early, ...minute].toSorted((a, b) => a.ms - b.ms),
    ),
  );
});

test('a retransmission that spans the start of a recording is compared from there on', async () => {
  const whole = [
    sends(PVM, 0, 0, 46),
    sends(PVM, 1, 46, 40),
    sends(PVM, 2, 86, 31),
    sends(PVM, 301, 0, 150),
    sends(PVM, 320, 150, 20),
    sends(PVM, 901, 0, 200, FIN | ACK),
    ...ends(1000),
  ];
  const mac = '52:54:00:12:34:56';
  const report = await compare(whole, whole, { mac });
  sound(report);
  assert.ok(report.compared.matched >= 3, `${report.compared.matched}`);
  // What lies behind the place is compared.
  const other = whole.map(({ ms, frame }, i) => {
    if (i !== 3) return { ms, frame };
    const changed = Buffer.from(frame);
    changed[changed.length - 10] ^= 1;
    return { ms, frame: changed };
  });
  assert.deepEqual((await compare(whole, other, { mac })).findings.map(frames), [['diverged-bytes', 4, 4]]);
});

test('what both files have before a connection is placed is compared', async () => {
  const mac = '52:54:00:12:34:56';
  // Nothing that has not been sent before follows the place.
  const all = (vm: Numbers): Record[] => [
    sends(vm, 0, 0, 46),
    sends(vm, 1, 46, 31, FIN | ACK),
    sends(vm, 301, 0, 77, FIN | ACK),
    sends(vm, 901, 0, 77, FIN | ACK),
    ...ends(1000),
  ];
  for (const svm of [PVM, SVM]) {
    const report = await compare(all(PVM), all(svm), { mac });
    sound(report);
    assert.deepEqual([report.compared.matched, report.primary.leftOut, report.secondary.leftOut], [4, 0, 0]);
  }
  const lines = (vm: Numbers, without = -1, change = -1): Record[] => [
    ...Array.from({ length: 8 }, (_, i) => {
      const record = sends(vm, 100 + i, i * 50, 50);
      return i === change ? { ...record, frame: changed(record.frame, 1) } : record;
    }).filter((_, i) => i !== without),
    ...ends(9000),
  ];
  for (let i = 0; i < 8; i++) {
    const differs = await compare(lines(PVM), lines(SVM, -1, i), { mac });
    assert.deepEqual(differs.findings.map(frames), [['diverged-bytes', i + 1, i + 1]]);
    assert.equal(differs.findings[0].timeMs, 100 + i - 100);
  }
  // A hole before the place: what is in front of it was sent before the part that is compared.
  for (const i of [0, 1]) {
    sound(await compare(lines(PVM), lines(SVM, i), { mac }));
    sound(await compare(lines(PVM, i), lines(SVM), { mac }));
  }
});

test('a hole that is in both files is reported as such, and what follows is compared', async () => {
  const holed = (vm: Numbers, change = 0): Record[] => [
    ...opening(vm),
    sends(vm, 3, 0, 100),
    at(4, Buffer.from(sends(vm, 4, 200, 100).frame)),
    at(404, changed(sends(vm, 404, 300, 100).frame, change)),
    ...ends(500),
  ];
  const report = await compare(holed(PVM), holed(SVM));
  sound(report);
  assert.deepEqual(
    report.gaps.map(({ at: place, bytes, in: inFile }) => [place, bytes, inFile]),
    [[100, 100, 'neither']],
  );
  const differs = await compare(holed(PVM), holed(SVM, 1));
  assert.deepEqual(differs.findings.map(frames), [['diverged-bytes', 6, 6]]);
});

test('a hole that both files fill late is compared where it is filled', async () => {
  const filled = (vm: Numbers, change = 0): Record[] => [
    ...opening(vm),
    sends(vm, 3, 0, 100),
    sends(vm, 4, 200, 100),
    at(64, changed(sends(vm, 64, 100, 100).frame, change)),
    sends(vm, 464, 300, 100),
    ...ends(500),
  ];
  const report = await compare(filled(PVM), filled(SVM));
  sound(report);
  assert.deepEqual(report.gaps, []);
  const differs = await compare(filled(PVM), filled(SVM, 1));
  assert.deepEqual(differs.findings.map(frames), [['diverged-bytes', 6, 6]]);
  assert.deepEqual(differs.compared.checkpoints, { 'diverged-bytes': 1 });
});

test('a hole in one file is a finding about that file, and costs no checkpoint', async () => {
  const all = (vm: Numbers): Record[] => [
    ...opening(vm),
    sends(vm, 3, 0, 100),
    sends(vm, 4, 100, 100),
    sends(vm, 5, 200, 100),
    sends(vm, 6, 300, 100, FIN | ACK),
    at(7, fromVm(c, vm, { clientAt: 2, vmAt: 402, time: 7 })),
    ...ends(500),
  ];
  for (const hole of [3, 4, 5, 6]) {
    const holed = (vm: Numbers): Record[] => all(vm).toSpliced(hole, 1);
    const inSecondary = await compare(all(PVM), holed(SVM));
    assert.deepEqual(inSecondary.findings.map(frames), [['gap-in-secondary', hole + 1, null]]);
    const inPrimary = await compare(holed(PVM), all(SVM));
    assert.deepEqual(inPrimary.findings.map(frames), [['gap-in-primary', null, hole + 1]]);
    for (const { compared } of [inSecondary, inPrimary])
      assert.deepEqual([compared.checkpoints, compared.divergences, compared.heldAtEnd], [{}, {}, 0]);
  }
});

test('a finding behind a hole has the bytes that were recorded', async () => {
  const both = (vm: Numbers, ...rest: Record[]): Record[] => [
    ...opening(vm),
    sends(vm, 3, 0, 100),
    ...rest,
    ...ends(500),
  ];
  const holed = at(5, changed(sends(SVM, 5, 150, 6).frame, 1));
  const { findings } = await compare(both(PVM, sends(PVM, 4, 100, 56)), both(SVM, holed));
  const found = findings.find(({ reason }) => reason === 'diverged-bytes');
  assert.deepEqual(
    [found?.position?.at, found?.primary?.hex],
    [155, content(147, 9).toString('hex')],
    JSON.stringify(findings),
  );
});

test('segments that were captured out of order, or twice, are compared like others', async () => {
  const all = (vm: Numbers): Record[] => [
    ...opening(vm),
    sends(vm, 3, 0, 100),
    sends(vm, 3.1, 100, 100),
    sends(vm, 3.2, 200, 100),
    sends(vm, 3.3, 300, 100, FIN | ACK),
    ...ends(500),
  ];
  const swapped = (records: Record[], i: number): Record[] =>
    records.map((record, at) => {
      if (at === i) return { ...record, frame: records[i + 1].frame };
      return at === i + 1 ? { ...record, frame: records[i].frame } : record;
    });
  for (const i of [3, 4, 5]) {
    sound(await compare(swapped(all(PVM), i), all(SVM)));
    sound(await compare(all(PVM), swapped(all(SVM), i)));
    const twice = all(SVM).toSpliced(i, 0, all(SVM)[i]);
    sound(await compare(all(PVM), twice));
  }
});

test('each flow that has output held at the end has a finding', async () => {
  const dialogue = (text: string): Record[] => [
    at(0, question('q')),
    at(1, answer('first')),
    at(100, question('r')),
    at(101, answer(text)),
    at(102, answer('last')),
  ];
  const report = await compare(dialogue('this'), dialogue('that'));
  assert.deepEqual(report.findings.map(frames), [['held', 4, 4]]);
  assert.deepEqual([report.compared.heldAtEnd, report.compared.checkpoints], [2, {}]);
});

test('a datagram that one file lacks, or has in another place, is not compared with its neighbour', async () => {
  const texts = ['a', 'b', 'c', 'd', 'e', 'f'];
  const recording = (list: string[]): Record[] => [
    at(0, question('q')),
    at(1, answer('0')),
    ...list.map((text, i) => at(100 + i, answer(text))),
    ...ends(9000),
  ];
  for (let i = 0; i < texts.length; i++) {
    const less = texts.toSpliced(i, 1);
    const missing = await compare(recording(texts), recording(less));
    assert.deepEqual(missing.findings.map(frames), [['wait-primary', 3 + i, null]]);
    const more = await compare(recording(less), recording(texts));
    assert.deepEqual(more.findings.map(frames), [['wait-secondary', null, 3 + i]]);
    const moved = less.toSpliced((i + 2) % 6, 0, texts[i]);
    sound(await compare(recording(texts), recording(moved)));
    const other = texts.with(i, 'another');
    const differs = await compare(recording(texts), recording(other));
    assert.deepEqual(differs.findings.map(frames), [['diverged-length', 3 + i, 3 + i]]);
    assert.deepEqual(differs.compared.checkpoints, { 'diverged-length': 1 });
  }
});

test('a datagram that was captured twice counts once', async () => {
  const plain = [at(0, question('q')), at(1, answer('a')), at(2, answer('b')), ...ends(9000)];
  const report = await compare(plain, plain.toSpliced(1, 0, plain[1]));
  sound(report);
  assert.equal(report.compared.duplicates, 1);
});

test('a SYN that one recording lacks leaves the rest comparable', async () => {
  const all = (vm: Numbers, change = 0): Record[] => [
    ...opening(vm),
    ...Array.from({ length: 10 }, (_, i) => sends(vm, 10 + i, i * 50, 50)),
    at(30, changed(sends(vm, 30, 500, 50).frame, change)),
    ...ends(9000),
  ];
  for (const without of [1, 3]) {
    const less = (vm: Numbers, change = 0): Record[] => all(vm, change).toSpliced(0, without);
    sound(await compare(all(PVM), less(SVM), { mac: '52:54:00:12:34:56' }));
    sound(await compare(less(PVM), all(SVM), { mac: '52:54:00:12:34:56' }));
  }
  const differs = await compare(all(PVM), all(SVM, 1).toSpliced(1, 1));
  assert.deepEqual(reasons(differs), ['diverged-bytes']);
});

test('a connection of which one VM has sent more before the other begins it is not placed by that SYN', async () => {
  // One file begins between the VMs' SYNs: the VM that is ahead goes on in it.
  const all = (vm: Numbers, lagMs: number): Record[] => [
    at(0, clientSyn(c, vm)),
    at(1 + lagMs, vmSyn(c, vm)),
    at(2, handshakeAck(c, vm)),
    at(4, question('q')),
    at(5 + lagMs, fromVm(c, vm, { clientAt: 1, vmAt: 1, time: 5, payload: Buffer.alloc(0), flags: ACK })),
    ...Array.from({ length: 10 }, (_, i) => sends(vm, 40 + i * 30 + lagMs, i * 50, 50)),
    at(400, question('r')),
    ...ends(9000),
  ];
  const less = (vm: Numbers, change = 0): Record[] =>
    all(vm, 0)
      .toSpliced(0, 3)
      .with(9, at(250, changed(sends(vm, 250, 350, 50).frame, change)));
  const options = { mac: '52:54:00:12:34:56' };
  for (const apart of [100, -100, 0x4000_0000]) {
    const svm = { isn: (PVM.isn + apart) >>> 0, ts: 3 };
    for (const [mine, theirs, changedOne] of [
      [less(PVM), all(svm, 12), less(PVM, 1)],
      [all(PVM, 12), less(svm), less(svm, 1)],
    ] as const) {
      const report = await compare([...mine], [...theirs], options);
      sound(report);
      assert.ok(report.compared.matched >= 10, `${report.compared.matched}`);
      const isFirst = report.primary.frames < report.secondary.frames;
      const differs = await compare(
        ...((isFirst ? [changedOne, theirs] : [mine, changedOne]) as [Record[], Record[]]),
        options,
      );
      assert.deepEqual(reasons(differs), ['diverged-bytes']);
    }
  }
});

test('a datagram near the beginning that matched late is not compared with a later one', async () => {
  // The primary is ahead: its first datagrams come before the flow is placed.
  const answers = ['a.0', 'a.1', 'a.2', 'b.0', 'c.0', 'd.0'];
  const times = [50, 51, 52, 120, 200, 260];
  const recording = (lagMs: number, without: string, before: Record[]): Record[] => [
    ...before,
    ...answers.map((text, i) => at(times[i] + lagMs, answer(text))).filter((_, i) => answers[i] !== without),
    at(300, question('z')),
    ...ends(9000),
  ];
  const early = [at(-100, question('x')), at(-90, answer('before'))];
  const report = await compare(recording(0, '', []), recording(8, 'b.0', early), {
    mac: '52:54:00:12:34:56',
  });
  assert.deepEqual(report.findings.map(frames), [['wait-primary', 4, null]]);
});

test('a datagram whose counterpart came late is not compared with one that the other file lost', async () => {
  // "c" leaves at the checkpoint for the other flow's "a", before the secondary's comes.
  const beginning = [
    at(0, question('q')),
    at(1, answer('0')),
    at(2, question('q', 6000)),
    at(3, answer('0', 6000)),
  ];
  const primary = [...beginning, at(485, answer('a', 6000)), at(500, answer('c'))];
  const secondary = [...beginning, at(420, answer('b')), at(508, answer('c'))];
  // At the end of the files, and when "b" is given up.
  const short = await compare([...primary, at(530, question('r'))], [...secondary, at(600, question('r'))]);
  assert.deepEqual(short.findings.map(frames), [['wait-primary', 5, null]]);
  const long = await compare([...primary, ...ends(9000)], [...secondary, ...ends(9000)]);
  assert.deepEqual(long.findings.map(frames), [
    ['wait-secondary', null, 5],
    ['wait-primary', 5, null],
  ]);
});

test('what only the secondary sent is found however often the connections beside it take checkpoints', async () => {
  const recording = (vm: Numbers, name: string, more: Record[]): Record[] => [
    ...opening(vm),
    sends(vm, 10, 0, 100),
    at(20, question('q')),
    at(21, answer('0')),
    ...more,
    ...Array.from({ length: 8 }, (_, i) => at(1000 + i * 1000, answer(`${name} ${i}`))),
    ...ends(9500),
  ];
  const secondary = recording(SVM, 'that', [sends(SVM, 100, 100, 50)]);
  const report = await compare(recording(PVM, 'this', []), secondary);
  const [first] = report.findings.filter(({ reason }) => reason === 'wait-secondary');
  assert.deepEqual(frames(first), ['wait-secondary', null, 7]);
  assert.deepEqual(report.compared.checkpoints, { 'diverged-bytes': 8, 'wait-secondary': 1 });
  // Two connections are ahead: each has a finding.
  const b = { ...c, clientPort: c.clientPort + 1 };
  const two = (vm: Numbers, steps: Record[]): Record[] => [
    ...opening(vm),
    ...[clientSyn(b, vm), vmSyn(b, vm), handshakeAck(b, vm)].map((frame, i) => at(3 + i, frame)),
    ...steps,
    ...ends(9500),
  ];
  const other = fromVm(b, SVM, { clientAt: 1, vmAt: 1, time: 5, payload: content(0, 50), flags: ACK });
  const both = await compare(two(PVM, []), two(SVM, [sends(SVM, 100, 0, 50), at(101, other)]));
  assert.deepEqual(both.findings.map(frames), [
    ['wait-secondary', null, 7],
    ['wait-secondary', null, 8],
  ]);
});
