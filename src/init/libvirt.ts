/**
 * Reads a libvirt domain (the output of `virsh dumpxml`) into a machine.
 *
 * Goal: the guest gets the same processor, memory, machine type, buses and slots; it loses only what findings say. Every element is
 * translated, left out with a reason, or refused: an element that is not known here is refused too, since it may be what makes the VM
 * impossible to protect. The devices are in libvirt-devices.ts and libvirt-nic.ts, the processor in libvirt-cpu.ts.
 *
 * Limits: x86-64, machine types pc and q35. Failure: COLO_INIT_XML for what is no domain; findings for all the rest.
 */
import { ColoError } from '../error.ts';
import { cpuArguments } from './libvirt-cpu.ts';
import { deviceArguments } from './libvirt-devices.ts';
import type { Reading } from './libvirt-reading.ts';
import {
  addFile,
  type Described,
  type Given,
  IMAGE_FORMATS,
  isMachineType,
  type Machine,
} from './machine.ts';
import { Findings } from './reasons.ts';
import { attributeOf, childOf, type Element, parseXml, textOf } from './xml-tree.ts';

/** Elements of a domain that say nothing about the guest's machine, or that are read elsewhere. */
const READ_ELSEWHERE = new Set([
  ...[
    'name',
    'uuid',
    'title',
    'description',
    'metadata',
    'memory',
    'currentMemory',
    'vcpu',
    'os',
    'cpu',
    'clock',
    'features',
  ],
  ...[
    'devices',
    'on_poweroff',
    'on_reboot',
    'on_crash',
    'on_lockfailure',
    'memoryBacking',
    'launchSecurity',
    'pm',
    'maxMemory',
  ],
]);
const OF_THE_HOST = new Set([
  ...[
    'iothreads',
    'iothreadids',
    'defaultiothread',
    'cputune',
    'memtune',
    'numatune',
    'blkiotune',
    'resource',
    'seclabel',
  ],
  ...['idmap', 'perf', 'throttlegroups'],
]);
const IDENTITIES = new Set(['sysinfo', 'genid']);

const BYTES: ReadonlyMap<string, number> = new Map(
  Object.entries({
    ...{ b: 1, bytes: 1, KB: 1e3, k: 1024, KiB: 1024, MB: 1e6, M: 1024 ** 2, MiB: 1024 ** 2 },
    ...{ GB: 1e9, G: 1024 ** 3, GiB: 1024 ** 3, TB: 1e12, T: 1024 ** 4, TiB: 1024 ** 4 },
  }),
);
const MIB = 1024 ** 2;

/** `fileName` is for messages. Throws COLO_INIT_XML. */
export function machineOfDomain(text: string, fileName: string, given: Given): Described {
  const domain = parseXml(text, fileName);
  if (domain.name !== 'domain') throw notADomain(domain, fileName);
  const findings = new Findings();
  const files = new Set<string>();
  const type = attributeOf(childOf(childOf(domain, 'os'), 'type'), 'machine');
  const family = type === 'q35' || type.startsWith('pc-q35-') ? 'q35' : 'pc';
  const reading: Reading = { domain, findings, files, family, given };
  checkElements(reading);
  const memoryMb = memoryOf(reading, fileName);
  const args = [
    ...machineArguments(reading, type),
    ...cpuArguments(reading, fileName),
    ...['-m', String(memoryMb)],
    ...uuidArguments(domain),
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...clockArguments(reading),
    ...powerArguments(reading),
    ...bootArguments(reading),
  ];
  const devices = deviceArguments(reading);
  const machine: Machine = {
    name: textOf(domain, 'name') || null,
    command: devices.command,
    args: [...args, ...devices.args],
    mac: devices.mac,
    nic: devices.nic,
    onPoweroff: onPoweroff(reading),
    memoryMb,
    files: [...files],
  };
  return { machine, findings };
}

function notADomain(root: Element, fileName: string): ColoError {
  const domains = root.children.filter(({ name }) => name === 'domain').length;
  const found =
    domains > 0 ? `it holds ${domains} domains in <${root.name}>` : `it is a <${root.name}>, not a <domain>`;
  return new ColoError(
    'COLO_INIT_XML',
    `${fileName}: ${found}; give the output of "virsh dumpxml DOMAIN" for one domain`,
  );
}

