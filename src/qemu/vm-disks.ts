/**
 * The commands to one QEMU for the disks of its VM: the first copy of each, the replication, and the ends of it.
 *
 * QEMU is silent about most of what goes wrong with replicated disks, so the order of the commands is what keeps data whole.
 *
 * Primary, for a secondary:
 *   `copy`     connects to the secondary's images and mirrors each disk, while the guest runs; at its end every write of the guest
 *              goes to both images before the guest learns of it (copy-mode write-blocking, actively-synced)
 *   migrate    colo.ts; READY is held by the relay: the guest stands, and both images are equal
 *   `attach`   ends the mirrors and adds the replication in their place, on the same connections. A replication that the guest
 *              writes through before COLO has begun refuses the writes, the quorum hides that, and the beginning of COLO forgets it
 *   `lostWrite` in each checkpoint: QEMU's COLO goes on when a write did not reach the secondary
 *   `leave`    when the secondary is gone: breaks the connections, then removes the replication, then leaves COLO. A removal waits
 *              for writes under way, so a connection that is stalled must be broken before
 *
 * Secondary:
 *   `follow`   puts two overlays and the replication on the image, takes the image itself out of the quorum, and
 *              serves it by NBD: before state is loaded
 *   `stopServing` before a promotion: a primary that still lives would write on into the image
 *   `committed` after it: QEMU writes the overlays into the image by a job that no query and no event shows. The image is
 *              whole when the overlays are out of the graph
 *
 * Events: QUORUM_REPORT_BAD names the quorum's child that refused a write. On a primary, the image itself, or what stays above it in
 * a VM that was promoted, the follower: QEMU hides that failure from the guest, which then reads old data; so the VM may not go on, and
 * `lacking` is called. The leader: the secondary lacks a write, and `lost` is called. On a secondary, the follower: an overlay is full,
 * or its file system fails; `failing`.
 *
 * Limits: QMP's deadline for each command of a copy, which has no other but its connections' (disk/nbd-relay.ts), for its size is the
 * user's. What a VM needs to go on alone has its caller's: it may be the last copy of the service.
 * Failure: COLO_DISK_COPY, COLO_DISK_SWITCH, or QEMU's refusal. `leave` undoes whatever of the copy there is.
 */
import type { DiskWaiter } from '../disk/disk.ts';
import { diskNodes } from '../disk/nodes.ts';
import { ColoError } from '../error.ts';
import { type Clock, sleep, type Timers } from '../io/clock.ts';
import type { Instant } from '../units.ts';
import { type DiskJob, queryBlockNodes, queryJobs, queryYank } from './disk-graph.ts';
import { type JsonObject, type Qmp, type QmpEvent, QmpRefusedError } from './qmp.ts';

/** A job's progress is shown to people. */
const COPY_POLL_MS = 100;
/** The guest stands, or its writes wait, meanwhile. */
const SWITCH_POLL_MS = 2;
/** The switch took 6 to 40 ms, on a starved host 165. */
const SWITCH_MS_MAX = 5000;
/** The commit took up to 1.5 s for 63 MB of overlay. */
const COMMIT_POLL_MS = 2;
/** Nobody waits for the commit: a QEMU that is slow to reply, or stopped for a while, still ends it. */
const COMMIT_REPLY_MS_MAX = 24 * 3600 * 1000;

/** What a VM's disks report by themselves. */
export type VmDiskEvents = {
  /** The VM may not be the one VM of the service, and `message` says why. */
  failing(message: string): void;
  /** The same, and the image lacks a write that the guest takes for done: nothing may boot on it. */
  lacking(message: string): void;
  /** The secondary lacks a write. */
  lost(message: string): void;
};

/** How far the first copy of the disks is, and how long the rest takes at the rate so far. */
export type DiskProgress = {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly leftMs: number | null;
};

/** One disk of a secondary: the files of its overlays, and the name by which the primary knows its image. */
export type FollowedDisk = { readonly id: string; readonly active: string; readonly hidden: string };

/** `promoted`: QEMU writes the overlays into the images. */
type Phase = 'alone' | 'copying' | 'attached' | 'following' | 'promoted';

export class VmDisks {
  private readonly qmp: Qmp;
  /** of the disks, by their places */
  private readonly ids: readonly string[];
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly events: VmDiskEvents;
  private phase: Phase = 'alone';
  /** of the copy that is under way */
  private copied: { doneBytes: number; totalBytes: number; readonly startMs: Instant } | null = null;
  /** settled unless a command of `copy` or `attach` is under way */
  private running: Promise<unknown> = Promise.resolve();
  /** grows with each `leave`: what was begun before it is not wanted any more */
  private term = 0;
  /** settled unless a `leave` is under way */
  private left: Promise<unknown> = Promise.resolve();
  /** jobs that have ended, with their error */
  private readonly ended = new Map<string, string | null>();

