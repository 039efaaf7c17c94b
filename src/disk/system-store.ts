/**
 * The images of a node, and their state files (store.ts), on this host's file systems.
 *
 * Paths: the state file is beside the file that `image` names, through symbolic links: two names of one image have one state file.
 * The overlays are in `overlayDirectory`, with the names of pair, node and disk, so that nodes may share it.
 *
 * An image is taken as it is only if it is one file: with a backing file or an external data file, a copy of its file
 * would be half of it. Sizes must be equal: QEMU ends a replication between images of two sizes. Whether another QEMU has an image
 * open is seen by QEMU and qemu-img themselves, by their locks.
 *
 * A secondary never overwrites an image that no node has used, unless it is blank: its contents may be all there is of somebody's data.
 *
 * Failure: COLO_DISK_IMAGE (the image), COLO_DISK_STATE (its state), COLO_DISK_SPACE (no room), COLO_DISK_TOOL (no qemu-img): with
 * the disk, the file, and what to do.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ColoError, messageOf } from '../error.ts';
import type { Disk } from './disk.ts';
import { bootProblem, type CommitSeen } from './disk-rules.ts';
import { type Files, replaceFile, systemFiles } from './files.ts';
import { type ImageInfo, ImageTool, imageCommandOf } from './image-tool.ts';
import {
  foreignOwner,
  formatState,
  type Owner,
  otherFile,
  parseState,
  type StateRecord,
  stateOf,
  statePathOf,
} from './state-file.ts';
import type { DiskState, DiskStore, Overlays } from './store.ts';

/** The first bytes of a qcow2 image. */
const QCOW2_MAGIC = Buffer.from([0x51, 0x46, 0x49, 0xfb]);
/** A block of any file system. */
const BLANK_BYTES_MAX = 1024 * 1024;
const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const FULL: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT']);

/** The parts of a node's configuration that its images need. */
export type StoreConfig = {
  readonly node: string;
  readonly pair: string;
  readonly vm: { readonly command: readonly string[]; readonly env: Readonly<Record<string, string>> };
};

export function systemDiskStore({ node, pair, vm }: StoreConfig): DiskStore {
  const tool = new ImageTool(imageCommandOf(vm.command), vm.env);
  return new SystemStore({ node, pair, tool, files: systemFiles, hostBoot: () => readFile(BOOT_ID, 'utf8') });
}

export class SystemStore implements DiskStore {
  private readonly node: string;
  private readonly pair: string;
  private readonly tool: ImageTool;
  private readonly files: Files;
  private readonly hostBoot: () => Promise<string>;
  /** State files are written one after the other. */
  private lastWrite: Promise<void> = Promise.resolve();

  constructor(options: {
    node: string;
    pair: string;
    tool: ImageTool;
    files: Files;
    /** Returns what differs after each start of the host. */
    hostBoot: () => Promise<string>;
  }) {
    this.node = options.node;
    this.pair = options.pair;
    this.tool = options.tool;
    this.files = options.files;
    this.hostBoot = options.hostBoot;
  }

  async check(disk: Disk): Promise<void> {
    const info = await this.infoOf(disk);
    if (info === null) {
      const advice = 'make it, or correct vm.disks; a secondary makes its own when it gets its first copy';
      throw refused(disk, `there is no ${disk.image}`, advice);
    }
    await this.record(disk);
  }

  async virtualBytes(disk: Disk): Promise<number> {
    return (await this.tool.info(disk.image, disk.format)).bytes;
  }

  async makeBlank(disk: Disk, bytes: number, generation: number): Promise<void> {
    const info = await this.infoOf(disk);
    const record = await this.ownRecord(disk);
    if (info !== null && info.bytes !== bytes) {
      const advice = `remove it and ${statePathOf(disk.image)}: the node makes a new one`;
      throw refused(disk, `${disk.image} has ${info.bytes} bytes, and the primary's image ${bytes}`, advice);
    }
    if (info !== null && record === null && !(await this.isBlank(disk))) {
      const advice = 'move it away, and the node makes a new one; or correct vm.disks';
      throw refused(
        disk,
        `${disk.image} has contents, and no node has used it: a copy would overwrite them`,
        advice,
      );
    }
    await this.writeState(disk, { state: 'target', generation });
    if (info === null) await this.create(disk, disk.image, disk.format, bytes);
  }

