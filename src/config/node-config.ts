/**
 * Reads a node's YAML file. Every problem with it is one line: FILE:LINE:COLUMN, what is wrong, and what to do.
 *
 * The YAML document is used beside its plain value, so that a problem of the value can be located in the file.
 */
import { readFileSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, type YAMLError } from 'yaml';
import { z } from 'zod';
import type { Disk } from '../disk/disk.ts';
import { type Endpoint, UNIX_PATH_BYTES_MAX, unixPathProblem } from '../endpoint.ts';
import { ColoError, invariant, messageOf } from '../error.ts';
import { secondUserOf } from '../qemu/disk-arguments.ts';
import { withArbiterPaths } from './arbiter.ts';
import { withDiskPaths } from './disks.ts';
import { nearestName } from './nearest.ts';
import { nodeConfigSchema } from './schema.ts';

/** A checked file: with defaults, absolute paths and parsed endpoints. */
export type NodeConfig = Omit<z.output<typeof nodeConfigSchema>, 'vm'> & {
  vm: Omit<z.output<typeof nodeConfigSchema>['vm'], 'disks'> & { disks: readonly Disk[] };
  eventLog: string;
  /** where it was read from */
  file: string;
};

type Code = `COLO_${string}`;
type Problem = { offset: number; code: Code; text: string };
type Issue = z.core.$ZodIssue;

/** Bytes for the names of the sockets in runDirectory, the "/" included. */
export const SOCKET_NAME_BYTES_MAX = 27;
const RUN_DIRECTORY_BYTES_MAX = UNIX_PATH_BYTES_MAX - SOCKET_NAME_BYTES_MAX;
/** A thousand times a real file. A wrong argument, such as a disk image, is refused before it is parsed. */
const FILE_CHARACTERS_MAX = 4 * 1024 * 1024;

export function loadNodeConfig(path: string): NodeConfig {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ColoError(
      'COLO_CONFIG_READ',
      `${path}: ${errorText(error)}; give a readable YAML file with -c`,
      { cause: error },
    );
  }
  return parseNodeConfig(text, path);
}

/** Relative paths in the file are relative to the folder of `fileName`. */
export function parseNodeConfig(text: string, fileName: string): NodeConfig {
  if (text.length > FILE_CHARACTERS_MAX) {
    throw new ColoError(
      'COLO_CONFIG_READ',
      `${fileName}: too large for a configuration; give a YAML file with -c`,
    );
  }
  const file = new YamlFile(text, fileName);
  const result = nodeConfigSchema.safeParse(file.value, { reportInput: true });
  if (!result.success) file.fail(result.error.issues.flatMap((issue) => explain(issue, file.top)));
  const config = withAbsolutePaths(result.data!, resolve(fileName));
  withArbiterPaths(config.arbiter, mustBeAbsolute);
  for (const { image, overlayDirectory } of config.vm.disks)
    for (const path of [image, overlayDirectory]) mustBeAbsolute(path);
  for (const path of [config.runDirectory, config.eventLog, config.file]) mustBeAbsolute(path);
  const problems = [...pathProblems(config, file.top), ...imageProblems(config, file.top)];
  if (problems.length > 0) file.fail(problems);
  return config;
}

function mustBeAbsolute(path: string): string {
  invariant(isAbsolute(path), 'a path of the configuration depends on the working directory');
  return path;
}

/** A file that is valid YAML. */
class YamlFile {
  readonly top: Node | null;
  readonly value: unknown;
  private readonly fileName: string;
  private readonly lines = new LineCounter();

  /** Throws COLO_CONFIG_SYNTAX or COLO_CONFIG_DUPLICATE_KEY. */
  constructor(text: string, fileName: string) {
    this.fileName = fileName;
    const document = parseDocument(text, { lineCounter: this.lines, prettyErrors: false, stringKeys: true });
    // A warning is, for instance, an unknown tag: the value is then not what the author meant.
    const problems = [...document.errors, ...document.warnings].map((error) => syntaxProblem(error, text));
    if (problems.length > 0) this.fail(problems);
    this.top = document.contents;
    try {
      this.value = document.toJS();
    } catch (error) {
      const what = `not valid YAML: ${errorText(error)}; correct its aliases`;
      this.fail([{ offset: 0, code: 'COLO_CONFIG_SYNTAX', text: what }]);
    }
  }

