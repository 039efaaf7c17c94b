/** What `colo init` prints for a person. */
import { join } from 'node:path';
import type { Step } from '../init/next-steps.ts';
import { CA_FOLDER, type Pair } from '../init/pair.ts';
import type { Change, Findings } from '../init/reasons.ts';
import type { Written } from '../init/write.ts';
import { safe } from './output.ts';

/** A node's own, beside its VM's: docs/limits.md. */
const NODE_MB = 128;

export type Report = Written & {
  readonly out: string;
  readonly changes: readonly Change[];
  /** the files of the VM that both hosts must have */
  readonly needed: readonly string[];
  readonly next: readonly Step[];
};

export function refusalText({ refusals }: Findings): string {
  return refusals
    .map(({ kind, what, why, advice }) => `REFUSED ${kind}: ${safe(what)}\n        ${why}\n        ${advice}`)
    .join('\n');
}

export function writtenText(pair: Pair, { out, files, kept, changes, needed, next }: Report): string {
  const memoryMb = 2 * pair.machine.memoryMb + NODE_MB;
  return [
    ...changesText(changes),
    ...files.map((file) => `written ${file}`),
    ...kept.map((file) => `kept    ${file}`),
    '',
    `Each host needs the bridge ${pair.bridge}, the user colo and ${memoryMb} MiB of free memory: a secondary has the VM's memory twice.`,
    ...(needed.length === 0
      ? []
      : [`Both need, with the same contents, for the user colo to read: ${needed.map(safe).join(', ')}.`]),
    `Keep ${join(out, CA_FOLDER, 'ca.key')} apart from both hosts: it makes certificates for this pair.`,
    ...next.flatMap(({ node, why, commands }) => ['', `# ${placeOf(pair, node)}: ${why}`, ...commands]),
  ].join('\n');
}

/** One entry for each reason. */
function changesText(changes: readonly Change[]): string[] {
  return [...Map.groupBy(changes, ({ kind }) => kind)].flatMap(([kind, of]) => [
    ...of.map(({ what }) => `CHANGED ${kind}: ${safe(what)}`),
    `        ${of[0].why}`,
  ]);
}

function placeOf({ sides }: Pair, node: string | null): string {
  const side = sides.find((one) => one.node === node);
  return side === undefined ? 'here' : `on ${side.host} (${side.node}), as root`;
}