  async makeOverlays(disk: Disk, bytes: number): Promise<Overlays> {
    await this.removeOverlays(disk);
    const overlays = this.overlaysOf(disk);
    for (const path of [overlays.hidden, overlays.active]) await this.create(disk, path, 'qcow2', bytes);
    return overlays;
  }

  async removeOverlays(disk: Disk): Promise<void> {
    const { active, hidden } = this.overlaysOf(disk);
    for (const path of [active, hidden]) await this.on(disk, path, this.files.remove(path));
  }

  async readState(disk: Disk): Promise<DiskState | null> {
    const record = await this.record(disk);
    return record === null ? null : stateOf(record);
  }

  writeState(disk: Disk, state: DiskState): Promise<void> {
    const written = this.lastWrite.then(() => this.replaceState(disk, state));
    this.lastWrite = written.catch(() => undefined);
    return written;
  }

  private async replaceState(disk: Disk, { state, generation }: DiskState): Promise<void> {
    const image = await this.realImage(disk);
    const text = formatState({
      ...this.ownerOf(disk, image),
      inode: await this.inodeOf(disk, image),
      host: await this.boot(),
      overlays: disk.overlayDirectory,
      state,
      generation,
    });
    const path = statePathOf(image);
    await this.on(disk, path, replaceFile(this.files, path, text));
  }

  async judge(disks: readonly Disk[], generation: number): Promise<void> {
    await this.mayBoot(disks, generation);
    for (const disk of disks) await this.check(disk);
  }

  async admit(disks: readonly Disk[], generation: number): Promise<void> {
    await this.mayBoot(disks, generation);
    // Before anything else can fail: a node that starts again and again must not lag behind its own record.
    for (const disk of disks)
      if (await this.exists(disk)) await this.writeState(disk, { state: 'complete', generation });
    for (const disk of disks) await this.check(disk);
  }

  /** Rejects if the state of an image forbids a boot. */
  private async mayBoot(disks: readonly Disk[], generation: number): Promise<void> {
    for (const disk of disks) {
      const record = await this.record(disk);
      if (record === null) {
        await this.refuseMistakenFormat(disk);
        continue;
      }
      const problem = bootProblem(stateOf(record), generation, await this.commitSeen(disk, record));
      if (problem !== null)
        throw misfit(disk, `${disk.image} is not to be booted: ${problem.why}`, problem.advice);
    }
  }

  /** Overlays are removed as soon as QEMU has written them into the image. */
  private async commitSeen(disk: Disk, record: StateRecord): Promise<CommitSeen> {
    const { overlayDirectory } = disk;
    if (record.overlays !== overlayDirectory || (await this.inodeOf(disk, overlayDirectory)) === null)
      return 'unknown';
    const { active, hidden } = this.overlaysOf(disk);
    for (const path of [active, hidden]) if ((await this.inodeOf(disk, path)) !== null) return 'unknown';
    return record.host === (await this.boot()) ? 'ended' : 'unknown';
  }

  /** Returns null if there is no image; rejects if it is not one file of the disk's format that this user may write. */
  private async infoOf(disk: Disk): Promise<ImageInfo | null> {
    const { image } = disk;
    const found = await this.on(disk, image, this.files.look(image));
    if (found === null) return null;
    if (found.kind !== 'file')
      throw refused(disk, `${image} is not a file`, 'give a file: its state is stored beside it');
    await this.on(disk, image, this.files.probe(image));
    const info = await this.tool.info(image, disk.format);
    if (info.backing !== null)
      throw refused(
        disk,
        `${image} has the backing file ${info.backing}`,
        'make it one file: qemu-img rebase -b ""',
      );
    if (info.dataFile !== null)
      throw refused(disk, `${image} has its data in ${info.dataFile}`, 'make it one file: qemu-img convert');
    if (info.isEncrypted)
      throw refused(disk, `${image} is encrypted`, 'encrypt inside the guest, or the file system below');
    if (info.isCorrupt)
      throw refused(disk, `${image} is marked as corrupt`, 'repair it: qemu-img check -r all');
    return info;
  }

  private async exists(disk: Disk): Promise<boolean> {
    return (await this.inodeOf(disk, disk.image)) !== null;
  }

  /** qemu-img writes zeros to the first block of a new raw image, which is then allocated. */
  private async isBlank(disk: Disk): Promise<boolean> {
    const end = await this.tool.dataEnd(disk.image, disk.format);
    if (end === 0 || disk.format !== 'raw' || end > BLANK_BYTES_MAX) return end === 0;
    const start = await this.on(disk, disk.image, this.files.readStart(disk.image, end));
    return start.every((byte) => byte === 0);
  }

