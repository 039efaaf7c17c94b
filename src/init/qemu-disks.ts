/** The disks of a QEMU command line: those that the guest cannot write to. */
import { addFile, IMAGE_FORMATS } from './machine.ts';
import { isOn, type OptionValue, parseValue, propertyOf } from './option-value.ts';
import type { CommandReading, Option } from './qemu-reading.ts';

/** Names of protocols, as in nbd:HOST:PORT; one letter would be none. */
const PROTOCOL = /^[A-Za-z][A-Za-z0-9+.-]+:/;
const LOCAL = new Set(['file', 'host_device', 'host_cdrom', ...IMAGE_FORMATS]);

export function driveOption(reading: CommandReading, value: string, { words }: Option): void {
  const { findings, files } = reading;
  const parsed = parseValue(value, 'file');
  const path = propertyOf(parsed, 'file') || propertyOf(parsed, 'file.filename');
  const what = words.join(' ');
  const isFlash = propertyOf(parsed, 'if') === 'pflash';
  if (isOn(propertyOf(parsed, 'snapshot'))) findings.refuse('disk-temporary', what);
  else if (!isReadOnly(parsed)) findings.refuse(isFlash ? 'firmware-written' : 'disk-written', what);
  else if (PROTOCOL.test(path) || !driversOf(parsed).every((driver) => LOCAL.has(driver)))
    findings.refuse('disk-network', what);
  else {
    for (const one of new Set([path, ...pathsOf(parsed)]))
      if (one !== '') addFile(files, one, '-drive', findings);
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
 * (`file`, `backing`) do as that one does, unless the guest has them as well.
 */
export function blockdevArguments(reading: CommandReading): string[] {
  const { findings, files, firmware, blockdevs } = reading;
  const below = new Set(
    blockdevs.flatMap((one) => ['file', 'backing', 'data-file'].map((name) => propertyOf(one, name))),
  );
  const ofGuest = new Set([
    ...firmware,
    ...reading.devices.flatMap((words) => /(?:^|,)drive=([^,]+)/.exec(words)?.[1] ?? []),
  ]);
  const args: string[] = [];
  for (const one of blockdevs) {
    const node = propertyOf(one, 'node-name');
    const what = one.option.words.join(' ');
    if (one.garbled) findings.refuse('unknown', what);
    else if (driversOf(one).some((driver) => !LOCAL.has(driver))) findings.refuse('disk-network', what);
    else if ((!below.has(node) || ofGuest.has(node)) && !isReadOnly(one))
      findings.refuse(firmware.has(node) ? 'firmware-written' : 'disk-written', what);
    else {
      for (const path of pathsOf(one)) addFile(files, path, '-blockdev', findings);
      args.push(...one.option.words);
    }
  }
  return args;
}

/** A format is a driver under its old name. */
function driversOf({ properties }: OptionValue): string[] {
  return [...properties].filter(([name]) => /(^|\.)driver$|^format$/.test(name)).map(([, value]) => value);
}

function pathsOf({ properties }: OptionValue): string[] {
  return [...properties].filter(([name]) => /(^|\.)filename$/.test(name)).map(([, value]) => value);
}
