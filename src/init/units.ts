/** The systemd units of a node, which are files of their own beside the program, and what the bridge's name changes of them. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { invariant } from '../error.ts';

export type Unit = { readonly name: string; readonly text: string };

/** The units, and who puts them on the hosts: a Debian package brings its own, which a copy in /etc would hide for good. */
export type Units = { readonly files: readonly Unit[]; readonly from: 'package' | 'init' };

const FOLDER = fileURLToPath(new URL('../../deploy/systemd', import.meta.url));
/** Where the Debian package has the program. */
const PACKAGE = '/usr/lib/colo-proxy/';
/** The bridge that the units name. */
export const UNIT_BRIDGE = 'br0';

export function readUnits(): Units {
  const files = readdirSync(FOLDER)
    .toSorted()
    .map((name) => ({ name, text: readFileSync(join(FOLDER, name), 'utf8') }));
  return { files, from: FOLDER.startsWith(PACKAGE) ? 'package' : 'init' };
}

/** Returns a drop-in that puts the tap on another bridge than the unit's; null if it is the unit's. */
export function bridgeDropIn({ files }: Units, bridge: string): string | null {
  if (bridge === UNIT_BRIDGE) return null;
  const unit = files.find(({ name }) => name.startsWith('colo-uplink@'));
  const lines = (unit?.text ?? '').split('\n').filter((line) => line.startsWith('ExecStartPre='));
  const suffix = ` master ${UNIT_BRIDGE}`;
  invariant(
    lines.some((line) => line.endsWith(suffix)),
    'the unit of the uplink does not name its bridge',
  );
  const changed = lines.map((line) =>
    line.endsWith(suffix) ? line.replace(suffix, ` master ${bridge}`) : line,
  );
  return [
    '# Written by "colo init": the bridge is another one than that of the unit.',
    '[Service]',
    'ExecStartPre=',
    ...changed,
    '',
  ].join('\n');
}
