/** The commands for disks and their order, against a QEMU that is a list of replies. vm-disks.e2e.ts has the real one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diskNodes } from '../../src/disk/nodes.ts';
import { type JsonObject, type Qmp, type QmpEvent, QmpRefusedError } from '../../src/qemu/qmp.ts';
import { VmDisks } from '../../src/qemu/vm-disks.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';

const { quorum, leader, remote, follower, active, hidden, parent } = diskNodes(0);
const JOB = 'colo-copy0';
const DISKS = [{ id: 'data', socket: '/run/disk0.sock' }];
const nobody = (): void => {};

type Job = { device: string; ready: boolean; 'actively-synced': boolean; offset: number; len: number };

/** One disk, and what QEMU has of it. */
class FakeQemu implements Qmp {
  readonly version = { major: 11, minor: 1, micro: 3, text: '11.1.3' };
  readonly log: string[] = [];
  /** for how long the caller would have waited for each reply */
  readonly waits: (number | undefined)[] = [];
  readonly nodes = new Map<string, JsonObject[]>([
    [quorum, [{ child: 'children.0', 'node-name': parent }]],
    [parent, []],
  ]);
  jobs: Job[] = [];
  yankable: JsonObject[] = [];
  status: JsonObject = { error: false };
  /** of the job that is cancelled */
  jobError: string | null = null;
  private readonly listeners = new Set<(event: QmpEvent) => void>();

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  emit(event: string, data: JsonObject): void {
    for (const listener of this.listeners) listener({ event, data, timestampUs: 0 });
  }

  async executeOob<T>(command: string, _: unknown, options?: { timeoutMs?: number }): Promise<T> {
    this.waits.push(options?.timeoutMs);
    if (command === 'query-yank') return this.yankable as T;
    this.log.push(`oob ${command}`);
    return {} as T;
  }

  async execute<T>(command: string, args: JsonObject = {}, options?: { timeoutMs?: number }): Promise<T> {
    this.waits.push(options?.timeoutMs);
    const name = String(args['node-name'] ?? args.node ?? args.child ?? args.device ?? args.id ?? '');
    if (!command.startsWith('query-')) this.log.push(`${command} ${name}`.trim());
    return this.reply(command, args, name) as T;
  }

  private reply(command: string, args: JsonObject, name: string): unknown {
    switch (command) {
      case 'query-named-block-nodes':
        return [...this.nodes].map(([node, children]) => ({ 'node-name': node, children }));
      case 'query-block-jobs':
        return this.jobs;
      case 'query-xen-replication-status':
        return this.status;
      case 'blockdev-add':
        this.nodes.set(name, []);
        return {};
      case 'blockdev-del':
        if (!this.nodes.delete(name))
          throw new QmpRefusedError(command, 'GenericError', 'Failed to find node');
        return {};
      case 'blockdev-mirror':
        this.jobs.push({ device: JOB, ready: false, 'actively-synced': false, offset: 0, len: 100 });
        return {};
      case 'block-job-cancel':
        this.jobs = [];
        this.emit('BLOCK_JOB_COMPLETED', {
          device: JOB,
          ...(this.jobError === null ? {} : { error: this.jobError }),
        });
        return {};
      case 'x-blockdev-change':
        if (typeof args.node === 'string')
          this.nodes.get(quorum)?.push({ child: 'children.1', 'node-name': args.node });
        else
          this.nodes.set(quorum, this.nodes.get(quorum)?.filter(({ child }) => child !== args.child) ?? []);
        return {};
      default:
        return {};
    }
  }
}

function rig() {
  const qemu = new FakeQemu();
  const time = new FakeTime();
  const reported: string[] = [];
  const disks = new VmDisks({
    ...{ qmp: qemu, ids: ['data'], clock: time, timers: time },
    events: {
      failing: (text) => reported.push(text),
      lacking: (text) => reported.push(`lacking: ${text}`),
      lost: (text) => reported.push(text),
    },
  });
  return { qemu, time, disks, reported };
}

/** As far as a guest whose every write goes to both images. */
async function copied() {
  const all = rig();
  await copy(all);
  return all;
}

async function copy({ qemu, time, disks }: Pick<ReturnType<typeof rig>, 'qemu' | 'time' | 'disks'>) {
  const copying = disks.copy(DISKS, nobody);
  await settled();
  Object.assign(qemu.jobs[0], { ready: true, offset: 100 });
  await time.pass(100);
  qemu.jobs[0]['actively-synced'] = true;
  await time.pass(10);
  await copying;
}

