/** `colo certs`: makes the CA and the certificates by which the two nodes of a pair know each other (link.tls). */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { isName, NAME_ADVICE } from '../config/schema.ts';
import { ColoError, messageOf } from '../error.ts';
import { nodeUri } from '../link/certified-node.ts';
import type { Made } from './make-certificates.ts';
import { print, printJson } from './output.ts';

type Options = { pair: string; nodes: string[]; out: string; ca?: string; days: number; json?: boolean };

/** Two years: long enough to be renewed in good time, and short enough that somebody knows how. */
export const DAYS = 730;
const DAYS_MAX = 3650;
export const CA_DAYS = 3650;

export function certsCommand(): Command {
  return new Command('certs')
    .description("Makes a CA and the two nodes' certificates for link.tls")
    .requiredOption('--pair <name>', 'the pair, as in both files', nameOf)
    .requiredOption('--nodes <names...>', 'the two nodes, as in their files')
    .requiredOption('--out <folder>', 'where to write them; no file there is overwritten')
    .option(
      '--ca <folder>',
      'have them issued by the CA in this folder (ca.crt, ca.key) in place of a new one',
    )
    .option('--days <number>', `how long the nodes' certificates are valid`, daysOf, DAYS)
    .option('--json', 'print JSON')
    .action(async (options: Options) => {
      const files = await makeCertificates(options, Date.now());
      if (options.json === true) printJson({ files });
      else print(textOf(options, files));
    });
}

/** Writes the certificates; returns the paths of their files. Throws COLO_CERTS_EXISTS or COLO_CERTS_CA or COLO_CERTS_WRITE. */
export async function makeCertificates(
  { pair, nodes, out, ca: from, days }: Omit<Options, 'json'>,
  nowMs: number,
): Promise<string[]> {
  const [one, two, ...more] = nodes.map(nameOf);
  if (two === undefined || more.length > 0 || one === two)
    throw new ColoError(
      'COLO_USAGE',
      'a pair has two nodes of different names; give both, as in --nodes a b',
    );
  const wanted = [...(from === undefined ? ['ca'] : []), one, two];
  if (wanted.includes('ca') && (one === 'ca' || two === 'ca'))
    throw new ColoError(
      'COLO_USAGE',
      'a node cannot be called "ca" here: the files of the CA have that name',
    );
  // The key comes first: no certificate is without it if the disk is full.
  const paths = wanted.flatMap((name) => [join(out, `${name}.key`), join(out, `${name}.crt`)]);
  for (const path of paths) if (existsSync(path)) throw exists(path);
  const { makeCa, makeNode } = await import('./make-certificates.ts');
  const ca = from === undefined ? await makeCa(pair, CA_DAYS, nowMs) : readCa(from);
  const made: Made[] = from === undefined ? [ca] : [];
  for (const node of [one, two])
    made.push(await issued(() => makeNode(ca, { pair, node }, days, nowMs), from));
  try {
    mkdirSync(out, { recursive: true, mode: 0o700 });
    for (const [place, { key, certificate }] of made.entries()) {
      writeNew(paths[2 * place], key, 0o600);
      writeNew(paths[2 * place + 1], certificate, 0o644);
    }
  } catch (cause) {
    if (cause instanceof ColoError) throw cause;
    throw new ColoError(
      'COLO_CERTS_WRITE',
      `cannot write to ${out}: ${messageOf(cause)}; give another --out`,
      { cause },
    );
  }
  return paths;
}

function writeNew(path: string, text: string, mode: number): void {
  try {
    writeFileSync(path, text, { flag: 'wx', mode });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') throw exists(path);
    throw cause;
  }
}

function exists(path: string): ColoError {
  return new ColoError(
    'COLO_CERTS_EXISTS',
    `${path} is there already, and is not overwritten; give another --out`,
  );
}

function readCa(folder: string): Made {
  try {
    return {
      certificate: readFileSync(join(folder, 'ca.crt'), 'utf8'),
      key: readFileSync(join(folder, 'ca.key'), 'utf8'),
    };
  } catch (cause) {
    throw badCa(folder, cause);
  }
}

async function issued(make: () => Promise<Made>, from: string | undefined): Promise<Made> {
  try {
    return await make();
  } catch (cause) {
    throw from === undefined ? cause : badCa(from, cause);
  }
}

function badCa(folder: string, cause: unknown): ColoError {
  return new ColoError(
    'COLO_CERTS_CA',
    `the CA in ${folder} cannot be used: ${messageOf(cause)}; give a folder in which "colo certs" made one`,
    { cause },
  );
}

function nameOf(text: string): string {
  if (!isName(text)) throw new InvalidArgumentError(`${JSON.stringify(text)} is no name; ${NAME_ADVICE}`);
  return text;
}

function daysOf(text: string): number {
  const days = Number(text);
  if (!/^[0-9]+$/.test(text) || days < 1 || days > DAYS_MAX)
    throw new InvalidArgumentError(`give whole days, from 1 to ${DAYS_MAX}`);
  return days;
}

function textOf({ pair, nodes, out, ca, days }: Options, files: readonly string[]): string {
  const caFile = join(ca ?? out, 'ca.crt');
  const perNode = nodes.map(
    (node) =>
      `Node ${node} (${nodeUri({ pair, node })}, ${days} days): copy ${caFile}, ${join(out, `${node}.crt`)}, ${join(out, `${node}.key`)} to its host.`,
  );
  return [
    ...files,
    '',
    ...perNode,
    `Name the three files in link.tls of its configuration (ca, certificate, key); other users may not read the key.`,
    ...(ca === undefined
      ? [`Keep ${join(out, 'ca.key')} apart from both hosts: it makes certificates for this pair.`]
      : []),
  ].join('\n');
}
