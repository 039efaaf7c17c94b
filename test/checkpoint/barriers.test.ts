import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MigrationRelay } from '../../src/checkpoint/migration-relay.ts';
import { PrimaryBarrier } from '../../src/checkpoint/primary-barrier.ts';
import { SecondaryBarrier } from '../../src/checkpoint/secondary-barrier.ts';
import { ColoError } from '../../src/error.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { u32 } from '../frames.ts';
import { type FakeStream, fakePair, pumpAll } from '../io/fake-stream.ts';
import { FakeTime } from './fake-time.ts';

/** Both barriers, relays and paths; the test plays the two QEMUs, the VMs and the network. */
class Checkpointing {
  readonly time = new FakeTime();
  readonly paths = new TwoPaths();
  readonly log: string[] = [];
  readonly pvmQemu: FakeStream;
  readonly svmQemu: FakeStream;
  readonly barrier: PrimaryBarrier;
  readonly secondary: SecondaryBarrier;
  readonly primaryRelay: MigrationRelay;
  readonly secondaryRelay: MigrationRelay;
  private readonly streams: FakeStream[];
  asked = 0;
  pvmStands: string | null = null;
  svmStands: string | null = null;
  ask: () => Promise<void> = async () => {};

  constructor() {
    const { paths, time } = this;
    const [pvmQemu, pvmNear] = fakePair();
    const [svmQemu, svmNear] = fakePair();
    const [hopA, hopB] = fakePair();
    this.pvmQemu = pvmQemu;
    this.svmQemu = svmQemu;
    this.streams = [pvmNear, svmNear, hopA, hopB];
    const secondaryRelay = new MigrationRelay('secondary', svmNear, hopB, {
      message: (message) => {
        this.log.push(`secondary ${message}`);
        secondary.message(secondaryRelay, message).catch((cause: Error) => this.log.push(cause.message));
      },
      request: () => {},
      closed: () => {},
    });
    const secondary = new SecondaryBarrier({
      path: paths.secondary,
      link: paths.secondaryLink,
      clock: time,
      timers: time,
      standing: () => this.svmStands,
      stateBytes: () => secondaryRelay.stateBytes,
      onCommit: () => this.log.push('secondary commits'),
    });
    this.primaryRelay = new MigrationRelay('primary', pvmNear, hopA, {
      message: (message) => {
        if (message === 'ready') this.primaryRelay.pass('ready');
        else {
          this.log.push(`primary ${message}`);
          this.barrier.reached(message);
        }
      },
      request: () => {
        this.log.push('request');
        this.barrier.reached('request');
      },
      closed: (cause) => this.barrier.abort(new ColoError('COLO_LINK_CLOSED', cause?.message ?? 'closed')),
    });
    this.barrier = new PrimaryBarrier({
      path: paths.primary,
      relay: this.primaryRelay,
      link: paths.primaryLink,
      requestCheckpoint: () => {
        this.asked++;
        return this.ask();
      },
      standing: () => this.pvmStands,
      clock: time,
      timers: time,
    });
    paths.onControl = (side, type, body) => {
      if (side === 'secondary' && type === MESSAGE.gate) {
        this.log.push('gate');
        void secondary.gate((body as { epoch: number }).epoch);
      }
      if (side === 'primary' && type === MESSAGE.gated) {
        this.log.push('gated');
        this.barrier.gated(body as { drained: boolean });
      }
    };
    this.secondary = secondary;
    this.secondaryRelay = secondaryRelay;
    this.primaryRelay.start();
    secondaryRelay.start();
    svmQemu.write(u32(0), () => {});
  }

  /** Delivers everything that was written, and lets `ms` pass. */
  async pass(ms = 5): Promise<void> {
    for (let i = 0; i < ms; i++) {
      this.paths.settle();
      pumpAll(...this.streams);
      await this.time.pass(1);
    }
    this.paths.settle();
    pumpAll(...this.streams);
  }

  /** Returns what a QEMU has received since the last call, as hex. */
  received(qemu: FakeStream): string {
    const hex = qemu.inbox.toString('hex');
    qemu.inbox = Buffer.alloc(0);
    return hex;
  }

