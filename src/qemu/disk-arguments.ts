/**
 * QEMU's arguments for the replicated disks, and what a user may not give it beside them.
 *
 * Each disk is a quorum with one child, its image, from the start: replication adds and removes children of a quorum in a VM that
 * runs, and nothing else can be put between a device and its image then. So a VM that runs alone can be protected at any time. The
 * arguments are the same for a VM that boots and for one that waits for state; the rest is done over QMP.
 *
 * Two writers on one image destroy it, and a second device on the quorum would write what the first does not expect. So an
 * argument of the user that names an image, or a block node of the node's own, is refused.
 *
 * The functions are pure. They compare paths as text; whether two paths are one file is seen by disk/system-store.ts.
 */
import { resolve } from 'node:path';
import type { Disk } from '../disk/disk.ts';
import { diskNodes } from '../disk/nodes.ts';
import { argumentsIn, optionName, pairOf, splitOptions } from './option-syntax.ts';

/** Returns the arguments of all disks: image and quorum first, then the device. */
export function diskArguments(disks: readonly Disk[]): string[] {
  return disks.flatMap((disk, place) => {
    const { parent, parentFile, quorum, device } = diskNodes(place);
    // O_DIRECT counts where the file is opened; the format's node has it for its own decisions about flushes.
    const cache = disk.cache === 'none' ? { cache: { direct: true } } : {};
    const file = { driver: 'file', 'node-name': parentFile, filename: disk.image, ...cache };
    return [
      '-blockdev',
      JSON.stringify({ driver: disk.format, 'node-name': parent, ...cache, file }),
      '-blockdev',
      JSON.stringify({
        driver: 'quorum',
        'node-name': quorum,
        'read-pattern': 'fifo',
        'vote-threshold': 1,
        children: [parent],
      }),
      '-device',
      `${disk.device},drive=${quorum},id=${device}`,
    ];
  });
}

/** The names of nodes.ts. */
const OWN_NAME = /colo-(?:disk|parent|hidden|active|follower|remote|leader|device)[0-9]+(?:-file)?(?![\w.-])/;

/** Returns the block node or device of the node's own that an argument names, or null. */
export function ownDiskName(value: string): string | null {
  return OWN_NAME.exec(value)?.[0] ?? null;
}

const DEVICE_PROPERTIES: ReadonlyMap<string, { readonly only?: RegExp; readonly why: string }> = new Map([
  ['drive', { why: 'the node connects the disk to its image. Remove it' }],
  ['id', { why: 'the node names the device. Remove it' }],
  ['driver', { why: 'give the device alone, before the first comma' }],
  ['share-rw', { only: /^(on|yes|true|y)$/, why: 'no other VM may write to the image. Remove it' }],
  ['werror', { only: /^ignore$/, why: 'the guest would take a lost write for a written one. Remove it' }],
  ['rerror', { only: /^ignore$/, why: 'the guest would take garbage for its data. Remove it' }],
]);

/** Returns what is wrong with the device of a disk, or null. */
export function diskDeviceProblem(device: string): string | null {
  const [driver, ...properties] = splitOptions(device);
  if (!/^[A-Za-z0-9._-]+$/.test(driver))
    return `${device}: write a QEMU device and its properties, as in virtio-blk-pci,bootindex=0`;
  for (const property of properties) {
    const [name, value] = pairOf(property);
    const known = DEVICE_PROPERTIES.get(name);
    if (known !== undefined && (known.only === undefined || known.only.test(value)))
      return `${property}: ${known.why}`;
  }
  return null;
}

/** An argument that names an image: its place in a list of the user's, and what is wrong with that, for people. */
type SecondUser = { readonly path: readonly ['args' | 'command', number]; readonly text: string };

/** Returns the first argument that names the image of a disk, or null. Relative paths count from the working directory, as in QEMU. */
export function secondUserOf(
  { args, command }: { readonly args: readonly string[]; readonly command: readonly string[] },
  disks: readonly Disk[],
): SecondUser | null {
  const given = [
    ...args.map((arg, index) => ({ arg, path: ['args', index] as const })),
    ...command.map((arg, index) => ({ arg, path: ['command', index] as const })).slice(argumentsIn(command)),
  ];
  for (const { arg, path } of given) {
    const paths = pathsIn(arg).map((one) => resolve(one));
    const disk = disks.find(({ image }) => paths.includes(image));
    if (disk === undefined) continue;
    const why = `the image of disk ${disk.id} belongs to the node, and two writers destroy it`;
    return { path, text: `vm.${path[0]} holds ${arg}: ${why}. Remove it` };
  }
  return null;
}

/** Options that give the guest a disk, and how that is made one that it only reads. */
const DISK_OPTIONS: ReadonlyMap<string, RegExp | null> = new Map([
  ['drive', /(^|,)(read-?only=(on|yes|true|y)|snapshot=(on|yes|true|y)|media=cdrom|if=pflash)(,|$)/],
  ...['hda', 'hdb', 'hdc', 'hdd', 'sd', 'mtdblock'].map((name): [string, null] => [name, null]),
]);

/** Returns the first option of the user that gives the guest a disk to write to, or null. Block nodes are not looked at. */
export function writtenDiskOf(args: readonly string[]): string | null {
  for (const [index, arg] of args.entries()) {
    const name = optionName(arg);
    const value = args[index + 1];
    if (name === undefined || value === undefined || !DISK_OPTIONS.has(name)) continue;
    const harmless = DISK_OPTIONS.get(name);
    if (harmless === null || harmless?.test(value) !== true) return `${arg} ${value}`;
  }
  return null;
}

/** Every text in an argument that could be a path: a value of its options, or of its JSON. */
function pathsIn(arg: string): string[] {
  if (/^(json:)?\s*\{/.test(arg)) return textsIn(arg.replace(/^json:/, ''));
  return splitOptions(arg).flatMap((option) => {
    const [, value] = pairOf(option);
    return [option, value]
      .flatMap((text) => [text, text.replace(/^file:(\/\/)?/, '')])
      .filter((text) => text !== '');
  });
}

function textsIn(json: string): string[] {
  const texts: string[] = [];
  try {
    JSON.parse(json, (_, value: unknown) => {
      if (typeof value === 'string') texts.push(value);
      return value;
    });
  } catch {
    // QEMU refuses it with the reason.
  }
  return texts;
}
