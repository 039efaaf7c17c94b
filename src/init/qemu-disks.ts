/** The disks of a QEMU command line: those that the guest cannot write to. */
import { addFile } from './machine.ts';
import { isOn, type OptionValue, parseValue, propertyOf } from './option-value.ts';
import type { CommandReading, Option, Pending } from './qemu-reading.ts';

/** Names of protocols, as in nbd:HOST:PORT; one letter would be none. */
const PROTOCOL = /^[A-Za-z][A-Za-z0-9+.-]+:/;
const LOCAL = new Set(['file', 'host_device', 'host_cdrom', 'raw', 'qcow2', 'vmdk', 'vdi', 'vpc', 'qed', '']);

export function driveOption(reading: CommandReading, value: string, { words }: Option): void {
  const { findings, files } = reading;
  const parsed = parseValue(value, 'file');
  const path = propertyOf(parsed, 'file') || propertyOf(parsed, 'file.filename');
  const what = words.join(' ');
  const isFlash = propertyOf(parsed, 'if') === 'pflash';
  if (isOn(propertyOf(parsed, 'snapshot'))) findings.refuse('disk-temporary', what);
  else if (!isReadOnly(parsed)) findings.refuse(isFlash ? 'firmware-written' : 'disk-written', what);
  else if (PROTOCOL.test(path) || !LOCAL.has(propertyOf(parsed, 'file.driver')))
    findings.refuse('disk-network', what);
  else {
    if (path !== '') addFile(files, path, '-drive', findings);
    reading.devices.push(...words);
  }
}

function isReadOnly(value: OptionValue): boolean {
  return (
    propertyOf(value, 'media') === 'cdrom' ||
    ['readonly', 'read-only'].some((name) => isOn(propertyOf(value, name)))
  );
}

/**
 * Returns the block devices, judged when all of them are known: the guest writes by the topmost of a chain, and the ones below it
 * (`file`, `backing`) do as that one does.
 */
export function blockdevArguments(reading: CommandReading): string[] {
  const { findings, files, firmware, blockdevs } = reading;
  const below = new Set(
    blockdevs.flatMap((one) => ['file', 'backing', 'data-file'].map((name) => propertyOf(one, name))),
  );
  const args: string[] = [];
  for (const one of blockdevs) {
    const node = propertyOf(one, 'node-name');
    const what = one.option.words.join(' ');
    if (one.garbled) findings.refuse('unknown', what);
    else if (driversOf(one).some((driver) => !LOCAL.has(driver))) findings.refuse('disk-network', what);
    else if (!below.has(node) && !isReadOnly(one))
      findings.refuse(firmware.has(node) ? 'firmware-written' : 'disk-written', what);
    else {
      for (const path of pathsOf(one)) addFile(files, path, '-blockdev', findings);
      args.push(...one.option.words);
    }
  }
  return args;
}

function driversOf({ properties }: Pending): string[] {
  return [...properties].filter(([name]) => /(^|\.)driver$/.test(name)).map(([, value]) => value);
}

function pathsOf({ properties }: Pending): string[] {
  return [...properties].filter(([name]) => /(^|\.)filename$/.test(name)).map(([, value]) => value);
}