  /** Takes one whole checkpoint with QEMUs that reply at once, and clears the records. */
  async whole(): Promise<void> {
    const run = this.barrier.run('requested', () => {});
    this.pvmQemu.write(u32(1), () => {});
    await this.pass();
    this.paths.pvm.received();
    this.paths.svm.received();
    await this.pass();
    for (const message of [2, 5, 6]) {
      this.svmQemu.write(u32(message), () => {});
      await this.pass();
    }
    await run;
    this.log.length = 0;
    this.asked = 0;
    this.received(this.pvmQemu);
    this.received(this.svmQemu);
  }
}

test('each phase of a checkpoint is delayed until it is safe, in order', async () => {
  const all = new Checkpointing();
  const { paths, log } = all;
  await all.pass();
  await all.whole();

  // Input that the VMs have not read, and output that the SVM has not sent.
  paths.client.send('input');
  paths.pvm.send('sent before');
  await all.pass();
  const run = all.barrier.run('interval', () => log.push('primary commits'));
  assert.equal(all.barrier.isRunning, true);
  assert.equal(all.asked, 1);
  await assert.rejects(
    all.barrier.run('requested', () => {}),
    { code: 'COLO_CHECKPOINT_RUNNING' },
  );
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  assert.deepEqual(log.toSorted(), ['gate', 'request'], 'the SVM has not read its input: no GATED yet');
  assert.equal(all.received(all.svmQemu), '');

  paths.client.send('after the gate');
  assert.deepEqual(paths.svm.received(), ['input']);
  await all.pass();
  assert.equal(log.at(-1), 'gated');
  assert.equal(all.received(all.svmQemu), '', 'REQUEST waits until the PVM has read its input');
  assert.deepEqual(paths.pvm.received(), ['input']);
  await all.pass();
  assert.equal(all.received(all.svmQemu), '00000001', 'REQUEST is passed on');

  // The SVM stops, and its last output is sent before REPLY.
  paths.svm.send('last output');
  paths.ports.svm.pauseReading();
  all.svmQemu.write(u32(2), () => {});
  await all.pass();
  assert.equal(all.received(all.pvmQemu), '', 'the last output has not been read');
  paths.ports.svm.resumeReading();
  await all.pass();
  assert.equal(paths.primary.comparator.secondary.frames, 1, 'the last output belongs to the old epoch');
  assert.equal(all.received(all.pvmQemu), '00000002');
  assert.deepEqual(paths.client.received(), []);

  // The PVM has stopped too, and the SVM owns its state: this is the commit, on the secondary first.
  paths.pvm.send('sent last');
  all.svmQemu.write(u32(5), () => {});
  log.length = 0;
  await all.pass();
  assert.deepEqual(log, ['secondary received', 'secondary commits', 'primary received', 'primary commits']);
  assert.equal(all.received(all.pvmQemu), '00000005');
  assert.deepEqual(paths.client.received(), ['sent before', 'sent last']);
  assert.deepEqual(paths.pvm.received(), [], 'the gate is still closed');

  all.svmQemu.write(u32(6), () => {});
  await all.pass();
  const report = await run;
  assert.equal(all.received(all.pvmQemu), '00000006');
  assert.deepEqual(paths.pvm.received(), ['after the gate']);
  assert.deepEqual(paths.svm.received(), ['after the gate']);
  assert.equal(report.reason, 'interval');
  assert.equal(report.epoch, 2);
  assert.equal(report.releasedFrames, 2);
  assert.equal(report.matchedFrames, 0);
  assert.ok(report.drainMs > 0 && report.pauseMs > 0 && report.totalMs >= report.drainMs + report.pauseMs);
  assert.equal(report.inexact, undefined);
  assert.equal(all.barrier.isRunning, false);
  paths.assertNoLeak();
});

test('a REQUEST that QEMU sends by itself starts the checkpoint: QEMU is not asked for another', async () => {
  const all = new Checkpointing();
  await all.pass();
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  assert.equal(all.barrier.isRunning, false);
  const run = all.barrier.run('requested', () => {});
  await all.pass();
  assert.equal(all.asked, 0);
  for (const message of [2, 5, 6]) {
    all.svmQemu.write(u32(message), () => {});
    await all.pass();
  }
  assert.equal((await run).epoch, 1);
});

