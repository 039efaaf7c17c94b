/** The conformance suite on the arbiters that need no other program: the directory, and the simulator's. */
import { join } from 'node:path';
import { DirectoryArbiter } from '../../src/pair/directory-arbiter.ts';
import { Die } from '../sim/guest/die.ts';
import { Loop, Process } from '../sim/loop.ts';
import { ArbiterRecord, SimArbiter } from '../sim/sim-arbiter.ts';
import { tempFolder } from '../temp-folder.ts';
import { conforms, type Late, noReply } from './arbiter-conformance.ts';

// A change is made before its call returns: link(2) is not carried out later.
conforms('the directory', 'never-late', async (t) => {
  const directory = join(tempFolder(t), 'arbiter');
  const nodes = [new DirectoryArbiter(directory), new DirectoryArbiter(directory)] as const;
  await nodes[0].read();
  return { nodes, run: (promise) => promise };
});

const LATE_MS = 700;

conforms("the simulator's", 'may-be-late', async () => {
  const loop = new Loop();
  const store = new ArbiterRecord();
  const node = (name: string): SimArbiter => {
    const owner = new Process(loop, name, new Die(1));
    return new SimArbiter(store, { delayMsMax: 30, cutUntilMs: 0, lossy: 0 }, owner, new Die(2));
  };
  const run = async <T>(promise: Promise<T>): Promise<T> => {
    let isPending = true;
    const settled = promise.finally(() => {
      isPending = false;
    });
    settled.catch(() => {});
    while (isPending && loop.step(Number.POSITIVE_INFINITY)) await null;
    return settled;
  };
  const nodes = [node('a'), node('b')] as const;
  const overtaken: Late['overtaken'] = async (swap, meanwhile) => {
    store.onAsked = () => ({ lateMs: LATE_MS });
    await noReply(swap(nodes[0]));
    store.onAsked = () => null;
    await meanwhile();
    const untilMs = loop.nowMs + LATE_MS;
    while (loop.step(untilMs)) await null;
  };
  return { nodes, run, late: { overtaken, applied: (swap) => overtaken(swap, async () => {}) } };
});
