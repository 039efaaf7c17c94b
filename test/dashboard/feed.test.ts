/** What the pages are sent, and what the node notices of them: nothing. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { listenControl } from '../../src/observe/api.ts';
import { EventLog } from '../../src/observe/event-log.ts';
import { nodesIn } from '../cli/with-node.ts';
import { type AnyEvents, fakeNode, fakeStatus } from '../observe/fake-node.ts';
import { tempFolder } from '../temp-folder.ts';
import { dashboardOf, type Message, messagesOf, messageWhere, open } from './rig.ts';

const folder = tempFolder();
const withNode = nodesIn(folder);

type Event = { type: string; seq: number };
const eventsIn = ({ data }: Message): Event[] => (data.events ?? []) as Event[];
const typesIn = (message: Message): string[] => eventsIn(message).map(({ type }) => type);

test('the node is asked once a second, however many pages are open', async (t) => {
  let looks = 0;
  const status = () => {
    looks++;
    return fakeStatus();
  };
  await withNode(
    async ({ socket, events }) => {
      const { port } = await dashboardOf(t, socket);
      const pages = await Promise.all(
        Array.from({ length: 8 }, async () => messagesOf(await open(port, '/feed'))),
      );
      await sleep(3200);
      assert.ok(looks >= 1 && looks <= 5, `${looks} looks in 3.2 s`);
      events.emit('link.lost', { cause: 'cable' });
      for (const page of pages) {
        const hello = await messageWhere(page, ({ name }) => name === 'hello');
        assert.equal((hello.data as { samples: unknown[] }).samples.length <= 2, true);
        const view = await messageWhere(page, ({ name, data }) => name === 'view' && data.status !== null);
        assert.deepEqual((view.data as { status: unknown }).status, fakeStatus());
        await messageWhere(
          page,
          (message) => message.name === 'events' && typesIn(message).includes('link.lost'),
        );
      }
    },
    { status },
  );
});

test('a page that opens later has the past: events, and changes of state that many events have followed', async (t) => {
  await withNode(async ({ socket, events }) => {
    const { port } = await dashboardOf(t, socket);
    const first = messagesOf(await open(port, '/feed'));
    events.emit('failover.done', { detectMs: 200, promoteMs: 100 });
    await messageWhere(first, (message) => typesIn(message).includes('failover.done'));
    for (let round = 0; round < 30; round++) {
      for (let i = 0; i < 50; i++) events.emit('checkpoint.committed', { pauseMs: 5, i });
      await sleep(10);
    }
    await messageWhere(first, (message) => (eventsIn(message).at(-1)?.seq ?? 0) >= 1501);
    const hello = await messageWhere(messagesOf(await open(port, '/feed')), () => true);
    assert.equal(eventsIn(hello).length, 1000);
    assert.equal(typesIn(hello).includes('failover.done'), false);
    const { turns } = hello.data as { turns: Event[] };
    assert.deepEqual(
      turns.map(({ type }) => type),
      ['failover.done'],
    );
  });
});

test('a node that goes away and comes back: the page says since when, and then goes on', async (t) => {
  const socketPath = join(folder, 'again', 'control.sock');
  const start = async (log: string) => {
    const events = new EventLog<AnyEvents>({ path: join(folder, log), node: 'alpha', now: Date.now });
    const server = await listenControl({ socketPath, control: fakeNode(), events });
    const stop = async () => {
      await server.close();
      await events.close();
    };
    return { events, stop };
  };
  let node = await start('log-1');
  const { port } = await dashboardOf(t, socketPath);
  const page = messagesOf(await open(port, '/feed'));
  node.events.emit('node.started', {});
  await messageWhere(page, (message) => typesIn(message).includes('node.started'));
  await node.stop();

  type Away = { away: { sinceMs: number; code: string } | null; status: object; sample: object | null };
  const isAway = ({ name, data }: Message) => name === 'view' && (data as Away).away !== null;
  const first = (await messageWhere(page, isAway)).data as Away;
  const second = (await messageWhere(page, isAway)).data as Away;
  assert.equal(first.away?.code, 'COLO_NODE_UNREACHABLE');
  assert.equal(second.away?.sinceMs, first.away?.sinceMs);
  assert.ok(Math.abs((first.away?.sinceMs ?? 0) - Date.now()) < 5000);
  assert.deepEqual(
    [second.status, second.sample],
    [fakeStatus(), null],
    'the last status stays, and no sample is made up',
  );

  // The same log: what happened before is not shown twice.
  node = await start('log-1');
  node.events.emit('link.up', { peer: 'beta' });
  const back = await messageWhere(
    page,
    (message) => message.name === 'events' && eventsIn(message).length > 0,
  );
  assert.deepEqual(typesIn(back), ['link.up']);
  const view = await messageWhere(page, ({ name }) => name === 'view');
  assert.equal((view.data as Away).away, null);
  await node.stop();

  // Another log: its numbers begin again.
  rmSync(join(folder, 'log-1'));
  node = await start('log-2');
  node.events.emit('node.started', {});
  const anew = await messageWhere(
    page,
    (message) => message.name === 'events' && eventsIn(message).length > 0,
  );
  assert.deepEqual(
    eventsIn(anew).map(({ type, seq }) => [type, seq]),
    [['node.started', 1]],
  );
  await node.stop();
});

test('a node that hangs is away, and the page goes on telling so', async (t) => {
  await withNode(async ({ socket }) => {
    const call = new Promise<never>(() => {});
    const { port } = await dashboardOf(t, socket, {
      node: {
        status: () => Promise.race([call, sleep(300).then(() => Promise.reject(new Error('no reply')))]),
        events: async function* () {
          yield* [];
          await call;
        },
      },
    });
    const page = messagesOf(await open(port, '/feed'));
    const view = await messageWhere(page, ({ name }) => name === 'view');
    assert.match(JSON.stringify(view.data.away), /no reply/);
  });
});

test('samples are differences, also over a new start of the node', async (t) => {
  let count = 40;
  const status = () => {
    const made = fakeStatus();
    count = count >= 50 ? 3 : count + 5;
    made.checkpoints.byReason = { interval: count };
    return made;
  };
  await withNode(
    async ({ socket, events }) => {
      const { port } = await dashboardOf(t, socket);
      events.emit('checkpoint.committed', { pauseMs: 7.5 });
      events.emit('checkpoint.committed', { pauseMs: 2 });
      const page = messagesOf(await open(port, '/feed'));
      const samples: { checkpoints: object; pauseMsMax: number | null; forMs: number }[] = [];
      while (samples.length < 3) {
        const { data } = await messageWhere(page, ({ name }) => name === 'view');
        if (data.sample !== null) samples.push(data.sample as (typeof samples)[0]);
      }
      const counts = samples.map(({ checkpoints }) => JSON.stringify(checkpoints));
      assert.ok(counts.includes('{"interval":5}'), counts.join());
      assert.ok(counts.includes('{"interval":3}'), counts.join());
      assert.ok(samples.every(({ forMs }) => forMs < 2000));
    },
    { status },
  );
});