function checkElements({ domain, findings }: Reading): void {
  for (const { name } of domain.children) {
    if (OF_THE_HOST.has(name)) findings.change('host', `<${name}>`);
    else if (IDENTITIES.has(name)) findings.change('identity', `<${name}>`);
    else if (name === 'maxMemory') findings.change('memory', `<${name}>`);
    else if (!READ_ELSEWHERE.has(name)) findings.refuse('unknown', `<${name}>`);
  }
  const type = attributeOf(domain, 'type');
  if (type !== 'kvm' && type !== 'qemu') findings.refuse('hypervisor', `a domain of the type "${type}"`);
  const security = childOf(domain, 'launchSecurity');
  if (security !== null)
    findings.refuse('memory-encrypted', `<launchSecurity type="${attributeOf(security, 'type')}">`);
  checkBacking(childOf(domain, 'memoryBacking'), findings);
}

function checkBacking(backing: Element | null, findings: Findings): void {
  for (const child of backing?.children ?? []) {
    const { name } = child;
    const isFile = name === 'source' && attributeOf(child, 'type') !== 'anonymous';
    const isShared = name === 'access' && attributeOf(child, 'mode') === 'shared';
    if (name === 'hugepages' || isFile || isShared)
      findings.refuse('memory-backing', `<memoryBacking> with <${name}>`);
    else findings.change('host', `<${name}> of <memoryBacking>`);
  }
}

/** Returns the memory in MiB. */
function memoryOf({ domain, findings }: Reading, fileName: string): number {
  const mib = (name: string): number => {
    const element = childOf(domain, name);
    const bytes = Number(element?.text) * (BYTES.get(attributeOf(element, 'unit') || 'KiB') ?? Number.NaN);
    return Math.floor(bytes / MIB);
  };
  const memory = mib('memory');
  if (!(memory >= 1 && memory <= 2 ** 30))
    throw new ColoError(
      'COLO_INIT_XML',
      `${fileName}: its <memory> is missing or no size; give the output of "virsh dumpxml DOMAIN"`,
    );
  if (childOf(domain, 'currentMemory') !== null && mib('currentMemory') !== memory)
    findings.change('memory', `<currentMemory> below <memory>, which is ${memory} MiB`);
  return memory;
}

function machineArguments({ domain, findings }: Reading, type: string): string[] {
  const os = childOf(domain, 'os');
  const arch = attributeOf(childOf(os, 'type'), 'arch');
  if (arch !== '' && arch !== 'x86_64') findings.refuse('architecture', `the architecture ${arch}`);
  if (!isMachineType(type))
    findings.refuse('machine', type === '' ? 'no machine type' : `the machine type ${type}`);
  const parts = [type];
  const features = childOf(domain, 'features');
  const on = (name: string): string =>
    attributeOf(childOf(features, name), 'state') === 'off' ? 'off' : 'on';
  for (const name of ['smm', 'vmport'])
    if (childOf(features, name) !== null) parts.push(`${name}=${on(name)}`);
  if (attributeOf(childOf(features, 'ioapic'), 'driver') === 'qemu') parts.push('kernel_irqchip=split');
  if (childOf(features, 'acpi') === null) parts.push('acpi=off');
  const hpet = childOf(domain, 'clock')?.children.find((timer) => attributeOf(timer, 'name') === 'hpet');
  if (attributeOf(hpet ?? null, 'present') === 'no') parts.push('hpet=off');
  return ['-machine', parts.join(','), '-accel', attributeOf(domain, 'type') === 'qemu' ? 'tcg' : 'kvm'];
}

function uuidArguments(domain: Element): string[] {
  const uuid = textOf(domain, 'uuid');
  return /^[0-9a-f-]{32,36}$/i.test(uuid) ? ['-uuid', uuid] : [];
}

const RTC_TIMERS = new Set(['hpet', 'kvmclock', 'hypervclock', 'tsc', 'platform']);

function clockArguments({ domain, findings }: Reading): string[] {
  const clock = childOf(domain, 'clock');
  const offset = attributeOf(clock, 'offset');
  const basis = offset === 'variable' ? attributeOf(clock, 'basis') : offset;
  if (!['', 'utc', 'localtime'].includes(basis)) findings.refuse('unknown', `<clock offset="${offset}">`);
  findings.change('clock', 'the real-time clock, now -rtc clock=vm');
  let rtc = `base=${basis === 'localtime' ? 'localtime' : 'utc'},clock=vm`;
  const more: string[] = [];
  for (const timer of clock?.children ?? []) {
    const [name, policy] = [attributeOf(timer, 'name'), attributeOf(timer, 'tickpolicy')];
    if (name === 'rtc') rtc += policy === 'catchup' ? ',driftfix=slew' : '';
    else if (name === 'pit')
      more.push(
        // To catch up is what it does anyway, and has no name there.
        ...(policy === 'delay' || policy === 'discard'
          ? ['-global', `kvm-pit.lost_tick_policy=${policy}`]
          : []),
      );
    else if (!RTC_TIMERS.has(name)) findings.refuse('unknown', `<timer name="${name}">`);
  }
  return ['-rtc', rtc, ...(attributeOf(domain, 'type') === 'qemu' ? [] : more)];
}

