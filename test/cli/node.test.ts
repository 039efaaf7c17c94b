import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { type StartNode, superviseNode } from '../../src/cli/node.ts';
import type { NodeConfig } from '../../src/config/node-config.ts';

const config = {} as NodeConfig;

function fake(): {
  start: StartNode;
  started: PromiseWithResolvers<void>;
  done: PromiseWithResolvers<number>;
  stops: () => number;
} {
  const started = Promise.withResolvers<void>();
  const done = Promise.withResolvers<number>();
  let stops = 0;
  const start: StartNode = async () => {
    await started.promise;
    return {
      done: done.promise,
      control: {
        async stop() {
          stops++;
          done.resolve(0);
        },
      },
    };
  };
  return { start, started, done, stops: () => stops };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a node that ends by itself sets the exit code, and the signal handlers are removed', async () => {
  const { start, started, done, stops } = fake();
  const signals = new EventEmitter();
  const code = superviseNode(start, config, {}, signals);
  started.resolve();
  await turn();
  done.resolve(3);
  assert.equal(await code, 3);
  assert.deepEqual([stops(), signals.listenerCount('SIGINT'), signals.listenerCount('SIGTERM')], [0, 0, 0]);
});

test('the first signal stops the node in order', async () => {
  for (const signal of ['SIGINT', 'SIGTERM']) {
    const { start, started, stops } = fake();
    const signals = new EventEmitter();
    const code = superviseNode(start, config, {}, signals);
    started.resolve();
    await turn();
    signals.emit(signal);
    assert.equal(await code, 0);
    assert.equal(stops(), 1);
  }
});

test('a signal during the start stops the node afterwards; a second one ends it at once', async () => {
  const { start, started, stops } = fake();
  const signals = new EventEmitter();
  const exits: number[] = [];
  const code = superviseNode(start, config, {}, signals, (exit) => exits.push(exit));
  signals.emit('SIGTERM');
  assert.deepEqual(exits, []);
  signals.emit('SIGINT');
  assert.deepEqual(exits, [1]);
  started.resolve();
  assert.equal(await code, 0);
  assert.equal(stops(), 1);
});

test('a start that does not end is ended soon after a signal', async () => {
  const signals = new EventEmitter();
  const exited = Promise.withResolvers<number>();
  void superviseNode(fake().start, config, {}, signals, exited.resolve, 20);
  signals.emit('SIGTERM');
  assert.equal(await exited.promise, 1);
});

test('a node that cannot start or stop rejects with the reason', async () => {
  const signals = new EventEmitter();
  await assert.rejects(
    superviseNode(
      async () => {
        throw new Error('no QEMU');
      },
      config,
      {},
      signals,
    ),
    /no QEMU/,
  );
  const code = superviseNode(
    async () => ({
      done: new Promise(() => {}),
      control: {
        async stop() {
          throw new Error('stuck');
        },
      },
    }),
    config,
    {},
    signals,
  );
  await turn();
  signals.emit('SIGINT');
  await assert.rejects(code, /stuck/);
  assert.equal(signals.listenerCount('SIGINT'), 0);
});
