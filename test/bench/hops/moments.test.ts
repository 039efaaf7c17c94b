/** The hops of round trips, from moments and traces that are made up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HOPS, hopsOf, type Moment, momentsOfVm, NEXT, type What } from '../../../bench/hops/moments.ts';

/** One round trip from `ms` on. */
function trip(ms: number, without?: What): Moment[] {
  const moments: [What, number][] = [
    ['a request', 0],
    ['va in', 2],
    ['b request', 3],
    ['va out', 4],
    ['vb in', 5],
    ['va out', 7],
    ['a pvm', 8],
    ['vb out', 11],
    ['b svm', 13],
    ['vb out', 14],
    ['a svm', 16],
    ['a released', 20],
  ];
  return moments.filter(([what]) => what !== without).map(([what, at]) => ({ ms: ms + at, what }));
}

test('each hop is the time from its start to its end; an announcement after the reply is of something else', () => {
  const hops = hopsOf([...trip(0), ...trip(100)].toReversed());
  const took = HOPS.map(({ name }) => hops.get(name));
  assert.deepEqual(took, [[2], [3], [2], [5], [6], [1], [2], [3], [4], [20]]);
  assert.deepEqual(hops.get(NEXT), [80]);
});

test('a round trip of which a moment is missing counts for nothing, and neither does the last one', () => {
  for (const { what } of trip(0).filter(({ what }) => what !== 'a request' && !what.endsWith(' out'))) {
    const hops = hopsOf([...trip(0, what), ...trip(100), ...trip(200)]);
    assert.deepEqual(hops.get(NEXT), [80], what);
  }
});

test('of a trace, buffers that were filled for the guest and announcements of what it sends count', () => {
  const trace = [
    '2026-12-01T07:10:19.000100Z virtqueue_fill vq 0x55 elem 0x66 len 66 idx 0',
    '2026-12-01T07:10:19.000200Z virtqueue_fill vq 0x77 elem 0x88 len 0 idx 0',
    '2026-12-01T07:10:19.000300Z virtio_queue_notify vdev 0x1 n 1 vq 0x77',
    '2026-12-01T07:10:19.000400Z virtio_queue_notify vdev 0x1 n 0 vq 0x55',
    'qemu: something else',
    '2026-12-01T07',
  ].join('\n');
  assert.deepEqual(
    momentsOfVm('va', trace).map(({ ms, what }) => [what, Math.round((ms % 1) * 1000)]),
    [
      ['va in', 100],
      ['va out', 300],
    ],
  );
});