  constructor(options: {
    qmp: Qmp;
    ids: readonly string[];
    clock: Clock;
    timers: Timers;
    events: VmDiskEvents;
  }) {
    this.qmp = options.qmp;
    this.ids = options.ids;
    this.clock = options.clock;
    this.timers = options.timers;
    this.events = options.events;
    this.qmp.onEvent((event) => this.onEvent(event));
  }

  /** How far the first copy is; null if none is under way. */
  progress(nowMs: Instant): DiskProgress | null {
    if (this.copied === null) return null;
    const { doneBytes, totalBytes, startMs } = this.copied;
    const msPerByte = doneBytes === 0 ? null : (nowMs - startMs) / doneBytes;
    return {
      doneBytes,
      totalBytes,
      leftMs: msPerByte === null ? null : (totalBytes - doneBytes) * msPerByte,
    };
  }

  /**
   * Copies every disk to the image that QEMU finds at the socket of the same place; `ids` are the images' names there. `waitedForBy` is
   * told who waits for these connections from now on.
   */
  async copy(
    disks: readonly { readonly id: string; readonly socket: string }[],
    waitedForBy: (waiter: DiskWaiter) => void,
  ): Promise<void> {
    const wanted = this.wanted();
    // The nodes of the last secondary have the same names.
    await this.left;
    wanted();
    await this.run(async () => {
      this.phase = 'copying';
      this.copied = { doneBytes: 0, totalBytes: 0, startMs: this.clock.now() };
      this.ended.clear();
      for (const [place, { id, socket }] of disks.entries()) {
        const { remote, quorum } = diskNodes(place);
        await this.qmp.execute('blockdev-add', {
          driver: 'nbd',
          'node-name': remote,
          server: { type: 'unix', path: socket },
          export: id,
        });
        wanted();
        await this.qmp.execute('blockdev-mirror', {
          'job-id': jobOf(place),
          device: quorum,
          target: remote,
          sync: 'full',
          'copy-mode': 'background',
        });
        wanted();
      }
      waitedForBy('copy');
      await this.untilJobs(COPY_POLL_MS, wanted, (job) => job.isReady);
      waitedForBy('guest');
      for (const place of disks.keys()) {
        await this.qmp.execute('block-job-change', {
          id: jobOf(place),
          type: 'mirror',
          'copy-mode': 'write-blocking',
        });
        wanted();
      }
      await this.untilJobs(SWITCH_POLL_MS, wanted, (job) => job.isSynced);
    });
  }

  /** Replaces the mirrors by the replication. The guest must stand, and COLO must be about to begin. */
  attach(): Promise<void> {
    const wanted = this.wanted();
    return this.run(async () => {
      const jobs = await queryJobs(this.qmp);
      const places = [...this.ids.keys()];
      for (const place of places)
        if (jobs.get(jobOf(place))?.isSynced !== true)
          throw new ColoError(
            'COLO_DISK_SWITCH',
            `the copy of disk ${this.ids[place]} is not in step with the disk`,
          );
      for (const place of places) {
        const { quorum, leader, remote } = diskNodes(place);
        wanted();
        await this.endJob(place);
        wanted();
        await this.qmp.execute('blockdev-add', {
          driver: 'replication',
          'node-name': leader,
          mode: 'primary',
          file: remote,
        });
        wanted();
        await this.qmp.execute('x-blockdev-change', { parent: quorum, node: leader });
      }
      wanted();
      this.copied = null;
      this.phase = 'attached';
    });
  }

  /** Asks whether a write did not reach the secondary since COLO began; resolves with what QEMU says of it, or null. */
  async lostWrite(): Promise<string | null> {
    const reply = await this.qmp.execute<JsonObject>('query-xen-replication-status');
    if (reply.error === false) return null;
    return typeof reply.desc === 'string' ? reply.desc : 'QEMU gives no reason';
  }

  /**
   * Breaks what QEMU has to the secondary's images, and the migration, and removes the replication from the disks; makes the VM leave
   * COLO by `leaveColo`; and removes the rest. Without a secondary that is `leaveColo` alone. One call at a time: the next one waits.
   */
  leave(leaveColo: () => Promise<void>, deadlineMs: number): Promise<void> {
    this.term++;
    const left = this.left.then(async () => {
      const hadSecondary = this.phase === 'copying' || this.phase === 'attached';
      if (hadSecondary) await this.detach(deadlineMs);
      await leaveColo();
      if (hadSecondary) await this.forget(deadlineMs);
    });
    this.left = left.catch(() => {});
    return left;
  }

