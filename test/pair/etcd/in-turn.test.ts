import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../../src/error.ts';
import { type Attempt, askInTurn } from '../../../src/pair/etcd/in-turn.ts';
import { FakeTime, settled } from '../../checkpoint/fake-time.ts';

const PATIENCE = { patienceMs: 100, deadlineMs: 1500 };
const never: Attempt<string> = () => new Promise(() => {});
const failure = (text: string): ColoError => new ColoError('COLO_ARBITER_UNREACHABLE', text);

/** Notes when each is asked, by its place. */
function rig(behaviours: readonly Attempt<string>[]) {
  const time = new FakeTime();
  const asked: string[] = [];
  const beginMs = time.now();
  const attempts = behaviours.map(
    (behave, place): Attempt<string> =>
      (signal) => {
        asked.push(`${place} at ${Math.round(time.now() - beginMs)}`);
        return behave(signal);
      },
  );
  const outcome = askInTurn(attempts, { ...PATIENCE, timers: time });
  const pass = async (ms: number): Promise<void> => {
    await settled();
    await time.pass(ms);
    await settled();
  };
  return { asked, outcome, pass };
}

test('a reply at once is the only question', async () => {
  const { asked, outcome, pass } = rig([async () => 'one', async () => 'two']);
  assert.deepEqual(await outcome, { kind: 'reply', value: 'one', by: 0 });
  await pass(2000);
  assert.deepEqual(asked, ['0 at 0']);
});

test('the next is asked at once after a failure', async () => {
  const { asked, outcome } = rig([
    async () => {
      throw failure('refused');
    },
    async () => 'two',
  ]);
  assert.deepEqual(await outcome, { kind: 'reply', value: 'two', by: 1 });
  assert.deepEqual(asked, ['0 at 0', '1 at 0']);
});

test('all that fail are asked once', async () => {
  const { asked, outcome, pass } = rig([
    async () => {
      throw failure('one');
    },
    async () => {
      throw failure('two');
    },
  ]);
  const end = await outcome;
  assert.ok(end.kind === 'none');
  assert.deepEqual(
    end.failures.map((cause) => cause?.message),
    ['one', 'two'],
  );
  await pass(2000);
  assert.equal(asked.length, 2);
});

test('those that hang are asked again, each round twice as patiently, until the deadline', async () => {
  const { asked, outcome, pass } = rig([
    never,
    async () => {
      throw failure('no leader');
    },
  ]);
  for (let i = 0; i < 30; i++) await pass(50);
  const end = await outcome;
  assert.ok(end.kind === 'none');
  assert.deepEqual(
    end.failures.map((cause) => cause?.message ?? null),
    [null, 'no leader'],
  );
  assert.deepEqual(asked, [
    '0 at 0',
    '1 at 100',
    '0 at 200',
    '1 at 400',
    '0 at 600',
    '1 at 1000',
    '0 at 1400',
  ]);
});

test('a slow reply of the first wins over later failures, and ends the other attempts', async () => {
  const first = Promise.withResolvers<string>();
  const signals: AbortSignal[] = [];
  const { outcome, pass } = rig([
    () => first.promise,
    (signal) => {
      signals.push(signal);
      return never(signal);
    },
  ]);
  await pass(150);
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [false],
  );
  first.resolve('late');
  assert.deepEqual(await outcome, { kind: 'reply', value: 'late', by: 0 });
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [true],
  );
});
