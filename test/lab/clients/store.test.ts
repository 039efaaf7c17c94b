import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Store } from '../../../lab/clients/store.ts';
import { eachLine, type Served, serve, whenDone, within } from './servers.ts';

/** What a store does with a value; undefined: it closes the connection without a reply. */
type Keep = (values: Map<string, string>, key: string, value: string, count: number) => string | undefined;

const keep: Keep = (values, key, value) => {
  values.set(key, value);
  return 'stored';
};

async function store(t: TestContext, onPut: Keep) {
  const client = new Store({ target: await served(t, onPut), everyMs: 1, keys: 5 });
  return within(10_000, client.run(whenDone(() => client.puts > 50)));
}

async function served(t: TestContext, onPut: Keep): Promise<Served['target']> {
  const values = new Map<string, string>();
  let puts = 0;
  const reply = (socket: Socket, line: string): string | undefined => {
    const [word, key, value] = line.split(' ');
    if (word === 'get') return values.get(key) ?? 'none';
    puts += 1;
    const said = onPut(values, key, value, puts);
    if (said === undefined) socket.destroy();
    return said;
  };
  return (await serve(t, (socket) => eachLine(socket, (line) => reply(socket, line)))).target;
}

test('a correct store: every key is read once more at the end', async (t) => {
  const { ok, puts, gets, findings, broken } = await store(t, keep);
  assert.deepEqual([ok, findings.count, broken.count], [true, 0, 0]);
  assert.ok(puts > 20 && gets >= puts + 5, `${puts} puts, ${gets} gets`);
});

test('a value that was acknowledged and is the one before again is found', async (t) => {
  const { ok, findings } = await store(t, (values, key, value, count) =>
    count === 30 ? 'stored' : keep(values, key, value, count),
  );
  assert.deepEqual([ok, findings.count > 0], [false, true]);
});

test('a value that is lost at the very end is found', async (t) => {
  const { findings } = await store(t, (values, key, value, count) => {
    keep(values, key, value, count);
    if (count === 50) values.clear();
    return 'stored';
  });
  assert.ok(findings.count > 0);
});

for (const stored of ['and stored', 'and not stored'] as const) {
  test(`a value whose connection broke before the reply, ${stored}, is no finding`, async (t) => {
    const { findings, broken, puts } = await store(t, (values, key, value, count) => {
      if (count !== 30) return keep(values, key, value, count);
      if (stored === 'and stored') values.set(key, value);
      return undefined;
    });
    assert.deepEqual([findings.count, broken.count], [0, 1]);
    assert.ok(puts > 30);
  });
}

test('what another store has left is no finding under keys of its own, and is one under the same keys', async (t) => {
  const target = await served(t, keep);
  const foundBy = async (prefix: string): Promise<number> => {
    const client = new Store({ target, everyMs: 1, keys: 5, prefix });
    return (await within(10_000, client.run(whenDone(() => client.puts > 20)))).findings.count;
  };
  assert.equal(await foundBy('one'), 0);
  assert.equal(await foundBy('two'), 0);
  assert.ok((await foundBy('one')) > 0);
});
