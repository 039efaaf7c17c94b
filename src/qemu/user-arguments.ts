/**
 * What a user may not give QEMU: options that would take something away from the node, or contradict what it writes itself.
 *
 * Goal: the configuration is refused before anything is started, with the option and the reason. QEMU would take most of
 * these without a word: of two values for one property it uses the last, and a second network bypasses the node.
 *
 * What QEMU refuses itself (a property that no device has) is not looked for here: `colo doctor` and the start show QEMU's own
 * words. Which files are in use is seen elsewhere (disk-arguments.ts). The functions are pure.
 */
import { diskDeviceProblem, ownDiskName } from './disk-arguments.ts';
import { argumentsIn, optionName, pairOf, splitOptions } from './option-syntax.ts';

/** A problem of vm.args or vm.command, at this place in the list. */
type ArgumentProblem = { readonly index: number; readonly text: string };

/** What a user gives QEMU, as in the section `vm` of the configuration. */
export type UserArguments = {
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly nic: { readonly device: string; readonly options: string };
  readonly disks?: readonly { readonly device: string }[];
};
/** A problem of the section: `path` is its place there. */
export type UserProblem = { readonly path: readonly (string | number)[]; readonly text: string };

const NETWORK = "the node adds the VM's only NIC; a second network would bypass it. Remove it, or use vm.nic";
const QMP = "the node needs QMP to itself. Remove it; use '-monitor' for a console of your own";
const START = 'the node starts the machine by itself. Remove it';
const STATE = 'the node decides which VM loads state. Remove it';

/** Options that the node needs to itself, by their names. */
const REFUSED: ReadonlyMap<string, string> = new Map([
  ['netdev', NETWORK],
  ['nic', NETWORK],
  ['net', NETWORK],
  ['incoming', STATE],
  ['loadvm', STATE],
  ['qmp', QMP],
  ['qmp-pretty', QMP],
  ['daemonize', 'the node watches its QEMU and must be its parent. Remove it'],
  ['preconfig', START],
  ['S', START],
  ['readconfig', 'the node cannot see what is in that file. Write its contents into vm.args'],
]);

const NIC_PROPERTIES: ReadonlyMap<string, { readonly may?: string; readonly why: string }> = new Map([
  ['driver', { why: 'that would be another device; set vm.nic.device' }],
  ['netdev', { why: 'the NIC belongs to the node, and to no other network. Remove it' }],
  ['mac', { why: 'the node passes only frames for vm.mac to the VM; set vm.mac' }],
  ['mq', { may: 'off', why: 'the node has one queue per VM. Remove it' }],
  [
    'failover',
    { may: 'off', why: 'the guest would wait for a second NIC before it uses this one. Remove it' },
  ],
  [
    'guest_announce',
    { may: 'off', why: "the secondary's guest would announce itself after each checkpoint. Remove it" },
  ],
]);
const OFF: ReadonlySet<string> = new Set(['off', 'no', 'false', 'n']);

/** Returns the first problem of each setting. */
export function userProblems({ command, args, nic, disks = [] }: UserArguments): UserProblem[] {
  const problems: UserProblem[] = [];
  const inArgs = argumentProblem(args, nic.device);
  if (inArgs !== null) problems.push({ path: ['args', inArgs.index], text: `vm.args holds ${inArgs.text}` });
  const inCommand = commandProblem(command, nic.device);
  if (inCommand !== null)
    problems.push({ path: ['command', inCommand.index], text: `vm.command holds ${inCommand.text}` });
  const inNic = nicOptionsProblem(nic.options);
  if (inNic !== null) problems.push({ path: ['nic', 'options'], text: `vm.nic.options holds ${inNic}` });
  for (const [place, { device }] of disks.entries()) {
    const why = diskDeviceProblem(device);
    if (why !== null)
      problems.push({ path: ['disks', place, 'device'], text: `vm.disks.${place}.device holds ${why}` });
  }
  return problems;
}

/** Returns the first problem of vm.args, or null; `device` is the NIC's. */
export function argumentProblem(args: readonly string[], device: string): ArgumentProblem | null {
  for (const [index, arg] of args.entries()) {
    const name = optionName(arg);
    const why = REFUSED.get(name ?? '') ?? valueProblem(optionName(args[index - 1] ?? ''), arg, device);
    if (why !== null && why !== undefined) return { index, text: `${arg}: ${why}` };
  }
  return null;
}

/** The same for vm.command: only what comes after QEMU's own name is QEMU's. */
export function commandProblem(command: readonly string[], device: string): ArgumentProblem | null {
  const begin = argumentsIn(command);
  const found = argumentProblem(command.slice(begin), device);
  return found === null ? null : { ...found, index: begin + found.index };
}

/** Returns why vm.nic.options may not be given, or null. */
export function nicOptionsProblem(options: string): string | null {
  if (options === '') return null;
  for (const property of splitOptions(options)) {
    const problem = nicPropertyProblem(property);
    if (problem !== null) return `${property}: ${problem}`;
  }
  return null;
}

/** Returns what is wrong with the value of an option; `name` is the option's. */
function valueProblem(name: string | undefined, value: string, device: string): string | null {
  if (/(^|,)(id|netdev)=colo0(,|$)/.test(value) || /"(id|netdev)"\s*:\s*"colo0"/.test(value))
    return 'the name colo0 belongs to the node. Choose another one';
  const disk = ownDiskName(value);
  if (disk !== null) return `the name ${disk} belongs to the node, for vm.disks. Choose another one`;
  switch (name) {
    case 'set':
      return /\.colo0\./.test(value) ? 'the name colo0 belongs to the node. Remove it' : null;
    case 'run-with':
      return splitOptions(value).some((one) => isOff(one, 'exit-with-parent'))
        ? 'QEMU must end with its node. Remove it'
        : null;
    case 'global':
      return globalProblem(value, device);
    default:
      return null;
  }
}

function globalProblem(value: string, device: string): string | null {
  const { driver, property } = parseGlobal(value);
  if (driver === 'migration') return 'the node sets up the migration. Remove it';
  if (driver !== device && !(isVirtioNet(driver) && isVirtioNet(device))) return null;
  return nicPropertyProblem(property);
}

/** `driver.property=value`, or `driver=D,property=P,value=V`. */
function parseGlobal(value: string): { driver: string; property: string } {
  const [, driver, property] = /^([\w-]+)\.(.*)$/s.exec(value) ?? [];
  if (driver !== undefined) return { driver, property };
  const parts = new Map(splitOptions(value).map((part) => pairOf(part)));
  return { driver: parts.get('driver') ?? '', property: `${parts.get('property')}=${parts.get('value')}` };
}

function nicPropertyProblem(property: string): string | null {
  const [name, value] = pairOf(property);
  const known = NIC_PROPERTIES.get(name);
  if (known === undefined || (known.may === 'off' && OFF.has(value))) return null;
  return known.why;
}

function isOff(option: string, name: string): boolean {
  const [key, value] = pairOf(option);
  return key === name && OFF.has(value);
}

export function isVirtioNet(device: string): boolean {
  return device.startsWith('virtio-net');
}
