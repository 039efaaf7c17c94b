/**
 * Reads a QEMU command line into a machine.
 *
 * Goal: what makes the guest's machine is kept word by word; what starts, shows and connects QEMU is left out, since the node does that;
 * what cannot be protected is refused. An option that is not known here is refused too: it may be what makes the VM impossible to
 * protect. One table names what becomes of each option; those that need a closer look have a function. Devices, disks and the NIC are
 * in qemu-devices.ts, qemu-disks.ts and qemu-nic.ts.
 *
 * Limits: QEMU's own checks are left to QEMU (`colo doctor`). Failure: COLO_INIT_COMMAND for what is no command line of QEMU; findings
 * for all the rest.
 */
import { basename } from 'node:path';
import { ColoError } from '../error.ts';
import { optionName } from '../qemu/option-syntax.ts';
import { userProblems } from '../qemu/user-arguments.ts';
import {
  addFile,
  cpuValue,
  type Described,
  type Given,
  isHostCpu,
  isMachineType,
  type Machine,
} from './machine.ts';
import { type OptionValue, parseValue, propertyOf } from './option-value.ts';
import { deviceOption, objectOption } from './qemu-devices.ts';
import { blockdevArguments, driveOption } from './qemu-disks.ts';
import { nicOf } from './qemu-nic.ts';
import { CommandReading, type Option } from './qemu-reading.ts';
import type { ChangeKind, RefusalKind } from './reasons.ts';
import { shellWords } from './shell-words.ts';

type Handler = (reading: CommandReading, value: string, option: Option) => void;
/** `words`: 1 for a flag, 2 for an option with a value. */
type Rule = { readonly words: 1 | 2; readonly handle: Handler };

const keep: Handler = (reading, _value, { words }) => reading.args.push(...words);
const leave =
  (kind: ChangeKind): Handler =>
  ({ findings }, _value, { words }) =>
    findings.change(kind, words.join(' '));
const refuse =
  (kind: RefusalKind): Handler =>
  ({ findings }, _value, { words }) =>
    findings.refuse(kind, words.join(' '));
const file: Handler = (reading, value, { name, words }) => {
  addFile(reading.files, value, `-${name}`, reading.findings);
  reading.args.push(...words);
};

const flags = (names: string, handle: Handler): [string, Rule][] =>
  names.split(' ').map((name) => [name, { words: 1, handle }]);
const values = (names: string, handle: Handler): [string, Rule][] =>
  names.split(' ').map((name) => [name, { words: 2, handle }]);

const RULES: ReadonlyMap<string, Rule> = new Map([
  ...flags('enable-kvm', (reading, _value, { words }) => {
    reading.hasAccelerator = true;
    reading.args.push(...words);
  }),
  ...flags('no-hpet no-acpi no-fd-bootchk mem-prealloc', keep),
  ...values('uuid smbios boot k msg sandbox overcommit global numa', keep),
  ...values('kernel initrd bios', file),
  ...values('append', keep),
  // The node's own, written at the end.
  ...flags('nodefaults no-user-config', () => {}),
  ...values('display vga vnc spice', (reading, value, option) => {
    if (value !== 'none') leave('display')(reading, value, option);
  }),
  ...flags('curses full-screen', leave('display')),
  ...flags('nographic', (reading) => reading.addSerial('-nographic')),
  ...values('serial', (reading, value) => reading.addSerial(`-serial ${value}`)),
  ...values('parallel chardev mon monitor debugcon', leave('console')),
  ...flags('usb', leave('usb')),
  ...values('usbdevice', leave('usb')),
  ...values('audio audiodev', leave('sound')),
  ...values('watchdog watchdog-action', leave('watchdog')),
  ...values('name', (reading, value) => reading.setName(parseValue(value, 'guest'))),
  ...values('qmp qmp-pretty incoming pidfile D d runas chroot run-with add-fd', leave('start')),
  ...flags('S daemonize no-shutdown preconfig', leave('start')),
  ...values('netdev', (reading, value, option) =>
    reading.netdevs.push({ ...parseValue(value, 'type'), option }),
  ),
  ...values('nic net', (reading, value, option) =>
    reading.oldNics.push({ ...parseValue(value, 'type'), option }),
  ),
  ...values('device', deviceOption),
  ...values('object', objectOption),
  ...values('drive', driveOption),
  ...values('blockdev', (reading, value, option) =>
    reading.blockdevs.push({ ...parseValue(value, 'driver'), option }),
  ),
  ...values('cdrom', file),
  ...values('hda hdb hdc hdd fda fdb sd mtdblock', refuse('disk-written')),
  ...values('pflash', refuse('firmware-written')),
  ...flags('snapshot', refuse('disk-temporary')),
  ...values('fsdev virtfs', refuse('filesystem')),
  ...values('tpmdev', refuse('tpm')),
  ...values('mem-path', refuse('memory-backing')),
  ...flags('no-reboot', refuse('reboot')),
  ...values('machine M', machineOption),
  ...values('accel', (reading, value, { words }) => {
    reading.hasAccelerator = true;
    checkAccelerator(reading, propertyOf(parseValue(value, 'accel'), 'accel'));
    reading.args.push(...words);
  }),
  ...values('cpu', cpuOption),
  ...values('m', memoryOption),
  ...values('smp', keep),
  ...values('rtc', rtcOption),
]);

