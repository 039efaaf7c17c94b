/**
 * Plays docs/drop-in.md: QEMU's own COLO walkthrough with stock filters and two real guests, and `colo compare` and
 * `colo rewrite` in place of QEMU's two objects. Every command comes from the guide itself. Takes about 30 seconds.
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LineConnection } from '../../lab/clients/lines.ts';
import { untilGuestReplies } from '../../lab/clients/ready.ts';
import { installGuest } from '../../lab/guest/image.ts';
import { GUEST_SERVICES, startNetwork } from '../../lab/network.ts';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import { nicArguments, vmArguments } from '../../lab/vm.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { type JsonObject, QmpClient } from '../../src/qemu/qmp.ts';
import { ROOT } from '../docs/tables.ts';
import { Poll } from './flood.ts';
import { guideFor } from './guide.ts';

const WAIT_MS_MAX = 30_000;
const ANSWER_MS_MAX = 10_000;
const MATCHED_MIN = 20;
const QUESTIONS_MAX = 50;

type Event = { type: string; [key: string]: unknown };

/** One of the two commands, with its events. */
class Command {
  readonly events: Event[] = [];
  readonly child: ChildProcess;
  private errors = '';

  constructor(words: readonly string[]) {
    assert.equal(words[0], 'colo');
    this.child = startChild([join(ROOT, 'bin/colo'), ...words.slice(1), '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    createInterface(this.child.stdout!).on('line', (line) => this.events.push(JSON.parse(line) as Event));
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.errors += text;
    });
  }

  count(type: string): number {
    return this.events.filter((event) => event.type === type).length;
  }

  last(type: string): Event {
    const event = this.events.findLast((one) => one.type === type);
    assert.ok(event !== undefined, `no ${type} in ${JSON.stringify(this.events)} ${this.errors}`);
    return event;
  }

  async until(type: string, count = 1): Promise<Event> {
    await until(
      `${count} ${type} of ${JSON.stringify(this.events.slice(-5))}`,
      () => this.count(type) >= count,
    );
    return this.last(type);
  }

  /** Resolves with its counters so far. */
  async report(): Promise<Record<string, number>> {
    const seen = this.events.length;
    this.child.kill('SIGUSR2');
    await until('a report', () => this.events.slice(seen).some(({ type }) => type.endsWith('.report')));
    return this.events.findLast(({ type }) => type.endsWith('.report')) as Event & Record<string, number>;
  }
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + WAIT_MS_MAX; !(await holds()); await sleep(5)) {
    assert.ok(performance.now() < end, `waited in vain for ${what}`);
  }
}

/** Both hosts on one machine, in one folder, with the processes that the guide has started. */
type Walk = {
  primary: ChildProcess;
  secondary: ChildProcess;
  primaryQmp: QmpClient;
  secondaryQmp: QmpClient;
  compare: Command;
  rewrite: Command;
  /** Runs a block of QMP commands. */
  execute(qmp: QmpClient, block: string): Promise<void>;
  open(): Promise<LineConnection>;
  /** Where the guest's echo is. */
  echo: { host: string; port: number };
};

