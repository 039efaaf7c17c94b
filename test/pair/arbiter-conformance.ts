/** What every arbiter promises (src/pair/arbiter.ts), as tests that each of them runs. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import type { Arbiter, PairRecord } from '../../src/pair/arbiter.ts';

/** Lets a change that is asked of an arbiter, the first node's way, end in an error. */
export type Late = {
  /** It is carried out after that. */
  applied(swap: (arbiter: Arbiter) => Promise<unknown>): Promise<void>;
  /** It arrives after `meanwhile`. */
  overtaken(swap: (arbiter: Arbiter) => Promise<unknown>, meanwhile: () => Promise<void>): Promise<void>;
};

/** One arbiter and the two nodes that ask it. `run` resolves as the promise does, and lets the arbiter's time pass. */
export type Arbitrated = {
  /** Two nodes' own ways to one store that is empty. */
  readonly nodes: readonly [Arbiter, Arbiter];
  run<T>(promise: Promise<T>): Promise<T>;
  /** Where a change may be made later than its call returns. */
  readonly late?: Late;
};

export const alone = (generation: number, primary: string): PairRecord => ({
  generation,
  state: 'alone',
  primary,
  secondary: null,
});
export const pairOf = (generation: number, primary: string, secondary: string): PairRecord => ({
  generation,
  state: 'pair',
  primary,
  secondary,
});

export function conforms(
  name: string,
  lateness: 'may-be-late' | 'never-late',
  open: (t: TestContext) => Promise<Arbitrated>,
): void {
  const it = (title: string, body: (arbitrated: Arbitrated) => Promise<void>): void => {
    test(`${name}: ${title}`, async (t) => body(await open(t)));
  };

  it('an empty one has no record', async ({ nodes: [a], run }) => {
    assert.deepEqual(await run(a.read()), { revision: 0, record: null });
  });

  it('a change is what both nodes read', async ({ nodes: [a, b], run }) => {
    const { revision } = await run(a.read());
    const first = await run(a.compareAndSwap(revision, alone(1, 'a')));
    assert.equal(first.won, true);
    assert.deepEqual(first.record, alone(1, 'a'));
    assert.ok(first.revision > revision);
    for (const one of [a, b])
      assert.deepEqual(await run(one.read()), { revision: first.revision, record: first.record });
    const second = await run(b.compareAndSwap(first.revision, pairOf(2, 'a', 'b')));
    assert.equal(second.won, true);
    assert.ok(second.revision > first.revision);
    assert.deepEqual(await run(a.read()), { revision: second.revision, record: pairOf(2, 'a', 'b') });
  });

  it('a change with an old revision changes nothing and returns what is stored', async ({
    nodes: [a, b],
    run,
  }) => {
    const first = await run(a.compareAndSwap(0, alone(1, 'a')));
    assert.deepEqual(await run(b.compareAndSwap(0, alone(1, 'b'))), { ...first, won: false });
    const second = await run(a.compareAndSwap(first.revision, alone(2, 'a')));
    assert.deepEqual(await run(b.compareAndSwap(first.revision, alone(2, 'b'))), { ...second, won: false });
    assert.deepEqual(await run(a.read()), { revision: second.revision, record: alone(2, 'a') });
  });

  it('one of several changes of the same revision wins', async ({ nodes, run }) => {
    let revision = 0;
    for (let generation = 1; generation <= 5; generation++) {
      const asked = ['a', 'b', 'c', 'd'].map((who, i) =>
        nodes[i % 2].compareAndSwap(revision, alone(generation, who)),
      );
      const replies = await run(Promise.all(asked));
      const winners = replies.filter(({ won }) => won);
      assert.equal(winners.length, 1);
      for (const reply of replies) assert.deepEqual({ ...reply, won: true }, winners[0]);
      ({ revision } = winners[0]);
    }
  });

  it('names of any length and kind come back as they were', async ({ nodes: [a, b], run }) => {
    const record = pairOf(1, 'node-1.example', 'X'.repeat(63));
    await run(a.compareAndSwap(0, record));
    assert.deepEqual((await run(b.read())).record, record);
  });

  it('a probe returns what is stored and changes nothing', async ({ nodes: [a, b], run }) => {
    assert.deepEqual(await run(a.probe()), { revision: 0, record: null });
    assert.deepEqual(await run(b.read()), { revision: 0, record: null });
    const { won, ...stored } = await run(a.compareAndSwap(0, alone(1, 'a')));
    assert.equal(won, true);
    for (const one of [a, b, a]) assert.deepEqual(await run(one.probe()), stored);
    assert.deepEqual(await run(a.read()), stored);
  });

  if (lateness === 'never-late') return;

  it('a change that ended in an error may be made later, and then counts', async ({
    nodes: [a, b],
    run,
    late,
  }) => {
    assert.ok(late !== undefined);
    const { revision } = await run(a.compareAndSwap(0, pairOf(1, 'b', 'a')));
    await late.applied((one) => run(one.compareAndSwap(revision, alone(2, 'a'))));
    // Only now does a reply say so, to either node, and the node that asked finds its own record.
    const stored = await run(b.read());
    assert.deepEqual(stored.record, alone(2, 'a'));
    assert.deepEqual(await run(b.compareAndSwap(revision, alone(2, 'b'))), { ...stored, won: false });
    assert.deepEqual((await run(a.compareAndSwap(revision, alone(2, 'a')))).record, alone(2, 'a'));
  });

  it('a change that comes late is judged by what is stored then', async ({ nodes: [a, b], run, late }) => {
    assert.ok(late !== undefined);
    const { revision } = await run(a.compareAndSwap(0, pairOf(1, 'b', 'a')));
    await late.overtaken(
      (one) => run(one.compareAndSwap(revision, alone(2, 'a'))),
      async () => {
        assert.equal((await run(b.compareAndSwap(revision, alone(2, 'b')))).won, true);
      },
    );
    assert.deepEqual((await run(a.read())).record, alone(2, 'b'));
  });
}

/** Asserts that a call rejects with a code of the arbiter. */
export async function noReply(promise: Promise<unknown>): Promise<ColoError> {
  const cause = await promise.then(
    () => assert.fail('there was a reply'),
    (error: unknown) => error,
  );
  assert.ok(cause instanceof ColoError && cause.code.startsWith('COLO_ARBITER_'), String(cause));
  return cause;
}