  private async detach(timeoutMs: number): Promise<void> {
    this.copied = null;
    const remotes = [...this.ids.keys()].map((place) => diskNodes(place).remote);
    const instances = await queryYank(this.qmp, remotes, timeoutMs);
    if (instances.length > 0) {
      try {
        await this.qmp.executeOob('yank', { instances }, { timeoutMs });
      } catch (error) {
        // One of them ended between the query and the command.
        if (!(error instanceof QmpRefusedError)) throw error;
        await this.yankEach(instances, timeoutMs);
      }
    }
    await this.running.catch(() => {});
    for (const place of this.ids.keys()) await this.cancelJob(place, timeoutMs);
    const nodes = await queryBlockNodes(this.qmp, timeoutMs);
    for (const place of this.ids.keys()) {
      const { quorum: parent, leader } = diskNodes(place);
      const child = nodes.get(parent)?.find(({ node }) => node === leader)?.child;
      if (child !== undefined) await this.qmp.execute('x-blockdev-change', { parent, child }, { timeoutMs });
    }
    // From now on the guest gets the errors of its image.
    this.phase = 'alone';
  }

  /** Removes the nodes that `detach` has taken off the disks. */
  private async forget(timeoutMs: number): Promise<void> {
    for (const place of this.ids.keys()) {
      const { leader, remote } = diskNodes(place);
      for (const node of [leader, remote]) {
        if (!(await queryBlockNodes(this.qmp, timeoutMs)).has(node)) continue;
        await this.qmp.execute('blockdev-del', { 'node-name': node }, { timeoutMs });
      }
    }
  }

  /** Makes a VM that waits for state follow a primary's disks, and serves its images at the socket. */
  async follow(disks: readonly FollowedDisk[], socket: string): Promise<void> {
    this.phase = 'following';
    for (const [place, { active, hidden }] of disks.entries()) {
      const names = diskNodes(place);
      await this.qmp.execute('blockdev-add', overlay(names.hidden, names.hiddenFile, hidden, names.parent));
      await this.qmp.execute('blockdev-add', overlay(names.active, names.activeFile, active, names.hidden));
      await this.qmp.execute('blockdev-add', {
        driver: 'replication',
        'node-name': names.follower,
        mode: 'secondary',
        'top-id': names.quorum,
        file: names.active,
      });
      await this.qmp.execute('x-blockdev-change', { parent: names.quorum, node: names.follower });
      await this.qmp.execute('x-blockdev-change', { parent: names.quorum, child: 'children.0' });
    }
    await this.qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
    for (const [place, { id }] of disks.entries()) {
      await this.qmp.execute('block-export-add', {
        type: 'nbd',
        id: `colo-export${place}`,
        'node-name': diskNodes(place).parent,
        name: id,
        writable: true,
      });
    }
  }

  /** Whether this VM's disks follow a primary's. */
  get isFollowing(): boolean {
    return this.phase === 'following';
  }

  /** Begins the promotion by the end of the NBD server: from then on nobody else writes into the images. */
  async stopServing(timeoutMs: number): Promise<void> {
    await this.qmp.execute('nbd-server-stop', undefined, { timeoutMs });
    this.phase = 'promoted';
  }

  /** After the promotion: resolves when QEMU has written the overlays into the images, and let go of their files. */
  async committed(): Promise<void> {
    const timeoutMs = COMMIT_REPLY_MS_MAX;
    for (;;) {
      const nodes = await queryBlockNodes(this.qmp, timeoutMs);
      const isDone = (place: number) => {
        const { follower, parent } = diskNodes(place);
        const children = nodes.get(follower) ?? [];
        return children.length === 1 && children[0].node === parent;
      };
      if ([...this.ids.keys()].every(isDone)) break;
      await sleep(this.timers, COMMIT_POLL_MS);
    }
    for (const place of this.ids.keys()) {
      const { active, hidden } = diskNodes(place);
      const nodes = await queryBlockNodes(this.qmp, timeoutMs);
      for (const node of [active, hidden])
        if (nodes.has(node)) await this.qmp.execute('blockdev-del', { 'node-name': node }, { timeoutMs });
    }
    this.phase = 'alone';
  }

