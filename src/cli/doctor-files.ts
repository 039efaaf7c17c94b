/** The check of `colo doctor` for the files of the VM: QEMU opens them as the node's user, and so does the doctor. */
import { accessSync, constants } from 'node:fs';
import { isAbsolute } from 'node:path';
import { parseValue, propertyOf } from '../init/option-value.ts';
import { optionName } from '../qemu/option-syntax.ts';
import { type Check, good, problem } from './check.ts';

/** Options of QEMU whose value is a path, and properties of others that are. */
const PATHS = ['kernel', 'initrd', 'dtb', 'bios', 'pflash', 'cdrom', 'hda', 'hdb', 'hdc', 'hdd'];
const PROPERTIES: Readonly<Record<string, readonly string[]>> = {
  drive: ['file'],
  blockdev: ['filename', 'file.filename'],
};

/** Returns one check, or none if `args` name no file. A path that is not absolute depends on where the node is started. */
export function checkVmFiles(args: readonly string[]): Check[] {
  const files = args.flatMap((arg, i) => filesOf(optionName(arg), args[i + 1])).filter(isAbsolute);
  if (files.length === 0) return [];
  const name = 'VM files';
  for (const file of files) {
    try {
      accessSync(file, constants.R_OK);
    } catch (error) {
      const isThere = (error as NodeJS.ErrnoException).code === 'EACCES';
      return [
        isThere
          ? problem(
              name,
              `${file} cannot be read by this user`,
              'let the user of the node read it, and enter its folders',
            )
          : problem(name, `${file} is not there`, 'copy it to this host, the same as on the other'),
      ];
    }
  }
  return [good(name, files.join(', '))];
}

function filesOf(option: string | undefined, value: string | undefined): string[] {
  if (option === undefined || value === undefined) return [];
  if (PATHS.includes(option)) return [value];
  const parsed = parseValue(value, '');
  return (PROPERTIES[option] ?? []).map((name) => propertyOf(parsed, name));
}
