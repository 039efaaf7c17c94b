import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOptions } from '../../../bench/link/options.ts';

test('the options have defaults, and parts keep their order', () => {
  assert.deepEqual(readOptions([]), {
    parts: ['frames', 'pause', 'delay'],
    count: 60,
    rounds: 3,
    ms: 4000,
    delaysMs: [0, 0.2, 1, 5],
  });
  assert.deepEqual(readOptions(['--parts', 'delay,frames', '--delays', '0,2.5', '--seconds', '1']), {
    parts: ['frames', 'delay'],
    count: 60,
    rounds: 3,
    ms: 1000,
    delaysMs: [0, 2.5],
  });
  assert.equal(readOptions(['--help']), null);
});

test('wrong options are refused', () => {
  for (const [args, why] of [
    [['--parts', 'frame'], /there is no part "frame"; choose of frames, pause, delay/],
    [['--delays', '0,,1'], /--delays takes milliseconds from 0 to 100, not ""/],
    [['--delays', '-1'], /--delays/],
    [['--count', '0'], /--count takes a whole number from 1 to 10000/],
    [['--other'], /Unknown option/],
  ] as const)
    assert.throws(() => readOptions([...args]), { code: 'COLO_USAGE', message: why });
});