/** Follows the guide up to a pair in COLO whose guest replies. */
async function walk(t: TestContext): Promise<Walk> {
  const install = await installQemu();
  const image = await installGuest();
  const folder = workFolder();
  t.after(() => removeWorkFolder(folder));
  const network = await startNetwork({
    services: GUEST_SERVICES,
    install,
    dir: folder,
    uplinks: 2,
    ipv6: 'none',
  });
  t.after(() => network.stop());
  const { block, words } = await guideFor(folder);
  const qemu = (name: string, uplink: string): ChildProcess => {
    const argv = [...install.command, ...vmArguments(install, image)];
    argv.push('-netdev', `stream,id=hn0,server=off,addr.type=unix,addr.path=${uplink}`);
    argv.push(...nicArguments('hn0'), ...words(name));
    const env = { ...process.env, ...install.env };
    const child = startChild(argv, { env, stdio: ['ignore', 'ignore', 'ignore'] });
    t.after(() => stopChild(child));
    return child;
  };
  const command = (name: string): Command => {
    const started = new Command(words(name));
    t.after(() => stopChild(started.child));
    return started;
  };
  const connectQmp = async (name: string): Promise<QmpClient> => {
    const qmp = await QmpClient.connect({ endpoint: unixEndpoint(join(folder, name)), deadlineMs: 10_000 });
    t.after(() => qmp.close());
    return qmp;
  };
  const execute = async (qmp: QmpClient, name: string): Promise<void> => {
    for (const line of block(name).trim().split('\n')) {
      const { execute: verb, arguments: args } = JSON.parse(line) as {
        execute: string;
        arguments?: JsonObject;
      };
      await qmp.execute(verb, args);
      // As in the guide: each of the two takes some milliseconds.
      if (verb === 'x-colo-lost-heartbeat') await until(verb, async () => (await coloMode(qmp)) === 'none');
      if (verb === 'migrate') await until('the migration', async () => (await migration(qmp)) !== 'setup');
    }
  };

  const primary = qemu('qemu-primary', network.uplinks[0]);
  const compare = command('colo-compare');
  const secondary = qemu('qemu-secondary', network.uplinks[1]);
  const rewrite = command('colo-rewrite');
  const primaryQmp = await connectQmp('primary-qmp.sock');
  const secondaryQmp = await connectQmp('secondary-qmp.sock');
  // Frames for a chardev without a peer are lost, or released without being compared.
  await compare.until('stream.up', 3);
  await rewrite.until('stream.up', 4);
  await rewrite.until('rewrite.waiting');

  const target = { host: network.forwards.v4.host, port: network.forwards.v4.counter };
  const echo = { host: target.host, port: network.forwards.v4.echo };
  await untilGuestReplies(echo, WAIT_MS_MAX);
  await execute(secondaryQmp, 'qmp-secondary');
  await execute(primaryQmp, 'qmp-primary');
  await rewrite.until('rewrite.following');
  await compare.until('checkpoint.committed');
  assert.equal(await coloMode(primaryQmp), 'primary');
  assert.equal(await coloMode(secondaryQmp), 'secondary');

  const open = (): Promise<LineConnection> =>
    LineConnection.open(target, ANSWER_MS_MAX, (line) => assert.fail(`not requested: ${line}`));
  return { primary, secondary, primaryQmp, secondaryQmp, compare, rewrite, execute, open, echo };
}

async function migration(qmp: QmpClient): Promise<string | undefined> {
  return (await qmp.execute<{ status?: string }>('query-migrate')).status;
}

async function coloMode(qmp: QmpClient): Promise<string> {
  return (await qmp.execute<{ mode: string }>('query-colo-status')).mode;
}

async function asks(connection: LineConnection, count: number, from: number): Promise<void> {
  for (let i = 1; i <= count; i++)
    assert.equal(await connection.ask('next', ANSWER_MS_MAX), String(from + i), 'each number once, in order');
}

/** Ends it as an operator does. */
async function ends(command: Command): Promise<Event> {
  const ended = once(command.child, 'exit');
  command.child.kill('SIGTERM');
  assert.deepEqual(await ended, [0, null]);
  return command.events.at(-1)!;
}

const TEST_MS_MAX = { timeout: 120_000 };
const FLOOD_PARTS = 5;
const FLOOD_PART_BYTES = 1 << 20;
const REPLY_MS_MAX = 1000;

