/** Whose numbers does the secondary's VM count in? */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Record } from '../capture/captures.ts';
import { ACK } from '../frames.ts';
import { fromClient, fromVm, type Numbers, PVM } from '../translate/connection.ts';
import { at, compare } from './recordings.ts';
import { c, content, ends, opening, reasons, sends, sound } from './streams.ts';

test('a few bytes at a place do not prove that both VMs count alike', async () => {
  const cut = (vm: Numbers, lengths: number[]): Record[] => {
    const segments = lengths.map((bytes, i) => {
      const place = lengths.slice(0, i).reduce((sum, n) => sum + n, 0);
      return sends(vm, 10 + i, place, bytes);
    });
    return [...opening(vm), ...segments, ...ends(9000)];
  };
  // In its own numbers the SVM's three bytes lie where the PVM has sent three others.
  const report = await compare(cut(PVM, [20, 3, 40, 25]), cut({ isn: PVM.isn + 3, ts: 3 }, [17, 3, 43, 25]));
  sound(report);
});

test('a stream that repeats itself does not prove that both VMs count alike', async () => {
  const reply = content(0, 100);
  const replies = (vm: Numbers, lagMs: number, from: number): Record[] =>
    Array.from({ length: 20 - from }, (_, i) => {
      const n = from + i;
      const numbers = { clientAt: 1 + n * 4, vmAt: 1 + n * 100, time: n };
      const next = fromClient(c, vm, { ...numbers, payload: Buffer.from('next') });
      const answered = fromVm(c, vm, { ...numbers, clientAt: 5 + n * 4, payload: reply, flags: ACK });
      return [at(100 + n * 50, next), at(110 + n * 50 + lagMs, answered)];
    }).flat();
  const inTwo = ({ ms }: Record, vm: Numbers, n: number): Record[] =>
    [60, 0].map((from, i) => {
      const numbers = { clientAt: 5 + n * 4, vmAt: 1 + n * 100 + from, time: n };
      const payload = reply.subarray(from, from === 0 ? 60 : 100);
      return { ms: ms + i / 10, frame: fromVm(c, vm, { ...numbers, payload, flags: ACK }) };
    });
  for (const apart of [-100, 100, -500, 500]) {
    const svm = { isn: (PVM.isn + apart) >>> 0, ts: 3 };
    for (const lagMs of [-5, 5]) {
      // From its beginning, and without.
      const whole = [...opening(svm), ...replies(svm, lagMs, 0)];
      sound(
        await compare([...opening(PVM), ...replies(PVM, 0, 0), ...ends(9000)], [...whole, ...ends(9000)]),
      );
      const middle = await compare(
        [...replies(PVM, 0, 5), ...ends(9000)],
        [...replies(svm, lagMs, 2), ...ends(9000)],
        { mac: '52:54:00:12:34:56' },
      );
      sound(middle);
      assert.ok(middle.compared.matched >= 15, `${middle.compared.matched}`);
      // One reply is not in the secondary's file: the numbers jump there, as they do at a checkpoint.
      const gap = whole.toSpliced(3 + 2 * 8 + 1, 1);
      const report = await compare(
        [...opening(PVM), ...replies(PVM, 0, 0), ...ends(9000)],
        [...gap, ...ends(9000)],
      );
      assert.deepEqual(reasons(report), ['gap-in-secondary'], `${apart}, ${lagMs}`);
      // The first reply comes in two pieces, the second first.
      const pieces = whole.flatMap((record, i) => (i === 3 + 1 ? inTwo(record, svm, 0) : [record]));
      sound(
        await compare([...opening(PVM), ...replies(PVM, 0, 0), ...ends(9000)], [...pieces, ...ends(9000)]),
      );
      const twice = whole.flatMap((record) => [record, { ...record, ms: record.ms + 0.003 }]);
      sound(
        await compare([...opening(PVM), ...replies(PVM, 0, 0), ...ends(9000)], [...twice, ...ends(9000)]),
      );
      // The reply after the first that both have is not there.
      const late = await compare(
        [...replies(PVM, 0, 5), ...ends(9000)],
        [...replies(svm, lagMs, 2).toSpliced(2 * (7 - 2) + 1, 1), ...ends(9000)],
        { mac: '52:54:00:12:34:56' },
      );
      assert.deepEqual(reasons(late), ['gap-in-secondary'], `${apart}, ${lagMs}`);
    }
  }
});