async function attached() {
  const all = await copied();
  await all.disks.attach();
  all.qemu.log.length = 0;
  return all;
}

test('a copy is over when every write goes to both images, not when the job is ready', async () => {
  const { qemu, time, disks } = rig();
  let done = false;
  const waiters: string[] = [];
  const copying = disks
    .copy(DISKS, (waiter) => waiters.push(waiter))
    .then(() => {
      done = true;
    });
  await settled();
  qemu.jobs[0].offset = 25;
  await time.pass(100);
  assert.deepEqual(disks.progress(time.now()), { doneBytes: 25, totalBytes: 100, leftMs: 300 });
  assert.deepEqual(waiters, ['copy']);
  Object.assign(qemu.jobs[0], { ready: true, offset: 100 });
  await time.pass(300);
  assert.equal(done, false);
  assert.deepEqual(waiters, ['copy', 'guest'], 'before its writes go to both images');
  qemu.jobs[0]['actively-synced'] = true;
  await time.pass(10);
  await copying;
  assert.deepEqual(qemu.log, [
    `blockdev-add ${remote}`,
    `blockdev-mirror ${quorum}`,
    `block-job-change ${JOB}`,
  ]);
});

test('a job that ends by itself ends the copy with its error', async () => {
  const { qemu, time, disks } = rig();
  const copying = disks.copy(DISKS, nobody);
  await settled();
  qemu.jobs = [];
  qemu.emit('BLOCK_JOB_COMPLETED', { device: JOB, error: 'No space left on device' });
  const refused = assert.rejects(copying, { code: 'COLO_DISK_COPY', message: /No space left on device/ });
  await time.pass(100);
  await refused;
});

test('the replication takes the place of a mirror that is in step, and of no other', async () => {
  const late = await copied();
  late.qemu.jobs[0].offset = 99;
  await assert.rejects(late.disks.attach(), { code: 'COLO_DISK_SWITCH' });
  assert.ok(!late.qemu.nodes.has(leader));
  const broken = await copied();
  broken.qemu.jobError = 'Input/output error';
  await assert.rejects(broken.disks.attach(), { code: 'COLO_DISK_SWITCH', message: /Input\/output error/ });
  assert.ok(!broken.qemu.nodes.has(leader));
  const { qemu, disks } = await copied();
  await disks.attach();
  assert.deepEqual(qemu.log.slice(-3), [
    `block-job-cancel ${JOB}`,
    `blockdev-add ${leader}`,
    `x-blockdev-change ${leader}`,
  ]);
});

test('a reply that is not "no error" is a lost write', async () => {
  const { qemu, disks } = await attached();
  assert.equal(await disks.lostWrite(), null);
  qemu.status = { error: true, desc: 'I/O error occurred' };
  assert.equal(await disks.lostWrite(), 'I/O error occurred');
  qemu.status = {};
  assert.equal(await disks.lostWrite(), 'QEMU gives no reason');
});

test('a primary breaks its connections before it removes what writes through them', async () => {
  const { qemu, disks, reported } = await attached();
  qemu.yankable = [
    { type: 'migration' },
    { type: 'block-node', 'node-name': remote },
    { type: 'block-node', 'node-name': 'users' },
  ];
  qemu.waits.length = 0;
  const leaveColo = async () => {
    qemu.log.push('COLO is left');
    qemu.emit('QUORUM_REPORT_BAD', { 'node-name': parent, type: 'write' });
  };
  await disks.leave(leaveColo, 60_000);
  assert.deepEqual(reported, [], 'the guest gets the error');
  assert.deepEqual(qemu.log, [
    ...['oob yank', 'x-blockdev-change children.1', 'COLO is left'],
    ...[`blockdev-del ${leader}`, `blockdev-del ${remote}`],
  ]);
  assert.deepEqual([...new Set(qemu.waits)], [60_000], 'it may be the last copy of the service');
  qemu.log.length = 0;
  await disks.leave(leaveColo, 60_000);
  assert.deepEqual(qemu.log, ['COLO is left'], 'there is nothing else left to leave');
});