  private async inodeOf(disk: Disk, path: string): Promise<number | null> {
    return (await this.on(disk, path, this.files.look(path)))?.inode ?? null;
  }

  private realImage(disk: Disk): Promise<string> {
    return this.on(disk, disk.image, this.files.realPath(disk.image));
  }

  /** A guest would be shown the container in place of its disk. Only of an image that is new: a guest may write what it likes. */
  private async refuseMistakenFormat(disk: Disk): Promise<void> {
    if (disk.format !== 'raw' || !(await this.exists(disk))) return;
    const first = await this.on(disk, disk.image, this.files.readStart(disk.image, QCOW2_MAGIC.length));
    if (first.equals(QCOW2_MAGIC))
      throw refused(
        disk,
        `${disk.image} is a qcow2 image, and its format is given as raw`,
        'set format: qcow2',
      );
  }

  /** Returns the record of an image that may be used as what it says. */
  private async record(disk: Disk): Promise<StateRecord | null> {
    const record = await this.ownRecord(disk);
    if (typeof record === 'string') {
      const advice = 'see "By hand" in docs/disks.md, or let the other node copy its image';
      throw misfit(disk, `the state file ${statePathOf(disk.image)} cannot be used: ${record}`, advice);
    }
    if (record === null) return null;
    const image = await this.realImage(disk);
    const why = otherFile(record, image, await this.inodeOf(disk, image));
    if (why !== null) {
      const advice = `if its contents are right, remove ${statePathOf(disk.image)}; if not, put the right one back`;
      throw misfit(disk, `${disk.image} is not the image that its state file describes: ${why}`, advice);
    }
    return record;
  }

  /** Returns the record, or what is wrong with it. Rejects if the image is another node's. */
  private async ownRecord(disk: Disk): Promise<StateRecord | string | null> {
    const image = await this.realImage(disk);
    const path = statePathOf(image);
    const text = await this.on(disk, path, this.files.read(path));
    if (text === null) return null;
    const record = parseState(text);
    if (typeof record === 'string') return record;
    const foreign = foreignOwner(record, this.ownerOf(disk, image));
    if (foreign === null) return record;
    const advice =
      'give each node and disk an image of its own; if it was moved here on purpose, remove its state file';
    throw misfit(disk, `${disk.image} belongs to ${foreign}`, advice);
  }

  private ownerOf(disk: Disk, image: string): Owner {
    return { pair: this.pair, node: this.node, disk: disk.id, image };
  }

  private overlaysOf(disk: Disk): Overlays {
    const path = (name: string) =>
      join(disk.overlayDirectory, `${this.pair}.${this.node}.${disk.id}.${name}.qcow2`);
    return { active: path('active'), hidden: path('hidden') };
  }

  private async create(disk: Disk, path: string, format: Disk['format'], bytes: number): Promise<void> {
    // qemu-img keeps the mode of a file that is there.
    await this.on(disk, path, this.files.write(path, ''));
    try {
      await this.tool.create(path, format, bytes);
    } catch (cause) {
      // A part of it would be taken for an image.
      await this.files.remove(path).catch(() => undefined);
      throw cause;
    }
  }

  private async boot(): Promise<string> {
    return (await this.hostBoot()).trim();
  }

  /** Turns what a file system refuses into an error for people. */
  private async on<T>(disk: Disk, path: string, done: Promise<T>): Promise<T> {
    try {
      return await done;
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (cause instanceof ColoError || code === undefined) throw cause;
      if (FULL.has(code))
        throw new ColoError(
          'COLO_DISK_SPACE',
          `disk ${disk.id}: there is no room for ${path}; make room in ${dirname(path)}`,
          { cause },
        );
      // Not made here: its file system may not be mounted.
      if (code === 'ENOENT')
        throw refused(disk, `there is no folder ${dirname(path)}`, 'mount its file system, or make it');
      throw refused(
        disk,
        `${path}: ${messageOf(cause)}`,
        'make it readable and writable for the user of the node',
      );
    }
  }
}

function refused(disk: Disk, what: string, advice: string): ColoError {
  return new ColoError('COLO_DISK_IMAGE', `disk ${disk.id}: ${what}; ${advice}`);
}

function misfit(disk: Disk, what: string, advice: string): ColoError {
  return new ColoError('COLO_DISK_STATE', `disk ${disk.id}: ${what}; ${advice}`);
}