for (const [reads, inexact, waitedMs] of [
  [[], 2, 1000],
  [['pvm'], 1, 500],
  [['svm'], 1, 1000],
] as const) {
  test(`a checkpoint waits for a VM that reads no input, and is then inexact: ${reads[0] ?? 'neither'} reads`, async () => {
    const all = new Checkpointing();
    await all.pass();
    await all.whole();
    all.paths.client.send('input');
    await all.pass();
    for (const vm of reads) all.paths[vm].received();
    const run = all.barrier.run('requested', () => {});
    all.pvmQemu.write(u32(1), () => {});
    await all.pass(waitedMs - 20);
    assert.equal(all.received(all.svmQemu), '');
    await all.pass(40);
    assert.equal(all.received(all.svmQemu), '00000001');
    for (const message of [2, 5, 6]) {
      all.svmQemu.write(u32(message), () => {});
      await all.pass();
    }
    assert.equal((await run).inexact, inexact);
  });
}

test('an abort in any phase rejects the checkpoint, nothing commits after it, and no other checkpoint begins', async () => {
  const phases: ((all: Checkpointing) => void)[] = [
    () => {},
    (all) => all.pvmQemu.write(u32(1), () => {}),
    (all) => all.svmQemu.write(u32(2), () => {}),
    (all) => all.svmQemu.write(u32(5), () => {}),
  ];
  for (let last = 0; last < phases.length; last++) {
    const all = new Checkpointing();
    await all.pass();
    let committed = 0;
    const run = all.barrier.run('requested', () => committed++);
    const rejected = assert.rejects(run, { code: 'COLO_LINK_CLOSED', message: 'cable' });
    for (const phase of phases.slice(0, last + 1)) {
      phase(all);
      await all.pass();
    }
    const before = committed;
    assert.equal(before, last === 3 ? 1 : 0);
    all.barrier.abort(new ColoError('COLO_LINK_CLOSED', 'cable'));
    await rejected;
    assert.equal(all.barrier.isRunning, false);
    for (const message of ['request', 'gated', 'reply', 'received', 'loaded'] as const) {
      all.barrier.reached(message);
      await all.pass(2);
    }
    await all.time.pass(3000);
    assert.equal(committed, before, 'nothing commits after an abort');
    await assert.rejects(
      all.barrier.run('requested', () => {}),
      { message: 'cable' },
    );
    all.paths.primary.goAlone(2);
    all.paths.client.send('next');
    all.paths.settle();
    assert.deepEqual(all.paths.pvm.received(), ['next'], 'the gate is open');
  }
});

test('an abort while the PVM’s last output is read commits nothing', async () => {
  const all = new Checkpointing();
  await all.pass();
  let committed = 0;
  const run = all.barrier.run('requested', () => committed++);
  const rejected = assert.rejects(run, { message: 'cable' });
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  all.svmQemu.write(u32(2), () => {});
  await all.pass();
  all.paths.ports.pvm.pauseReading();
  all.paths.pvm.send('unread');
  all.svmQemu.write(u32(5), () => {});
  await all.pass();
  all.barrier.abort(new ColoError('COLO_LINK_CLOSED', 'cable'));
  await rejected;
  all.paths.ports.pvm.resumeReading();
  await all.pass();
  assert.equal(committed, 0);
  assert.equal(all.paths.primary.epoch, 0);
});

test('a QEMU that refuses the request rejects the checkpoint', async () => {
  const all = new Checkpointing();
  await all.pass();
  all.ask = () => Promise.reject(new ColoError('COLO_QMP', 'no'));
  await assert.rejects(
    all.barrier.run('requested', () => {}),
    { code: 'COLO_QMP' },
  );
  assert.equal(all.barrier.isRunning, false);
});

test('a checkpoint without progress is aborted', async () => {
  const all = new Checkpointing();
  await all.pass();
  const run = all.barrier.run('requested', () => {});
  const rejected = assert.rejects(run, { code: 'COLO_CHECKPOINT_STALLED' });
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  await all.time.pass(120_000);
  await rejected;
});

test('a checkpoint that the PVM’s QEMU does not begin is aborted 10 s after its last progress, whenever that was', async () => {
  for (const lastMs of [150, 4300, 9950]) {
    const all = new Checkpointing();
    await all.pass();
    all.paths.client.send('input that the SVM has not read');
    await all.pass();
    const run = all.barrier.run('requested', () => {});
    const failed = failureOf(run);
    await all.pass(10);
    all.paths.svm.received();
    await all.pass(10);
    assert.ok(all.log.includes('gated'));
    await all.time.pass(lastMs);
    all.barrier.reached('loaded');
    await all.time.pass(9900);
    assert.equal(failed.code, null);
    await all.time.pass(250);
    assert.equal(failed.code, 'COLO_CHECKPOINT_STALLED', `after ${lastMs} ms`);
  }
});