  /** Throws the most important of the problems, with its place and the number of the others. */
  fail(problems: readonly Problem[]): never {
    const [first] = inOrder(problems);
    const { line, col } = this.lines.linePos(first.offset);
    const rest = problems.length - 1;
    const more = rest === 0 ? '' : ` (and ${rest} more ${rest === 1 ? 'problem' : 'problems'})`;
    throw new ColoError(first.code, `${this.fileName}:${line}:${col}: ${first.text}${more}`);
  }
}

function syntaxProblem({ code, message, pos }: YAMLError, text: string): Problem {
  const [offset] = pos;
  if (code === 'DUPLICATE_KEY') {
    const key = JSON.stringify(/^[^\s:]*/.exec(text.slice(offset))?.[0] ?? '');
    return { offset, code: 'COLO_CONFIG_DUPLICATE_KEY', text: `key ${key} is there twice; remove one` };
  }
  const what = oneLine(message).replace(/[.;]$/, '');
  return { offset, code: 'COLO_CONFIG_SYNTAX', text: `not valid YAML: ${what}; correct it here` };
}

/** Sockets whose paths the kernel does not take, now that the paths are absolute. */
function pathProblems(config: NodeConfig, top: Node | null): Problem[] {
  const problems: Problem[] = [];
  const add = (path: readonly string[], text: string): void => {
    problems.push({ offset: locate(top, path, 'value').offset, code: 'COLO_CONFIG_ENDPOINT', text });
  };
  for (const [endpoint, path] of [
    [config.link.listen, ['link', 'listen']],
    [config.link.peer, ['link', 'peer']],
    [config.uplink.socket, ['uplink']],
  ] as const) {
    const why = endpoint.kind === 'unix' ? unixPathProblem(endpoint.path) : null;
    if (why !== null) add(path, why);
  }
  const runBytes = Buffer.byteLength(config.runDirectory);
  if (runBytes > RUN_DIRECTORY_BYTES_MAX) {
    const limit = `${runBytes} bytes, and unix sockets in it allow ${RUN_DIRECTORY_BYTES_MAX}; choose a shorter path`;
    add(['runDirectory'], `runDirectory ${config.runDirectory} has ${limit}`);
  }
  return problems;
}

/** Images that arguments of the user name too, now that the paths are absolute. */
function imageProblems({ vm }: NodeConfig, top: Node | null): Problem[] {
  const second = secondUserOf(vm, vm.disks);
  if (second === null) return [];
  const { offset } = locate(top, ['vm', ...second.path], 'value');
  return [{ offset, code: 'COLO_CONFIG_QEMU_ARGS', text: second.text }];
}

/** Returns the keys of which two files have different values, as in "vm.args"; not that they are two files. */
export function differingKeys(one: NodeConfig, other: NodeConfig): string[] {
  return keysOfDifferences({ ...one, file: '' }, { ...other, file: '' }, '');
}

function keysOfDifferences(one: unknown, other: unknown, path: string): string[] {
  if (isDeepStrictEqual(one, other)) return [];
  if (!isSection(one) || !isSection(other)) return [path];
  const keys = new Set([...Object.keys(one), ...Object.keys(other)]);
  return [...keys].flatMap((key) =>
    keysOfDifferences(one[key], other[key], path === '' ? key : `${path}.${key}`),
  );
}

/** Of an endpoint the parts are no keys of the file. */
const isSection = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !('kind' in value);

/**
 * Returns the runDirectory of a file that may have errors elsewhere: enough to ask the node that runs there. Throws as
 * `loadNodeConfig` does if it is not there.
 */
