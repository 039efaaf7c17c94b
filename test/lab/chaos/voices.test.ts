/** The judge of voices: who may speak after whom, by the generations of the arbiter's record. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Reigns, reignsOf, VoiceJudge } from '../../../lab/chaos/voices.ts';
import type { NodeEvent } from '../../../src/observe/status.ts';

const reigns = (...primaries: readonly string[]): Reigns =>
  primaries.map((primary, i) => ({ generation: i + 1, primary }));

/** Judges frames of these hosts, one each. Returns which of them were second voices. */
function seconds(hosts: string, record: Reigns, judge = new VoiceJudge()): number[] {
  const frames = [...hosts].map((host, atMs) => ({ host: host as 'a' | 'b', atMs }));
  judge.judge(frames, record);
  assert.equal(judge.frames, hosts.length);
  return judge.seconds.map(({ atMs }) => atMs);
}

test('the promoted node speaks after the former primary', () => {
  assert.deepEqual(seconds('aaabbb', reigns('a', 'a', 'b')), []);
});

test('one frame of the former primary after the first of the promoted one is a second voice', () => {
  assert.deepEqual(seconds('aabab', reigns('a', 'a', 'b')), [3]);
});

test('a secondary that speaks is a second voice, and the primary is not', () => {
  assert.deepEqual(seconds('aabaa', reigns('a', 'a')), [2]);
});

test('the former primary may speak once it has been promoted again', () => {
  assert.deepEqual(seconds('aabbaa', reigns('a', 'b', 'b', 'a')), []);
  assert.deepEqual(seconds('abab', reigns('a', 'b', 'b', 'a')), [3]);
});

test('a node that was promoted and never spoke is no reason against the next', () => {
  assert.deepEqual(seconds('aa', reigns('a', 'b', 'a')), []);
});

test('once a pair is settled, earlier generations are over, whoever has spoken in them', () => {
  const judge = new VoiceJudge();
  const record = reigns('a', 'b', 'a', 'a');
  assert.deepEqual(seconds('aa', record, judge), []);
  judge.settle(4);
  judge.judge([{ host: 'b', atMs: 9 }], record);
  assert.deepEqual(judge.seconds, [{ host: 'b', atMs: 9, after: 4 }]);
});

test('a frame of a node that was never a primary is a second voice', () => {
  assert.deepEqual(seconds('b', []), [0]);
});

test('the reigns are those of the stored records, won or found, in the order of their generations', () => {
  const event = (type: string, details: object): NodeEvent => ({
    seq: 1,
    at: '',
    node: 'a',
    type,
    ...details,
  });
  const events = [
    event('arbiter.won', { revision: 3, generation: 3, primary: 'b' }),
    event('arbiter.won', { revision: 1, generation: 1, primary: 'a' }),
    event('arbiter.lost', { revision: 2, generation: 2, primary: 'a' }),
    event('arbiter.lost', { revision: 0 }),
    event('pair.state', { generation: 9, primary: 'b' }),
  ];
  assert.deepEqual(reignsOf(events), reigns('a', 'a', 'b'));
});