/** What the SVM's QEMU has sent when it stops. */
for (const [phase, svmSends] of [
  ['GATED', []],
  ['REPLY', []],
  ['RECEIVED', [2]],
  ['LOADED', [2, 5]],
] as const) {
  test(`clients wait a second for a secondary that does not get to ${phase}`, async () => {
    const all = new Checkpointing();
    await all.pass();
    await all.whole();
    all.paths.client.send('input');
    await all.pass();
    all.paths.pvm.received();
    if (phase !== 'GATED') all.paths.svm.received();
    const run = all.barrier.run('requested', () => {});
    const failed = failureOf(run);
    all.pvmQemu.write(u32(1), () => {});
    await all.pass();
    for (const message of svmSends) {
      all.svmQemu.write(u32(message), () => {});
      await all.pass();
    }
    await all.pass(900);
    assert.equal(failed.code, null);
    // GATED comes although the SVM has not read its input, and is no progress.
    await all.pass(200);
    assert.equal(failed.code, 'COLO_CHECKPOINT_STALLED');
    assert.match(failed.message, /^the secondary made no progress/);
  });
}

test('a PVM that is stopped in the middle of a checkpoint is not copied until it runs, however long that takes', async () => {
  const all = new Checkpointing();
  await all.pass();
  await all.whole();
  const run = all.barrier.run('requested', () => {});
  const failed = failureOf(run);
  all.pvmStands = 'stopped';
  all.pvmQemu.write(u32(1), () => {});
  await all.pass(15_000);
  assert.equal(all.received(all.svmQemu), '', 'REQUEST has not passed');
  all.pvmStands = null;
  await all.pass(20);
  assert.equal(all.received(all.svmQemu), '00000001');
  all.pvmStands = 'stopped';
  all.svmQemu.write(u32(2), () => {});
  await all.pass(15_000);
  assert.equal(all.received(all.pvmQemu), '', 'REPLY has not passed');
  all.pvmStands = null;
  await all.pass(20);
  for (const message of [5, 6]) {
    all.svmQemu.write(u32(message), () => {});
    await all.pass();
  }
  await run;
  assert.equal(failed.code, null);
});

test('a QEMU of the secondary that waits for a PVM that stands holds no lock: its silence counts', async () => {
  const all = new Checkpointing();
  await all.pass();
  await all.whole();
  const run = all.barrier.run('requested', () => {});
  all.pvmStands = 'stopped';
  all.pvmQemu.write(u32(1), () => {});
  await all.pass(20);
  assert.equal(all.log.at(-1), 'gated');
  assert.equal(all.secondary.isCheckpointing, false, 'before REQUEST');
  all.pvmStands = null;
  await all.pass(20);
  assert.equal(all.secondary.isCheckpointing, true, 'until it has stopped the SVM');
  all.pvmStands = 'stopped';
  all.svmQemu.write(u32(2), () => {});
  await all.pass(20);
  assert.equal(all.secondary.isCheckpointing, false, 'before the state');
  all.pvmStands = null;
  await all.pass(20);
  all.pvmQemu.write(u32(3), () => {});
  await all.pass();
  assert.equal(all.secondary.isCheckpointing, true, 'until it has loaded the state');
  all.svmQemu.write(u32(5), () => {});
  await all.pass();
  assert.equal(all.secondary.isCheckpointing, true, 'RECEIVED, but not LOADED');
  all.svmQemu.write(u32(6), () => {});
  await all.pass();
  await run;
  assert.equal(all.secondary.isCheckpointing, false);
});

test('a checkpoint of a PVM that stands can be aborted', async () => {
  const all = new Checkpointing();
  await all.pass();
  await all.whole();
  const failed = failureOf(all.barrier.run('requested', () => {}));
  all.pvmStands = 'an I/O error';
  all.pvmQemu.write(u32(1), () => {});
  await all.pass(100);
  all.barrier.abort(new ColoError('COLO_LINK_CLOSED', 'the pair ends'));
  await all.pass(20);
  assert.equal(failed.code, 'COLO_LINK_CLOSED');
  assert.equal(all.received(all.svmQemu), '');
});

