/** The syntax of QEMU's options: `name=value` between single commas. */

/** A name alone switches the property on. QEMU treats `_` and `-` in some names alike; properties here have one spelling. */
export function pairOf(option: string): [name: string, value: string] {
  const at = option.indexOf('=');
  return at < 0 ? [option.trim(), 'on'] : [option.slice(0, at).trim(), option.slice(at + 1).trim()];
}

/** Cuts at single commas: two commas are one comma in a value. */
export function splitOptions(options: string): string[] {
  return options
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));
}

/** Returns an option's name. QEMU accepts both `-name` and `--name`. */
export function optionName(arg: string): string | undefined {
  return /^--?([A-Za-z][\w-]*)$/.exec(arg)?.[1];
}

/** Returns where the arguments of QEMU begin in `vm.command`: after QEMU's own name. Its length if that is not there. */
export function argumentsIn(command: readonly string[]): number {
  const program = command.findLastIndex((part) => /(^|\/)qemu[^/]*$/.test(part));
  return program < 0 ? command.length : program + 1;
}
