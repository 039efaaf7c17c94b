/** The value of one of QEMU's options: a list of properties, or the same in JSON. */
import { escapeValue } from '../qemu/command-line.ts';
import { pairOf, splitOptions } from '../qemu/option-syntax.ts';

/** Properties by their names, with nested ones of JSON as in `file.filename`; booleans are on and off. */
export type Properties = ReadonlyMap<string, string>;

export type OptionValue = {
  readonly text: string;
  readonly properties: Properties;
  /** a text that is JSON in form and not in content */
  readonly garbled: boolean;
};

/** `implied` is the property that a first part without a name gives, as in -device virtio-net-pci. */
export function parseValue(text: string, implied: string): OptionValue {
  if (isJson(text)) return fromJson(text);
  const properties = new Map<string, string>();
  for (const [place, part] of splitOptions(text).entries()) {
    const [name, value] = place === 0 && !part.includes('=') ? [implied, part] : pairOf(part);
    if (name !== '') properties.set(name, value);
  }
  return { text, properties, garbled: false };
}

export function isJson(text: string): boolean {
  return text.trimStart().startsWith('{');
}

function fromJson(text: string): OptionValue {
  const properties = new Map<string, string>();
  try {
    flatten(JSON.parse(text), '', properties);
    return { text, properties, garbled: false };
  } catch {
    return { text, properties, garbled: true };
  }
}

function flatten(value: unknown, path: string, into: Map<string, string>): void {
  if (typeof value === 'object' && value !== null) {
    for (const [name, inner] of Object.entries(value))
      flatten(inner, path === '' ? name : `${path}.${name}`, into);
  } else if (typeof value === 'boolean') into.set(path, value ? 'on' : 'off');
  else into.set(path, String(value));
}

/** Returns a property, or '' if there is none. */
export function propertyOf({ properties }: Pick<OptionValue, 'properties'>, name: string): string {
  return properties.get(name) ?? '';
}

export function isOn(text: string): boolean {
  return ['on', 'yes', 'true', 'y'].includes(text);
}

/** Returns the properties as QEMU's option text. */
export function formatProperties(properties: Iterable<readonly [string, string]>): string[] {
  return [...properties].map(([name, value]) => `${name}=${escapeValue(value)}`);
}