/** Suspend to memory and to disk, which firmware offers unless it is told not to. */
function powerArguments({ domain, family }: Reading): string[] {
  const device = family === 'q35' ? 'ICH9-LPC' : 'PIIX4_PM';
  return (childOf(domain, 'pm')?.children ?? []).flatMap((child) => {
    const state = child.name === 'suspend-to-mem' ? 'disable_s3' : 'disable_s4';
    const enabled = attributeOf(child, 'enabled');
    return enabled === '' ? [] : ['-global', `${device}.${state}=${enabled === 'no' ? 1 : 0}`];
  });
}

const OS_ELSEWHERE = new Set(['type', 'firmware', 'bios', 'nvram']);
const BOOT_LETTERS: ReadonlyMap<string, string> = new Map([
  ['hd', 'c'],
  ['cdrom', 'd'],
  ['network', 'n'],
  ['fd', 'a'],
]);

function bootArguments(reading: Reading): string[] {
  const { domain, findings, files } = reading;
  const os = childOf(domain, 'os');
  const args: string[] = [];
  let order = '';
  for (const child of os?.children ?? []) {
    const { name, text } = child;
    if (name === 'kernel' || name === 'initrd') {
      addFile(files, text, name, findings);
      args.push(`-${name}`, text);
    } else if (name === 'cmdline') args.push('-append', text);
    else if (name === 'boot') order += BOOT_LETTERS.get(attributeOf(child, 'dev')) ?? '';
    else if (name === 'loader') args.push(...loaderArguments(reading, child));
    else if (name === 'bootmenu') findings.change('display', '<bootmenu>');
    else if (name === 'smbios') findings.change('identity', '<smbios>');
    else if (!OS_ELSEWHERE.has(name)) findings.refuse('unknown', `<${name}> of <os>`);
  }
  if (attributeOf(os, 'firmware') === 'efi' && childOf(os, 'loader')?.text === undefined)
    findings.refuse('firmware-unknown', '<os firmware="efi"> without <loader>');
  if (order.includes('n')) findings.change('nic-boot', '<boot dev="network">');
  order = order.replaceAll('n', '');
  return [...args, ...(order === '' ? [] : ['-boot', `order=${order},strict=on`])];
}

function loaderArguments({ domain, findings, files }: Reading, loader: Element): string[] {
  const path = loader.text;
  if (childOf(childOf(domain, 'os'), 'nvram') !== null) {
    findings.refuse('firmware-written', `<nvram> ${textOf(childOf(domain, 'os'), 'nvram')}`.trim());
    return [];
  }
  if (path === '') {
    findings.refuse('firmware-unknown', '<loader> without a path');
    return [];
  }
  addFile(files, path, 'loader', findings);
  const format = attributeOf(loader, 'format') || 'raw';
  if (!IMAGE_FORMATS.includes(format)) findings.refuse('unknown', `<loader format="${format}"> ${path}`);
  if (attributeOf(loader, 'type') !== 'pflash') return ['-bios', path];
  if (attributeOf(loader, 'readonly') === 'no')
    findings.refuse('firmware-written', `<loader readonly="no"> ${path}`);
  return ['-drive', `if=pflash,unit=0,format=${format},readonly=on,file=${path.replaceAll(',', ',,')}`];
}

function onPoweroff({ domain, findings }: Reading): 'stop' | 'restart' {
  const reboot = textOf(domain, 'on_reboot');
  if (reboot !== '' && reboot !== 'restart') findings.refuse('reboot', `<on_reboot>${reboot}`);
  const poweroff = textOf(domain, 'on_poweroff');
  if (!['', 'destroy', 'restart'].includes(poweroff)) findings.refuse('unknown', `<on_poweroff>${poweroff}`);
  return poweroff === 'restart' ? 'restart' : 'stop';
}