test(
  'output is compared, may differ, and continues within its streams when the primary dies',
  TEST_MS_MAX,
  async (t) => {
    const { primary, secondaryQmp, compare, rewrite, execute, open } = await walk(t);

    // Frames are released because the SVM sent the same. On a busy host this takes more exchanges.
    const first = await open();
    let given = 0;
    const before = await compare.report();
    let now = before;
    for (; now.matched - before.matched < MATCHED_MIN; now = await compare.report()) {
      assert.ok(given < 40 * MATCHED_MIN, 'nothing matches');
      await asks(first, 10, given);
      given += 10;
    }
    t.diagnostic(
      `${given} replies: ${now.matched - before.matched} matched, ${now.asked - before.asked} checkpoints`,
    );
    assert.equal(now.malformed, 0);

    // Two clocks differ: only a checkpoint releases the reply. If the SVM is slow, its reason may be a wait.
    const differed = (): Event | undefined =>
      compare.events.findLast(({ reason }) => reason === 'diverged-bytes');
    for (let i = 0; differed() === undefined; i++) {
      assert.ok(i < QUESTIONS_MAX, 'no clock differs');
      const { committed } = await compare.report();
      assert.match(await first.ask('clock', ANSWER_MS_MAX), /^[0-9]{9,}$/);
      assert.ok((await compare.report()).committed > committed, 'the reply came without a checkpoint');
    }
    assert.match(String(differed()?.flow), /^tcp 10\.0\.2\.15:4000 <-> /);
    assert.ok((await compare.report()).divergences > 0);
    assert.ok(Number(compare.last('checkpoint.committed').released) > 0);

    // A connection without a checkpoint since: the client knows the PVM's numbers, and the SVM has its own.
    let living: LineConnection;
    for (let openings = 1; ; openings++) {
      assert.ok(openings <= QUESTIONS_MAX, 'there is always another checkpoint');
      const seen = [compare.count('checkpoint.asked'), rewrite.count('checkpoint.seen')];
      living = await open();
      await asks(living, 1, given++);
      await sleep(100);
      if (seen[0] === compare.count('checkpoint.asked') && seen[1] === rewrite.count('checkpoint.seen'))
        break;
    }

    await stopChild(primary);
    // A comparator without its VM must not release anything: here it ends with its host.
    await stopChild(compare.child);
    const { inputFrames, outputFrames } = await rewrite.report();
    await execute(secondaryQmp, 'qmp-failover');
    const { connections, lost } = await rewrite.until('rewrite.alone');
    assert.ok(Number(connections) >= 1, 'the living connection is translated');
    assert.equal(lost, 0);
    await asks(living, 10, given);
    await asks(first, 10, given + 10);
    await asks(await open(), 1, given + 20);
    const after = await rewrite.report();
    assert.ok(after.inputFrames > inputFrames && after.outputFrames > outputFrames, 'it is still in the way');

    const last = await ends(rewrite);
    t.diagnostic(JSON.stringify(last));
    assert.equal(last.type, 'rewrite.stopped');
  },
);

test(
  'when the secondary dies, held output is released and the primary goes on alone',
  TEST_MS_MAX,
  async (t) => {
    const { primaryQmp, secondary, compare, execute, open } = await walk(t);
    const client = await open();
    await asks(client, 10, 0);
    await stopChild(secondary);
    // From now on nothing matches, and no checkpoint can be taken.
    const [asked, alone] = [compare.count('checkpoint.asked'), compare.count('compare.alone')];
    const answer = client.ask('next', ANSWER_MS_MAX);
    await compare.until('checkpoint.asked', asked + 1);
    await execute(primaryQmp, 'qmp-primary-failover');
    const { released } = await compare.until('compare.alone', alone + 1);
    assert.ok(Number(released) > 0, 'what waited has left');
    assert.equal(await answer, '11');
    await asks(client, 10, 11);
    assert.equal((await ends(compare)).type, 'compare.stopped');
  },
);

test(
  'both QEMUs reply within a second throughout a flood in both directions, across checkpoints',
  TEST_MS_MAX,
  async (t) => {
    const { primaryQmp, secondaryQmp, compare, rewrite, echo } = await walk(t);
    const polls = [primaryQmp, secondaryQmp].map((qmp) => new Poll(qmp));
    t.after(() => {
      for (const poll of polls) poll.end();
    });
    const client = connect(echo);
    t.after(() => client.destroy());
    let echoed = 0;
    client.on('data', ({ length }) => {
      echoed += length;
    });
    for (let part = 1; part <= FLOOD_PARTS; part++) {
      client.write(Buffer.alloc(FLOOD_PART_BYTES, part));
      await sleep(100);
      await primaryQmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': 60_000 });
      await until(`part ${part}`, () => echoed === part * FLOOD_PART_BYTES);
    }
    const slowest = polls.map((poll) => poll.slowestMs.toFixed(0));
    t.diagnostic(
      `slowest reply ${slowest.join(' and ')} ms, ${compare.count('checkpoint.committed')} checkpoints`,
    );
    t.diagnostic(JSON.stringify([await compare.report(), await rewrite.report()]));
    for (const poll of polls) assert.ok(poll.slowestMs < REPLY_MS_MAX);
    assert.ok(compare.count('checkpoint.committed') >= FLOOD_PARTS);
  },
);
