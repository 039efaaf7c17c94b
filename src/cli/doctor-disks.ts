/** What `colo doctor` says of the VM's disks. It changes nothing, and may be asked while the node runs. */
import { existsSync, statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { NodeConfig } from '../config/node-config.ts';
import type { Disk } from '../disk/disk.ts';
import type { DiskState, DiskStore } from '../disk/store.ts';
import { systemDiskStore } from '../disk/system-store.ts';
import { ColoError } from '../error.ts';
import { writtenDiskOf } from '../qemu/disk-arguments.ts';
import { type Check, good, problem, warning } from './check.ts';
import { checkDirectory } from './check-directory.ts';

/** File systems that a restart of the host empties. */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

export async function checkDisks(
  config: NodeConfig,
  store: DiskStore = systemDiskStore(config),
  fileSystemOf: (path: string) => number = (path) => statfsSync(path).type,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const disk of config.vm.disks) {
    checks.push(await checkImage(disk, store));
    checks.push(checkOverlays(disk, fileSystemOf));
  }
  const written = writtenDiskOf(config.vm.args);
  if (written === null) return checks;
  const advice =
    'list it in vm.disks, or make it read-only: the images of both hosts differ after the first write';
  return [...checks, warning('disks', `vm.args hold ${written}, which the guest may write to`, advice)];
}

async function checkImage(disk: Disk, store: DiskStore): Promise<Check> {
  const name = `disk ${disk.id}`;
  if (!existsSync(disk.image)) {
    const folder = checkFolder(name, dirname(disk.image));
    if (!folder.ok) return folder;
    return good(name, `${disk.image} (not there: made for the first copy of the other node's)`);
  }
  try {
    await store.check(disk);
    const bytes = await store.virtualBytes(disk);
    return good(name, `${disk.image}, ${bytes} bytes, ${stateText(await store.readState(disk))}`);
  } catch (error) {
    if (!(error instanceof ColoError)) throw error;
    const [found, ...advice] = error.message.split('; ');
    return problem(name, `${error.code}: ${found}`, advice.join('; '));
  }
}

/** A node makes no folder for an image: the one that is missing may be on a file system that is not mounted. */
function checkFolder(name: string, path: string): Check {
  if (existsSync(path)) return checkDirectory(name, path);
  return problem(name, `there is no folder ${path}`, 'mount its file system, or make it');
}

function stateText(state: DiskState | null): string {
  return state === null ? 'not used by a node yet' : `${state.state}, generation ${state.generation}`;
}

function checkOverlays({ id, overlayDirectory }: Disk, fileSystemOf: (path: string) => number): Check {
  const name = `overlays of ${id}`;
  const check = checkFolder(name, overlayDirectory);
  if (!check.ok || !IN_MEMORY.has(fileSystemOf(overlayDirectory) >>> 0)) return check;
  const advice = 'they are no faster there: leave overlayDirectory out, or give a folder on a disk';
  return warning(name, `${overlayDirectory} is in memory, and overlays have no limit of their own`, advice);
}