export function readRunDirectory(path: string): string {
  try {
    const file = parseDocument(readFileSync(path, 'utf8'), { prettyErrors: false }).get('runDirectory');
    if (typeof file === 'string' && file !== '') return resolve(dirname(path), file);
  } catch {
    // The same error with its place follows.
  }
  return loadNodeConfig(path).runDirectory;
}

/** Returns the JSON schema of the file, for editors and for the docs. */
export function nodeConfigJsonSchema(): Record<string, unknown> {
  return { title: 'colo node', ...z.toJSONSchema(nodeConfigSchema, { io: 'input' }) };
}

function withAbsolutePaths(raw: z.output<typeof nodeConfigSchema>, file: string): NodeConfig {
  const base = dirname(file);
  const absolute = (endpoint: Endpoint): Endpoint =>
    endpoint.kind === 'unix' ? { ...endpoint, path: resolve(base, endpoint.path) } : endpoint;
  const runDirectory = resolve(base, raw.runDirectory);
  return {
    ...raw,
    file,
    link: {
      listen: absolute(raw.link.listen),
      peer: absolute(raw.link.peer),
      ...tlsFiles(raw.link.tls, base),
    },
    uplink: { ...raw.uplink, socket: absolute(raw.uplink.socket) },
    arbiter: withArbiterPaths(raw.arbiter, (path) => resolve(base, path)),
    vm: { ...raw.vm, disks: withDiskPaths(raw.vm.disks, base) },
    runDirectory,
    eventLog: raw.eventLog === undefined ? join(runDirectory, 'events.ndjson') : resolve(base, raw.eventLog),
  };
}

function tlsFiles(
  tls: z.output<typeof nodeConfigSchema>['link']['tls'],
  base: string,
): Pick<NodeConfig['link'], 'tls'> {
  if (tls === undefined) return {};
  const { ca, certificate, key } = tls;
  return { tls: { ca: resolve(base, ca), certificate: resolve(base, certificate), key: resolve(base, key) } };
}

/** Returns the problems that an issue of the schema means, each with its place in the file. */
function explain(issue: Issue, top: Node | null): Problem[] {
  const path = issue.path.map((part) => (typeof part === 'number' ? part : String(part)));
  const dotted = path.join('.');
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(path);
    return issue.keys.map((key) => {
      const nearest = nearestName(key, known);
      const advice =
        nearest === null ? `known here: ${known.join(', ')}` : `did you mean ${JSON.stringify(nearest)}?`;
      const where = dotted === '' ? '' : ` in ${dotted}`;
      return {
        offset: locate(top, [...path, key], 'key').offset,
        code: 'COLO_CONFIG_UNKNOWN_KEY',
        text: `unknown key ${JSON.stringify(oneLine(key))}${where}; ${advice}`,
      };
    });
  }
  if (issue.code === 'invalid_union') return explainForm(issue, top);
  const { offset, found } = locate(top, path, issue.code === 'invalid_key' ? 'key' : 'value');
  if (!found && issue.code !== 'custom') {
    return [{ offset, code: 'COLO_CONFIG_MISSING_KEY', text: `key "${dotted}" is missing; add it` }];
  }
  if (issue.code === 'custom') {
    const code = (issue.params?.coloCode as Code | undefined) ?? 'COLO_CONFIG_VALUE';
    const namesItself = code === 'COLO_CONFIG_CONFLICT' || code === 'COLO_CONFIG_QEMU_ARGS';
    const prefix = namesItself ? '' : `${dotted}: `;
    return [{ offset, code, text: `${prefix}${oneLine(issue.message)}` }];
  }
  const subject = dotted === '' ? 'the file' : dotted;
  return [{ offset, code: 'COLO_CONFIG_VALUE', text: `${subject}: ${valueProblem(issue)}` }];
}

/** Of a key that takes one text or a map: the problems of the form that was meant. */
function explainForm(issue: Extract<Issue, { code: 'invalid_union' }>, top: Node | null): Problem[] {
  const path = issue.path.map(String);
  const { input } = issue;
  const isMap = typeof input === 'object' && input !== null && !Array.isArray(input);
  const inner = issue.errors[isMap ? 1 : 0];
  return inner.flatMap((one) => explain({ ...one, path: [...path, ...one.path] }, top));
}