test('an SVM that stands gets no state', async () => {
  const all = new Checkpointing();
  await all.pass();
  await all.whole();
  all.svmStands = 'the guest has panicked';
  const failed = failureOf(all.barrier.run('requested', () => {}));
  all.pvmQemu.write(u32(1), () => {});
  await all.pass(1100);
  assert.equal(failed.code, 'COLO_CHECKPOINT_STALLED');
  assert.equal(all.received(all.svmQemu), '');
});

test('bytes of state that move are progress', async () => {
  const all = await withStoppedSvm();
  for (let i = 0; i < 30; i++) {
    all.pvmQemu.write(u32(0x01020304), () => {});
    await all.pass(100);
  }
  assert.equal(all.barrier.isRunning, true);
  await all.pass(1100);
  assert.equal(all.barrier.isRunning, false);
});

function failureOf(run: Promise<unknown>): { code: string | null; message: string } {
  const failure: { code: string | null; message: string } = { code: null, message: '' };
  run.catch((cause: ColoError) => {
    failure.code = cause.code;
    failure.message = cause.message;
  });
  return failure;
}

/** The SVM's QEMU waits for the state, and the SVM has sent output that the primary has not confirmed. */
async function withStoppedSvm(): Promise<Checkpointing> {
  const all = new Checkpointing();
  await all.pass();
  await all.whole();
  all.paths.svm.send('of the old state');
  await all.pass();
  const run = all.barrier.run('requested', () => {});
  run.catch(() => {});
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  all.svmQemu.write(u32(2), () => {});
  await all.pass();
  assert.equal(all.received(all.pvmQemu), '00000002');
  return all;
}

test('a link that is lost while QEMU’s RECEIVED is unread: the SVM continues from the PVM’s state', async () => {
  const all = await withStoppedSvm();
  all.svmQemu.write(u32(5), () => {});
  all.secondaryRelay.close();
  await all.pass();
  const sent: string[] = [];
  all.paths.promote(() => sent.push('retained'));
  assert.deepEqual(sent, [], 'the VM of that state never sent it');
  assert.equal(all.paths.secondary.epoch, 2);
});

test('a link that is lost before RECEIVED: the SVM continues from its own state', async () => {
  const all = await withStoppedSvm();
  all.secondaryRelay.close();
  await all.pass();
  let sent = 0;
  all.paths.promote(() => sent++);
  assert.equal(sent, 1, 'the unconfirmed frame');
  assert.equal(all.paths.secondary.epoch, 1);
  all.paths.svm.send('after the promotion');
  all.paths.settle();
  assert.equal(all.paths.svm.near.unreadBytes(), 0, 'the SVM is read again');
});

test('SVM output after RECEIVED belongs to the next epoch, whichever socket is read first', async () => {
  const all = await withStoppedSvm();
  all.svmQemu.write(u32(5), () => {});
  all.paths.svm.send('of the new state');
  all.paths.settle();
  await all.pass();
  all.svmQemu.write(u32(6), () => {});
  await all.pass();
  let sent = 0;
  all.paths.promote(() => sent++);
  assert.equal(sent, 1, 'retained in the epoch that it belongs to');
});

test('last output of the SVM that cannot be read ends the checkpoint: the next epoch must not take it for its own', async () => {
  const all = new Checkpointing();
  await all.pass();
  await all.whole();
  const run = all.barrier.run('requested', () => {});
  run.catch(() => {});
  all.pvmQemu.write(u32(1), () => {});
  await all.pass();
  all.paths.ports.svm.pauseReading();
  all.paths.svm.send('unread');
  all.svmQemu.write(u32(2), () => {});
  await all.pass(1200);
  assert.equal(all.received(all.pvmQemu), '', 'REPLY is not passed on');
  assert.match(all.log.at(-1) ?? '', /could not be read/);
});

test('a report counts what matched in the epoch that its commit ended', async () => {
  const all = new Checkpointing();
  await all.pass();
  const checkpoint = async () => {
    const run = all.barrier.run('interval', () => {});
    all.pvmQemu.write(u32(1), () => {});
    for (const message of [2, 5, 6]) {
      await all.pass();
      all.svmQemu.write(u32(message), () => {});
    }
    await all.pass();
    return await run;
  };
  await checkpoint();
  all.paths.pvm.send('both', 'both too', 'only one');
  all.paths.svm.send('both', 'both too');
  await all.pass();
  const { matchedFrames, releasedFrames } = await checkpoint();
  assert.deepEqual([matchedFrames, releasedFrames], [2, 1]);
  assert.equal((await checkpoint()).matchedFrames, 0);
});