test('what the last secondary has left is removed before the next one gets a copy', async () => {
  const { qemu, time, disks } = await attached();
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const first = disks.leave(() => gates[0].promise, 60_000);
  await settled();
  qemu.log.length = 0;
  const unwanted = assert.rejects(disks.copy(DISKS, nobody), {
    code: 'COLO_DISK_COPY',
  });
  await time.pass(10);
  assert.deepEqual(qemu.log, [], 'its nodes are still there');
  const second = disks.leave(() => gates[1].promise, 60_000);
  gates[0].resolve();
  await Promise.all([first, unwanted]);
  assert.deepEqual(qemu.log, [`blockdev-del ${leader}`, `blockdev-del ${remote}`]);
  const copying = copy({ qemu, time, disks });
  gates[1].resolve();
  await Promise.all([second, copying]);
  assert.deepEqual(qemu.log.slice(2, 4), [`blockdev-add ${remote}`, `blockdev-mirror ${quorum}`]);
});

test('a copy that is given up does not go on, and leaves nothing', async () => {
  const { qemu, time, disks } = rig();
  const copying = disks.copy(DISKS, nobody);
  await settled();
  const refused = assert.rejects(copying, { code: 'COLO_DISK_COPY' });
  const leaving = disks.leave(async () => {}, 60_000);
  await time.pass(200);
  await Promise.all([leaving, refused]);
  assert.deepEqual(qemu.jobs, []);
  assert.deepEqual([...qemu.nodes.keys()], [quorum, parent]);
  assert.equal(disks.progress(time.now()), null);
});

test('a write that an image refuses is reported as its place in the pair wants', async () => {
  const bad = (qemu: FakeQemu, node: string) =>
    qemu.emit('QUORUM_REPORT_BAD', { 'node-name': node, type: 'write' });
  const alone = rig();
  bad(alone.qemu, parent);
  assert.deepEqual(alone.reported, [], 'the guest gets the error');
  const primary = await attached();
  bad(primary.qemu, leader);
  bad(primary.qemu, parent);
  assert.deepEqual(primary.reported, [
    'disk data: a write did not reach the secondary',
    'lacking: disk data: a write of its image failed, which QEMU hides from the guest',
  ]);
  const secondary = rig();
  await secondary.disks.follow([{ id: 'data', active: '/a', hidden: '/h' }], '/run/nbd.sock');
  bad(secondary.qemu, follower);
  assert.deepEqual(secondary.reported, ['disk data: a write of its overlay failed']);
});

test('the image of a promoted primary is known by the node that stays above it', async () => {
  const { qemu, time, disks, reported } = rig();
  await disks.follow([{ id: 'data', active: '/a', hidden: '/h' }], '/run/nbd.sock');
  qemu.nodes.set(follower, [{ child: 'file', 'node-name': parent }]);
  await disks.committed();
  const bad = () => qemu.emit('QUORUM_REPORT_BAD', { 'node-name': follower, type: 'write' });
  bad();
  assert.deepEqual(reported, [], 'the guest gets the error');
  await copy({ qemu, time, disks });
  await disks.attach();
  bad();
  assert.deepEqual(reported, [
    'lacking: disk data: a write of its image failed, which QEMU hides from the guest',
  ]);
});

test('a promoted VM that loses a new secondary while its images are completed has nothing to stop any more', async () => {
  const { qemu, disks, reported } = rig();
  await disks.follow([{ id: 'data', active: '/a', hidden: '/h' }], '/run/nbd.sock');
  await disks.stopServing(60_000);
  assert.equal(disks.isFollowing, false);
  qemu.log.length = 0;
  await disks.leave(async () => void qemu.log.push('COLO is left'), 60_000);
  qemu.emit('QUORUM_REPORT_BAD', { 'node-name': follower, type: 'write' });
  assert.deepEqual([qemu.log, reported], [['COLO is left'], []]);
});

test('a promoted image is whole when the overlays are out of the graph', async () => {
  const { qemu, time, disks } = rig();
  await disks.follow([{ id: 'data', active: '/a', hidden: '/h' }], '/run/nbd.sock');
  qemu.nodes.set(follower, [
    { child: 'file', 'node-name': active },
    { child: 'hidden disk', 'node-name': hidden },
  ]);
  let whole = false;
  const committed = disks.committed().then(() => {
    whole = true;
  });
  await time.pass(100);
  assert.equal(whole, false);
  qemu.nodes.set(follower, [{ child: 'file', 'node-name': parent }]);
  await time.pass(100);
  await committed;
  assert.deepEqual(qemu.log.slice(-2), [`blockdev-del ${active}`, `blockdev-del ${hidden}`]);
  assert.equal(disks.isFollowing, false);
});