function valueProblem(issue: Issue): string {
  const given = describe(issue.input);
  switch (issue.code) {
    case 'invalid_type':
      return `${given} is not ${TYPE_NAMES[issue.expected] ?? `of type ${issue.expected}`}; ${typeAdvice(issue.expected, issue.input)}`;
    case 'too_small':
      if (issue.origin === 'number') return `${given} is too small; give at least ${issue.minimum}`;
      return issue.origin === 'array' ? 'is empty; give at least one' : 'is empty; give one';
    case 'too_big':
      return `${issue.origin === 'number' ? given : 'it'} is too large; give at most ${issue.maximum}`;
    case 'invalid_value':
      return `${given} is not allowed; choose ${issue.values.map(String).join(' or ')}`;
    case 'invalid_key':
      return issue.issues.map((inner) => oneLine(inner.message)).join('; ');
    default:
      return `${given}: ${oneLine(issue.message)}`;
  }
}

function typeAdvice(expected: string, given: unknown): string {
  if (given === null || given === undefined) return 'write one';
  switch (expected) {
    case 'string':
      return typeof given === 'object' ? 'give one text' : 'put it in quotes';
    case 'number':
      return 'write digits alone, without quotes or a unit';
    case 'int':
      return 'write it without a fraction';
    case 'boolean':
      return 'write one of the two, without quotes';
    case 'array':
      return 'write it in brackets, as in [a, b]';
    default:
      return 'write its keys below it, indented';
  }
}

const TYPE_NAMES: Record<string, string> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map of keys and values',
  record: 'a map of keys and values',
};

function describe(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Returns the place of a key or its value or, if it is not in the file, of the nearest thing around it. */
function locate(
  top: Node | null,
  path: readonly (string | number)[],
  wanted: 'key' | 'value',
): { offset: number; found: boolean } {
  let node: unknown = top;
  let offset = top?.range?.[0] ?? 0;
  for (const [depth, part] of path.entries()) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(part));
      if (pair === undefined) return { offset, found: false };
      const last = depth === path.length - 1;
      const keyOffset = (pair.key as Node).range![0];
      const valueOffset = (pair.value as Node | null)?.range?.[0];
      // The place of a map is its key: its own first character is that of its first entry.
      offset =
        (last && wanted === 'key') || isMap(pair.value) || valueOffset === undefined
          ? keyOffset
          : valueOffset;
      node = pair.value;
    } else if (isSeq(node) && typeof part === 'number' && part < node.items.length) {
      node = node.items[part];
      offset = (node as Node).range?.[0] ?? offset;
    } else {
      return { offset, found: false };
    }
  }
  return { offset, found: true };
}

function keysAt(path: readonly (string | number)[]): string[] {
  type Schema = { properties?: Record<string, Schema>; items?: Schema; anyOf?: Schema[] };
  let schema: Schema = nodeConfigJsonSchema();
  for (const part of path)
    schema = (typeof part === 'number' ? schema.items : schema.properties?.[part]) ?? {};
  const { properties } = schema.anyOf?.find((form) => form.properties !== undefined) ?? schema;
  return Object.keys(properties ?? {});
}

/** The order of problems: an unknown key often explains a missing one, and a wrong value a conflict. */
const rank = ({ code }: Problem): number =>
  code === 'COLO_CONFIG_UNKNOWN_KEY' ? 0 : code === 'COLO_CONFIG_CONFLICT' ? 2 : 1;
const inOrder = (problems: readonly Problem[]): Problem[] =>
  problems.toSorted((a, b) => rank(a) - rank(b) || a.offset - b.offset);
const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();
const errorText = (error: unknown): string => {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'there is no such file';
  if (code === 'EACCES') return 'this user may not read it';
  if (code === 'EISDIR') return 'it is a directory';
  return oneLine(messageOf(error));
};