/** `fileName` is for messages. Throws COLO_INIT_COMMAND. */
export function machineOfCommand(text: string, fileName: string, given: Given): Described {
  const { program, before, words } = programOf(shellWords(text, fileName), fileName);
  const reading = new CommandReading(given);
  if (before.length > 0) reading.findings.change('start', before.join(' '));
  if (!/^(qemu-system-x86_64|qemu-kvm|kvm|qemu)$/.test(basename(program)))
    reading.findings.refuse('architecture', `the program ${program}`);
  readOptions(reading, words);
  const { mac, nic } = nicOf(reading);
  const machine: Machine = {
    name: reading.name,
    command: ['qemu-system-x86_64', '/usr/bin/qemu-system-x86_64', '/usr/bin/kvm', 'kvm'].includes(program)
      ? null
      : [program],
    args: [...completed(reading, program), ...blockdevArguments(reading), ...reading.devices],
    mac,
    nic,
    onPoweroff: 'stop',
    memoryMb: reading.memoryMb,
    files: [...reading.files],
  };
  // The last word has the check that the node itself makes.
  for (const { text: why } of userProblems({
    command: machine.command ?? [],
    args: machine.args,
    nic: machine.nic,
  }))
    reading.findings.refuse('unknown', why);
  return { machine, findings: reading.findings };
}

/** The program, what stands before it, and its arguments. */
function programOf(
  words: readonly string[],
  fileName: string,
): { program: string; before: string[]; words: string[] } {
  const at = words.findIndex((word) => !/^([A-Za-z_]\w*=.*|sudo|exec|env)$/s.test(word));
  const program = words[at];
  if (program === undefined || !/^(qemu[^/]*|kvm)$/.test(basename(program)))
    throw new ColoError(
      'COLO_INIT_COMMAND',
      `${fileName}: ${program === undefined ? 'it has no program' : `${JSON.stringify(program.slice(0, 80))} is no QEMU`}; give a command line that begins with qemu-system-x86_64`,
    );
  return { program, before: words.slice(0, at), words: words.slice(at + 1) };
}

function readOptions(reading: CommandReading, words: readonly string[]): void {
  for (let at = 0; at < words.length; ) {
    const name = optionName(words[at]);
    const rule = name === undefined ? undefined : RULES.get(name);
    if (name === undefined) {
      // QEMU takes a word without a dash for a disk that the guest writes to.
      reading.findings.refuse(words[at].startsWith('-') ? 'unknown' : 'disk-written', words[at]);
      at += 1;
    } else if (rule === undefined) {
      const value = words[at + 1];
      const hasValue = value !== undefined && optionName(value) === undefined;
      reading.findings.refuse('unknown', hasValue ? `${words[at]} ${value}` : words[at]);
      at += hasValue ? 2 : 1;
    } else {
      const value = words[at + 1];
      if (rule.words === 2 && value === undefined)
        reading.findings.refuse('unknown', `${words[at]} without its value`);
      else
        rule.handle(reading, rule.words === 2 ? value : '', {
          name,
          words: words.slice(at, at + rule.words),
        });
      at += rule.words;
    }
  }
}