  /** Returns what throws when the secondary has been given up meanwhile. */
  private wanted(): () => void {
    const { term } = this;
    return () => {
      if (this.term !== term) throw new ColoError('COLO_DISK_COPY', 'the copy of the disks was given up');
    };
  }

  private run(commands: () => Promise<void>): Promise<void> {
    const running = commands();
    this.running = running;
    return running;
  }

  private async untilJobs(pollMs: number, wanted: () => void, is: (job: DiskJob) => boolean): Promise<void> {
    for (;;) {
      wanted();
      const jobs = await queryJobs(this.qmp);
      let doneBytes = 0;
      let totalBytes = 0;
      let met = 0;
      for (const place of this.ids.keys()) {
        const job = jobs.get(jobOf(place));
        if (job === undefined) {
          const why = this.ended.get(jobOf(place)) ?? 'its job has ended';
          throw new ColoError('COLO_DISK_COPY', `disk ${this.ids[place]} was not copied: ${why}`);
        }
        doneBytes += job.doneBytes;
        totalBytes += job.totalBytes;
        if (is(job)) met++;
      }
      if (this.copied !== null) Object.assign(this.copied, { doneBytes, totalBytes });
      if (met === this.ids.length) return;
      await sleep(this.timers, pollMs);
    }
  }

  /** Ends a mirror that is in step: both images are equal. */
  private async endJob(place: number): Promise<void> {
    const id = jobOf(place);
    await this.qmp.execute('block-job-cancel', { device: id });
    await this.untilEnded(id, SWITCH_MS_MAX);
    const error = this.ended.get(id);
    if (error !== null && error !== undefined)
      throw new ColoError(
        'COLO_DISK_SWITCH',
        `the copy of disk ${this.ids[place]} ended with an error: ${error}`,
      );
  }

  /** Ends a mirror whose connection is broken, whatever it has copied. */
  private async cancelJob(place: number, timeoutMs: number): Promise<void> {
    const id = jobOf(place);
    if (!(await queryJobs(this.qmp, timeoutMs)).has(id)) return;
    try {
      await this.qmp.execute('block-job-cancel', { device: id, force: true }, { timeoutMs });
    } catch (error) {
      // It ended by itself.
      if (!(error instanceof QmpRefusedError)) throw error;
    }
    await this.untilEnded(id, timeoutMs);
  }

  private async untilEnded(id: string, msMax: number): Promise<void> {
    const startMs = this.clock.now();
    while ((await queryJobs(this.qmp, msMax)).has(id)) {
      if (this.clock.now() - startMs >= msMax)
        throw new ColoError('COLO_DISK_COPY', `QEMU has not ended the job ${id} in ${msMax} ms`);
      await sleep(this.timers, SWITCH_POLL_MS);
    }
  }

  private async yankEach(instances: readonly JsonObject[], timeoutMs: number): Promise<void> {
    for (const instance of instances) {
      try {
        await this.qmp.executeOob('yank', { instances: [instance] }, { timeoutMs });
      } catch (error) {
        if (!(error instanceof QmpRefusedError)) throw error;
      }
    }
  }

  private onEvent({ event, data }: QmpEvent): void {
    if (event === 'BLOCK_JOB_COMPLETED' || event === 'BLOCK_JOB_CANCELLED') {
      const error = event === 'BLOCK_JOB_CANCELLED' ? 'it was cancelled' : data.error;
      this.ended.set(String(data.device), typeof error === 'string' ? error : null);
    } else if (event === 'QUORUM_REPORT_BAD') this.onBad(String(data['node-name']), String(data.type));
  }

  private onBad(node: string, operation: string): void {
    for (const place of this.ids.keys()) {
      const names = diskNodes(place);
      if (node === names.leader && this.phase === 'attached')
        this.events.lost(`disk ${this.ids[place]}: a ${operation} did not reach the secondary`);
      else if ((node === names.parent || node === names.follower) && this.phase === 'attached')
        this.events.lacking(
          `disk ${this.ids[place]}: a ${operation} of its image failed, which QEMU hides from the guest`,
        );
      else if (node === names.follower && this.phase === 'following')
        this.events.failing(`disk ${this.ids[place]}: a ${operation} of its overlay failed`);
    }
  }
}

function jobOf(place: number): string {
  return `colo-copy${place}`;
}

/** The overlays are scratch: what they hold is lost with this QEMU in any case, so nobody waits for their flushes. */
function overlay(name: string, file: string, path: string, backing: string): JsonObject {
  const cache = { 'no-flush': true };
  return {
    driver: 'qcow2',
    'node-name': name,
    backing,
    cache,
    file: { driver: 'file', 'node-name': file, filename: path, cache },
  };
}