/** The machine's arguments, with what the node advises and QEMU's defaults written out. */
function completed(reading: CommandReading, program: string): string[] {
  const { args, findings, given } = reading;
  if (reading.machineType === null) args.push('-machine', 'pc');
  // Called by this name, QEMU uses KVM.
  if (!reading.hasAccelerator)
    args.push('-accel', /^(kvm|qemu-kvm)$/.test(basename(program)) ? 'kvm' : 'tcg');
  if (!reading.hasCpu) args.push('-cpu', cpuValue(given.cpu ?? 'qemu64', [], findings));
  if (reading.memoryMb === 0) {
    reading.memoryMb = MEMORY_MB;
    args.push('-m', String(MEMORY_MB));
  }
  if (!reading.hasRtc) {
    findings.change('clock', 'the real-time clock, now -rtc clock=vm');
    args.push('-rtc', 'base=utc,clock=vm');
  }
  return [...args, '-nodefaults', '-no-user-config', '-display', 'none'];
}

/** QEMU's default on a PC. */
const MEMORY_MB = 128;

function machineOption(reading: CommandReading, value: string, { words }: Option): void {
  const parsed = parseValue(value, 'type');
  const { findings } = reading;
  const type = propertyOf(parsed, 'type');
  if (type !== '') reading.machineType = type;
  if (type !== '' && !isMachineType(type)) findings.refuse('machine', words.join(' '));
  for (const name of ['confidential-guest-support', 'memory-encryption'])
    if (parsed.properties.has(name))
      findings.refuse('memory-encrypted', `${words[0]} ${name}=${propertyOf(parsed, name)}`);
  const accelerator = propertyOf(parsed, 'accel');
  if (accelerator !== '') {
    reading.hasAccelerator = true;
    checkAccelerator(reading, accelerator);
  }
  for (const name of ['pflash0', 'pflash1']) {
    const node = propertyOf(parsed, name);
    if (node !== '') reading.firmware.add(node);
  }
  reading.args.push(...words);
}

function checkAccelerator({ findings }: CommandReading, text: string): void {
  for (const one of text.split(':'))
    if (one !== 'kvm' && one !== 'tcg') findings.refuse('hypervisor', `the accelerator ${one}`);
}

function cpuOption(reading: CommandReading, value: string, { words }: Option): void {
  const { findings, given } = reading;
  const [named, ...properties] = value.split(',');
  reading.hasCpu = true;
  if (isHostCpu(named) && given.cpu === null) findings.refuse('cpu-host', words.join(' '));
  for (const property of properties)
    if (/^(\+rd(rand|seed)|rd(rand|seed)=on)$/.test(property))
      findings.change('random', `the CPU property ${property}`);
  reading.args.push('-cpu', cpuValue(given.cpu ?? named, properties, findings));
}

const UNITS: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['K', 1 / 1024],
  ['M', 1],
  ['G', 1024],
  ['T', 1024 ** 2],
]);

function memoryOption(reading: CommandReading, value: string, { words }: Option): void {
  const parsed = parseValue(value, 'size');
  const [, count, unit] = /^(\d{1,12})([KMGT]?)$/i.exec(propertyOf(parsed, 'size')) ?? [];
  const memoryMb = Math.floor(Number(count) * (UNITS.get((unit ?? '').toUpperCase()) ?? Number.NaN));
  if (parsed.properties.has('maxmem') || parsed.properties.has('slots'))
    reading.findings.refuse('hotplug', words.join(' '));
  else if (!(memoryMb >= 1)) reading.findings.refuse('unknown', words.join(' '));
  else reading.memoryMb = memoryMb;
  reading.args.push(...words);
}

function rtcOption(reading: CommandReading, value: string): void {
  const parsed: OptionValue = parseValue(value, 'base');
  const rest = [...parsed.properties]
    .filter(([name]) => name !== 'clock')
    .map(([name, text]) => `${name}=${text}`);
  if (propertyOf(parsed, 'clock') !== 'vm')
    reading.findings.change('clock', `-rtc ${value}, now with clock=vm`);
  reading.hasRtc = true;
  reading.args.push('-rtc', [...rest, 'clock=vm'].join(','));
}
